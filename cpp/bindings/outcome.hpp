// outcome.hpp - what a job has to say to its future.
#pragma once

#include <pybind11/pybind11.h>

#include "bridge_job.hpp"

namespace offgil::python {

namespace py = pybind11;

// Exactly one of the three: cancelled, a value, an exception. Needs the GIL.
class outcome {
 public:
  // Of a job that was handed back.
  explicit outcome(bridge_job& j) noexcept;

  // The same for a future of an event loop. Exceptions of concurrent.futures that asyncio has its own of
  // become those, as in asyncio.wrap_future().
  static outcome for_loop(bridge_job& j) noexcept;

  bool is_cancelled() const noexcept { return !value_ && !exception_; }
  PyObject* value() const noexcept { return value_.ptr(); }          // borrowed, or null
  PyObject* exception() const noexcept { return exception_.ptr(); }  // borrowed, or null

 private:
  py::object value_;
  py::object exception_;
};

}  // namespace offgil::python
