// outcome.cpp - what a job has to say to its future.
#include "outcome.hpp"

#include "errors.hpp"

namespace offgil::python {
namespace {

// A future does not take a StopIteration: it would end the coroutine that awaits it, silently.
py::object wrapped_stop_iteration(const py::object& stop) noexcept {
  PyErr_SetString(PyExc_RuntimeError, "the job raised StopIteration");
  py::object wrapper = take_raised();
  PyException_SetCause(wrapper.ptr(), Py_NewRef(stop.ptr()));
  return wrapper;
}

py::object exception_of(refusal why) noexcept {
  if (why == refusal::closed)
    PyErr_SetString(exceptions::get().pool_closed, "the pool was closed while the job waited for room in it");
  else
    PyErr_SetString(exceptions::get().pool_broken, initializer_failed);
  return take_raised();
}

}  // namespace

outcome::outcome(bridge_job& j) noexcept {
  if (j.refused != refusal::none) {
    exception_ = exception_of(j.refused);
    return;
  }
  if (j.state.load(std::memory_order_acquire) == job_state::cancelled) return;
  value_ = py::reinterpret_steal<py::object>(j.its_kind().finish(j));
  if (value_) return;
  exception_ = take_raised();
  if (PyErr_GivenExceptionMatches(exception_.ptr(), PyExc_StopIteration) != 0)
    exception_ = wrapped_stop_iteration(exception_);
}

}  // namespace offgil::python
