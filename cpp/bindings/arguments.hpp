// arguments.hpp - what Python passes to the constructors of pools, checked.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "future_style.hpp"
#include "pool_core.hpp"

namespace offgil::python {

namespace py = pybind11;

// Each raises TypeError or ValueError that names the argument.
unsigned workers_argument(const py::object& given, const char* name);  // None: the CPUs this process may use
std::size_t max_pending_argument(const py::object& given);             // None: 0, any number
int nice_argument(const py::object& given);
std::chrono::nanoseconds spin_argument(const py::object& given);
std::string text_argument(const py::object& given, const char* name);
delivery delivery_argument(const py::object& given);
future_style& style_argument(const std::string& name);

}  // namespace offgil::python
