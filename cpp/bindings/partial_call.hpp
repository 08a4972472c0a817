// partial_call.hpp - what a functools.partial calls in the end.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>

namespace offgil::python {

namespace py = pybind11;

// Owned: the partial may be given others while an argument is converted. asyncio.to_thread() makes one of the
// run() of a context: then the function is the one that runs there.
struct partial_call {
  py::object function;
  py::object arguments;  // a tuple
  PyObject* const* args = nullptr;
  std::size_t nargs = 0;
  bool has_keywords = false;
};

// Nothing for whatever else can be called.
std::optional<partial_call> partial_call_of(PyObject* callable) noexcept;

void bind_partial_call();

}  // namespace offgil::python
