// guarded.hpp - parts of the module guarded.
#pragma once

#include <pybind11/pybind11.h>

// More bodies, in a second file that includes the SDK.
void bind_more(pybind11::module_& m);
