// pool.hpp - the Python type under offgil.Pool.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace offgil::python {

class pool_core;

void bind_pool(pybind11::module_& m);

// What is behind a Pool. Throws pybind11::cast_error for anything else.
std::shared_ptr<pool_core> core_of_pool(const pybind11::object& object);

}  // namespace offgil::python
