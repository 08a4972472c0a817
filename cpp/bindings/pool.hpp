// pool.hpp - the Python type under offgil.Pool.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace offgil::python {

class pool_core;

void bind_pool(pybind11::module_& m);

// What is behind a Pool. Throws TypeError for anything else, and for one whose __init__ has not run.
std::shared_ptr<pool_core> core_of_pool(PyObject* object);

}  // namespace offgil::python
