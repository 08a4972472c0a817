// stats_dict.hpp - a pool's counters for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace offgil::python {

class pool_core;

// One entry per field of offgil.PoolStats; all zero where there is no pool yet. Needs the GIL.
pybind11::dict stats_dict(pool_core* core);

}  // namespace offgil::python
