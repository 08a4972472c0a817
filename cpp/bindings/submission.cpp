// submission.cpp - how a call becomes a job in a pool.
#include "submission.hpp"

#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "concurrent_channel.hpp"
#include "concurrent_future.hpp"
#include "errors.hpp"
#include "exit_hook.hpp"
#include "loop_channel.hpp"
#include "native_function.hpp"
#include "partial_call.hpp"
#include "pool_core.hpp"

namespace offgil::python {
namespace {

// What to_thread() makes of a native function is run as what it is, without the GIL.
bool is_native(const submitted_call& call, const std::optional<partial_call>& inner) noexcept {
  return inner && native_function::check(inner->function.ptr()) && !inner->has_keywords && call.nargs == 0 &&
         call.kwnames == nullptr;
}

bool prepare(pool_core& core, bridge_job& j, const submitted_call& call, manners how) {
  PyObject* const function = call.function;
  if (native_function::check(function))
    return native_function::of(function).kind.prepare(j, call.args, call.nargs, call.kwnames);
  const auto inner = partial_call_of(function);
  if (is_native(call, inner))
    return native_function::of(inner->function.ptr()).kind.prepare(j, inner->args, inner->nargs, nullptr);
  if (PyCallable_Check(function) != 0)
    return core.kinds()
        .of(inner ? inner->function.ptr() : function)
        .prepare(j, function, call.args, call.nargs, call.kwnames, how);
  throw py::type_error(
      std::string("the first argument, fn, must be a native function or another callable, not ") +
      Py_TYPE(function)->tp_name);
}

[[noreturn]] void raise_not_accepted(worker_pool::admission answer, const pool_core& core, manners how) {
  core.check_usable();  // a pool that has broken is closed, too
  if (answer == worker_pool::admission::closed) raise_closed(how);
  raise(exceptions::get().pool_full,
        "the pool is full: max_pending=" + std::to_string(core.engine().max_pending()) +
            " jobs wait already; wait for room, or submit later");
}

}  // namespace

bool is_native(const submitted_call& call) noexcept {
  return native_function::check(call.function) || is_native(call, partial_call_of(call.function));
}

void raise_closed(manners how) {
  const bool by_exit = is_exiting();
  if (how == manners::of_executors)
    raise(PyExc_RuntimeError, by_exit ? "cannot schedule new futures after interpreter shutdown"
                                      : "cannot schedule new futures after shutdown");
  raise(exceptions::get().pool_closed, by_exit ? "the pool was closed by the shutdown of the interpreter"
                                               : "the pool has been closed; make a new one");
}

void check_open(pool_core& core, manners how) {
  core.check_usable();
  if (!core.engine().is_closed()) return;
  core.engine().count_rejection();
  raise_closed(how);
}

PyObject* submit_to(loop_channel& channel, const submitted_call& call, worker_pool::when_full policy,
                    manners how) {
  loop_channel::place place(channel);
  pool_core& core = channel.core();
  core.get_ready();
  future_style& style = core.futures();
  bridge_job* const j = style.create(channel);
  if (j == nullptr) throw py::error_already_set();
  PyObject* const future = Py_NewRef(style.future_of(*j));  // the caller's; the job has its own
  try {
    if (!prepare(core, *j, call, how)) throw py::error_already_set();
    const auto answer = channel.submit(*j, policy);
    if (j->destination == nullptr) raise_not_accepted(answer, core, how);
    place.is_taken();
  } catch (...) {
    Py_DECREF(future);
    style.release(*j);
    throw;
  }
  return future;
}

PyObject* submit_to(concurrent_channel& channel, const submitted_call& call, bool block) {
  pool_core& core = channel.core();
  core.get_ready();
  concurrent_job* const j = create_concurrent_future();
  if (j == nullptr) throw py::error_already_set();
  auto future = py::reinterpret_steal<py::object>(future_of(*j));
  if (!prepare(core, *j, call, manners::of_executors)) throw py::error_already_set();
  const auto answer = channel.submit(*j, block);
  if (answer == worker_pool::admission::accepted) return future.release().ptr();
  raise_not_accepted(answer, core, manners::of_executors);
}

}  // namespace offgil::python
