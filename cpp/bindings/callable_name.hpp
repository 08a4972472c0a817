// callable_name.hpp - what to call a callable.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace offgil::python {

namespace py = pybind11;

// Its __qualname__ or __name__, or else its type's name. Runs Python code, which may switch threads.
std::string callable_name(const py::object& callable) noexcept;

}  // namespace offgil::python
