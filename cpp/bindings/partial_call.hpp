// partial_call.hpp - what a functools.partial calls in the end.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>

namespace offgil::python {

namespace py = pybind11;

// Borrowed from the partial. asyncio.to_thread() makes one of the run() of a context: then the function is
// the one that runs there.
struct partial_call {
  PyObject* function;
  PyObject* const* args;
  std::size_t nargs;
  bool has_keywords;
};

// Nothing for whatever else can be called.
std::optional<partial_call> partial_call_of(PyObject* callable) noexcept;

void bind_partial_call();

}  // namespace offgil::python
