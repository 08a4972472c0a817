// articles.hpp - the articles' functions in plain pybind11, to compare offgil with.
#pragma once

#include <pybind11/pybind11.h>

// Adds them to `m`. Needs the GIL.
void bind_articles(pybind11::module_& m);
