// executor.hpp - the Python type under offgil.ThreadPoolExecutor.
#pragma once

#include <pybind11/pybind11.h>

namespace offgil::python {

void bind_executor(pybind11::module_& m);

}  // namespace offgil::python
