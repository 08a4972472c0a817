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
unsigned workers_argument(PyObject* given, const char* name);  // None: the CPUs this process may use
std::size_t max_pending_argument(PyObject* given);             // None: 0, any number
int nice_argument(PyObject* given);
std::chrono::nanoseconds spin_argument(PyObject* given);
std::string text_argument(PyObject* given, const char* name);
delivery delivery_argument(PyObject* given);
future_style& style_argument(PyObject* given);

}  // namespace offgil::python
