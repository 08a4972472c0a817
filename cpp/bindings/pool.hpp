// pool.hpp - the Python type under offgil.Pool.
#pragma once

#include <pybind11/pybind11.h>

namespace offgil::python {

void bind_pool(pybind11::module_& m);

}  // namespace offgil::python
