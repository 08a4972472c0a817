// outcome.cpp - what a job has to say to its future.
#include "outcome.hpp"

#include "errors.hpp"
#include "names.hpp"

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

// Subclasses stay what they are.
PyObject* type_in_asyncio(PyTypeObject* type) noexcept {
  const exceptions& all = exceptions::get();
  const auto* const given = reinterpret_cast<PyObject*>(type);
  if (given == all.future_cancelled) return all.cancelled;
  if (given == all.future_invalid_state) return all.invalid_state;
  return nullptr;
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

outcome outcome::for_loop(bridge_job& j) noexcept {
  outcome made(j);
  PyObject* const raised = made.exception();
  PyObject* const type = raised != nullptr ? type_in_asyncio(Py_TYPE(raised)) : nullptr;
  if (type == nullptr) return made;
  const auto traceback = py::reinterpret_steal<py::object>(PyException_GetTraceback(raised));
  const auto args = py::reinterpret_steal<py::object>(PyObject_GetAttr(raised, names::get().args));
  PyObject* const converted = args ? PyObject_CallObject(type, args.ptr()) : nullptr;
  made.exception_ = converted != nullptr ? py::reinterpret_steal<py::object>(converted) : take_raised();
  if (traceback) PyException_SetTraceback(made.exception(), traceback.ptr());
  return made;
}

}  // namespace offgil::python
