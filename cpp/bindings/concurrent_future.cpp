// concurrent_future.cpp - a concurrent.futures.Future that carries its job.
//
// The type is made of two: a C type with the job, and concurrent.futures.Future behind it. As long as nobody
// looks, the base's fields (its Condition above all, which costs more than all the rest) do not exist:
// result(), exception(), cancel() and the questions about the state are answered from the job, without a
// lock, and result() waits without the GIL. Callbacks are kept beside the job until it comes back.
//
// The first touch of any field, by wait(), as_completed() or whoever knows the base's inside, makes them all;
// from then on the future is *observed*: the base's own code answers, and the outcome is put in through the
// base's own methods, under its Condition, so that every observer sees what he would see of any other future.
// Kept callbacks become the base's, unless the outcome is there: then nobody can add another, and those run
// when the job is brought.
#include "concurrent_future.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "c_method.hpp"
#include "clock.hpp"
#include "concurrent_channel.hpp"
#include "errors.hpp"
#include "outcome.hpp"
#include "pool_core.hpp"
#include "thread_identity.hpp"

namespace offgil::python {
namespace {

// The base's methods, as unbound functions, and what else we use of it. Kept for ever.
struct base_class {
  PyObject* type;
  PyObject* result;
  PyObject* exception;
  PyObject* done;
  PyObject* running;
  PyObject* cancelled;
  PyObject* cancel;
  PyObject* add_done_callback;
  PyObject* notify_cancel;  // set_running_or_notify_cancel
  PyObject* set_result;
  PyObject* set_exception;
  PyObject* get_snapshot;  // or null
};

base_class base{};
PyTypeObject* future_type = nullptr;
PyObject* state_field = nullptr;  // names of fields, and what the state field says
PyObject* callbacks_field = nullptr;
PyObject* pending_state = nullptr;
PyObject* cancelled_by_user_state = nullptr;
PyObject* running_state = nullptr;
PyObject* finished_state = nullptr;
PyObject* cancelled_state = nullptr;

constexpr std::size_t job_offset =
    (sizeof(PyObject) + alignof(concurrent_job) - 1) / alignof(concurrent_job) * alignof(concurrent_job);

concurrent_job& job_of(PyObject* future) noexcept {
  return *std::launder(reinterpret_cast<concurrent_job*>(reinterpret_cast<char*>(future) + job_offset));
}

// The same where somebody asks the future. In a forked child, where nobody brings what was in flight, it
// finds the outcome there: if none was, PoolBroken.
concurrent_job& asked_job_of(PyObject* future) noexcept;

concurrent_channel* channel_of(const concurrent_job& j) noexcept {
  return static_cast<concurrent_channel*>(j.destination);
}

// Untracked until it can be part of a cycle, see inline_future.cpp.
void track(PyObject* self) noexcept {
  if (PyObject_GC_IsTracked(self) == 0) PyObject_GC_Track(self);
}

PyObject* call_base(PyObject* method, PyObject* self, PyObject* argument = nullptr) noexcept {
  return PyObject_CallFunctionObjArgs(method, self, argument, nullptr);
}

bool runs(const concurrent_job& j) noexcept {
  const job_state seen = j.state.load(std::memory_order_acquire);
  return seen != job_state::waiting && seen != job_state::cancelled;  // or has run, and is not back yet
}

// The engine says why it refuses a job after it has withdrawn it, and before the flag is set.
bool was_cancelled(const concurrent_job& j) noexcept {
  return (j.has_outcome || j.flag.is_set()) &&
         j.state.load(std::memory_order_acquire) == job_state::cancelled && j.refused == refusal::none;
}

// Whether another thread makes the outcome. It may take its time, as it may run Python code.
bool is_made_elsewhere(const concurrent_job& j) noexcept {
  return j.maker != std::thread::id() && j.maker != std::this_thread::get_id() && !j.made_in.is_over();
}

// Those who wait for that are few, and it is short as a rule.
void sleep_without_gil(clock::duration at_most = clock::duration::max()) {
  constexpr clock::duration between_looks = std::chrono::milliseconds(1);
  const py::gil_scoped_release whoever_makes_it_may_go_on;
  std::this_thread::sleep_for(std::min(at_most, between_looks));
}

[[noreturn]] void raise_timeout() {
  PyErr_SetNone(PyExc_TimeoutError);
  throw py::error_already_set();
}

// For who needs the outcome to go on. Throws RuntimeError, TimeoutError, and what a signal handler raised.
void make_outcome(concurrent_job& j, std::optional<clock::time_point> until = std::nullopt) {
  while (is_made_elsewhere(j)) {
    const auto left = until ? *until - clock::now() : clock::duration::max();
    if (left <= clock::duration::zero()) raise_timeout();
    sleep_without_gil(left);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
  if (!take_outcome(j))
    raise(PyExc_RuntimeError,
          "the result of a job was asked for by code that runs while this thread converts it");
}

// ---- the base's fields ----

bool set_field(PyObject* fields, PyObject* name, PyObject* value) noexcept {
  return PyDict_SetItem(fields, name, value) == 0;
}

// Puts the outcome into the fields of a future that nobody has observed before: there is nobody to tell.
bool enter_outcome(concurrent_job& j, PyObject* fields) noexcept {
  const bool cancelled = j.value == nullptr && j.exception == nullptr;
  static PyObject* const result = PyUnicode_InternFromString("_result");
  static PyObject* const exception = PyUnicode_InternFromString("_exception");
  return (j.value == nullptr || set_field(fields, result, j.value)) &&
         (j.exception == nullptr || set_field(fields, exception, j.exception)) &&
         set_field(fields, state_field, cancelled ? cancelled_state : finished_state);
}

// The base's fields are there, the outcome is not: the base is told what was kept for it.
bool hand_callbacks_over(concurrent_job& j, PyObject* fields) noexcept {
  if (j.callbacks == nullptr) return true;
  if (!set_field(fields, callbacks_field, j.callbacks)) return false;
  Py_CLEAR(j.callbacks);
  return true;
}

// Makes the fields, as those of any new future. They come into being at once: making them runs Python code,
// during which another thread may come here.
bool observe(PyObject* self) noexcept {
  concurrent_job& j = asked_job_of(self);
  if (j.is_observed) return true;
  return guarded(false, [&] {
    const py::object fresh = py::handle(base.type)().attr("__dict__");
    const auto fields = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(self, nullptr));
    if (!fields) throw py::error_already_set();
    // An outcome must have been made before it can be entered. From the wish on, if it came in time, until
    // the future is observed, no code of Python runs, and nothing is made that the collector would look at:
    // whoever ends the job must find it observed.
    const bool is_in_time = j.flag.make(completion_flag::notice);
    if (!is_in_time) make_outcome(j);
    if (j.is_observed) return true;
    if (PyDict_Update(fields.ptr(), fresh.ptr()) != 0) throw py::error_already_set();
    track(self);
    j.is_observed = true;
    j.is_published = !is_in_time;
    if (!(is_in_time ? hand_callbacks_over(j, fields.ptr()) : enter_outcome(j, fields.ptr())))
      throw py::error_already_set();
    return true;
  });
}

PyObject* get_field(PyObject* self, void* name) noexcept {
  if (!observe(self)) return nullptr;
  const concurrent_job& j = job_of(self);
  auto* const key = static_cast<PyObject*>(name);
  PyObject* const fields = PyObject_GenericGetDict(self, nullptr);
  if (fields == nullptr) return nullptr;
  PyObject* value = PyDict_GetItemWithError(fields, key);
  // Nobody tells the base when a job starts.
  if (key == state_field && value == pending_state && runs(j)) value = running_state;
  Py_XINCREF(value);
  Py_DECREF(fields);
  if (value == nullptr && PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_AttributeError, key);
  return value;
}

int put_field(PyObject* self, PyObject* value, void* name) noexcept {
  if (!observe(self)) return -1;
  auto* const key = static_cast<PyObject*>(name);
  PyObject* const fields = PyObject_GenericGetDict(self, nullptr);
  if (fields == nullptr) return -1;
  const int done = value != nullptr ? PyDict_SetItem(fields, key, value) : PyDict_DelItem(fields, key);
  Py_DECREF(fields);
  return done;
}

// ---- outcome ----

PyObject* give_value(const concurrent_job& j) noexcept {
  if (j.value != nullptr) return Py_NewRef(j.value);
  if (j.exception != nullptr)  // what is being handled becomes its context, as by `raise`
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(j.exception)), j.exception);
  else
    PyErr_SetNone(exceptions::get().future_cancelled);
  return nullptr;
}

PyObject* give_exception(const concurrent_job& j) noexcept {
  if (j.value != nullptr) Py_RETURN_NONE;
  if (j.exception != nullptr) return Py_NewRef(j.exception);
  PyErr_SetNone(exceptions::get().future_cancelled);
  return nullptr;
}

// The one argument that there may be, by position or by name; null where it was left out. Throws TypeError.
PyObject* only_argument(const char* name, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  if (!gives_at_most(name, nargs, kwnames))
    throw py::type_error(std::string("takes one argument at most: ") + name);
  const bool is_named = kwnames != nullptr && PyTuple_GET_SIZE(kwnames) != 0;
  return nargs != 0 || is_named ? args[0] : nullptr;
}

// None, or seconds. Throws TypeError.
std::optional<clock::time_point> deadline(PyObject* timeout) {
  if (timeout == Py_None) return std::nullopt;
  const double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (std::isnan(seconds)) throw py::value_error("timeout must not be NaN");
  constexpr double longest = 1e9;  // seconds: thirty years
  if (seconds > longest) return std::nullopt;
  const std::chrono::duration<double> at_most(seconds < 0 ? 0 : seconds);
  return clock::now() + std::chrono::duration_cast<clock::duration>(at_most);
}

// What is left until a deadline, as a timeout.
py::float_ time_until(clock::time_point end) {
  const std::chrono::duration<double> left = end - clock::now();
  return {std::max(left.count(), 0.0)};
}

// The base's answer, where the base has the last word. It takes a falsy exception for none.
PyObject* ask_base(PyObject* method, PyObject* self, PyObject* timeout) {
  concurrent_job& j = job_of(self);
  std::unique_ptr<waiting_room::absence> absence;
  concurrent_channel* const channel = channel_of(j);
  if (channel != nullptr && !j.flag.is_set()) {
    if (timeout == Py_None)
      absence = channel->absence_for(j);
    else
      channel->core().check_not_forked();
  }
  PyObject* const answer = call_base(method, self, timeout);
  if (answer == nullptr || method != base.result || j.is_the_users || j.exception == nullptr) return answer;
  Py_DECREF(answer);
  return give_value(j);
}

// Whether the calling thread is one of those that tell who observes this future: it need not wait to be told,
// and might wait for itself.
bool brings_here(const concurrent_job& j) noexcept {
  const concurrent_channel* const channel = channel_of(j);
  return channel != nullptr && channel->brings_here();
}

// result() and exception().
template <PyObject* (*give)(const concurrent_job&) noexcept>
PyObject* wait_for(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    PyObject* const given = only_argument("timeout", args, nargs, kwnames);
    PyObject* const timeout = given != nullptr ? given : Py_None;
    concurrent_job& j = asked_job_of(self);
    const bool brings = brings_here(j);
    std::optional<clock::time_point> until;
    if (!j.is_observed || brings) {
      until = deadline(timeout);
      if (!j.flag.is_set() && !channel_of(j)->wait(j, until)) raise_timeout();
      if (j.is_observed && brings) publish(j);
      make_outcome(j, until);
    }
    if (!j.is_observed || (j.is_published && !j.is_the_users)) return give(j);
    const auto left = until ? py::object(time_until(*until)) : py::reinterpret_borrow<py::object>(timeout);
    return ask_base(give == &give_value ? base.result : base.exception, self, left.ptr());
  });
}

// ---- after a fork ----

// The outcome was being made, by a thread that is not in this process. It may be half taken from the payload,
// which is nobody's any more.
void give_up_what_is_being_made(concurrent_job& j) noexcept {
  PyErr_SetString(
      exceptions::get().pool_broken,
      "the thread that converted the job's result stayed in the parent process when it was forked");
  j.exception = take_raised().release().ptr();
  j.has_outcome = true;
  j.has_payload = false;
  j.maker = std::thread::id();
  track(future_of(j));
}

// What a job has left in its storage when a worker was inside it is nobody's any more.
void give_up(concurrent_job& j) noexcept {
  guarded(0, [&] { return channel_of(j)->core().check_not_forked(), 0; });
  py::object broken = take_raised();
  if (j.flag.is_set()) return;
  j.exception = broken.release().ptr();
  j.has_outcome = true;
  track(future_of(j));
  j.flag.set();
}

concurrent_job& asked_job_of(PyObject* future) noexcept {
  concurrent_job& j = job_of(future);
  if (channel_of(j) == nullptr || !channel_of(j)->was_left_behind_by_fork()) return j;
  if (!j.flag.is_set()) give_up(j);
  if (j.is_somebody_to_be_told()) publish(j);
  return j;
}

// ---- callbacks ----

void log_failed_callback(PyObject* self, const py::object& raised) noexcept {
  log_exception("error", "exception calling callback for %r", py::reinterpret_borrow<py::object>(self),
                raised);
}

// As the base's, but a callback that raises what is no Exception costs neither the callbacks behind it nor,
// on a thread of ours, the thread. On a thread of the user's, who has cancelled the future, it is raised in
// the end: it may be his KeyboardInterrupt. The list may grow meanwhile.
void call_all(PyObject* self, const py::list& callbacks) {
  py::object first;
  for (std::size_t i = 0; i < callbacks.size(); ++i) {
    const py::object each = callbacks[i];
    PyObject* const result = PyObject_CallOneArg(each.ptr(), self);
    Py_XDECREF(result);
    if (result != nullptr) continue;
    py::object raised = take_raised();
    if (PyErr_GivenExceptionMatches(raised.ptr(), PyExc_Exception) != 0 || is_thread_of_ours())
      log_failed_callback(self, raised);
    else if (!first)
      first = std::move(raised);
  }
  if (!first) return;
  restore_raised(std::move(first));
  throw py::error_already_set();
}

// The base's.
PyObject* invoke_callbacks(PyObject* self, PyObject*) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    const auto callbacks = py::reinterpret_steal<py::object>(get_field(self, callbacks_field));
    if (!callbacks) throw py::error_already_set();
    call_all(self, py::list(callbacks));
    Py_RETURN_NONE;
  });
}

// Those that the base has never heard of.
PyObject* invoke_kept_callbacks(PyObject* self) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    const auto callbacks = py::reinterpret_steal<py::list>(std::exchange(job_of(self).callbacks, nullptr));
    if (callbacks) call_all(self, callbacks);
    Py_RETURN_NONE;
  });
}

// Makes the list that keeps callbacks. It may run Python code: a collection.
void make_list_of_callbacks(concurrent_job& j) {
  py::list made;
  if (j.callbacks == nullptr) j.callbacks = made.release().ptr();
}

// False: too late, the outcome is there. From the wish on no code of Python runs: whoever ends the job must
// find the callback.
bool keep_callback(concurrent_job& j, PyObject* callback) {
  if (!j.flag.make(completion_flag::notice)) return false;
  if (PyList_Append(j.callbacks, callback) != 0) throw py::error_already_set();
  track(future_of(j));
  return true;
}

// As the base does it, in the caller's thread.
void call_late(PyObject* self, PyObject* callback) {
  PyObject* const result = PyObject_CallOneArg(callback, self);
  Py_XDECREF(result);
  if (result != nullptr) return;
  if (PyErr_ExceptionMatches(PyExc_Exception) == 0) throw py::error_already_set();
  log_failed_callback(self, take_raised());
}

PyObject* add_done_callback(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                            PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    PyObject* const callback = only_argument("fn", args, nargs, kwnames);
    if (callback == nullptr) throw py::type_error("missing 1 required positional argument: 'fn'");
    concurrent_job& j = asked_job_of(self);
    if (!j.is_observed && !j.flag.is_set()) make_list_of_callbacks(j);
    if (j.is_observed) return call_base(base.add_done_callback, self, callback);
    if (!keep_callback(j, callback)) call_late(self, callback);
    Py_RETURN_NONE;
  });
}

// ---- state ----

PyObject* done(PyObject* self, PyObject*) noexcept {
  const concurrent_job& j = asked_job_of(self);
  if (j.is_observed && !j.is_published) return call_base(base.done, self);
  return PyBool_FromLong(j.flag.is_set() ? 1 : 0);
}

PyObject* running(PyObject* self, PyObject*) noexcept {
  const concurrent_job& j = asked_job_of(self);
  if (j.is_observed) return call_base(base.running, self);
  return PyBool_FromLong(!j.flag.is_set() && runs(j) ? 1 : 0);
}

PyObject* cancelled(PyObject* self, PyObject*) noexcept {
  const concurrent_job& j = asked_job_of(self);
  if (j.is_observed) return call_base(base.cancelled, self);
  return PyBool_FromLong(was_cancelled(j) ? 1 : 0);
}

// What asyncio asks from 3.15 on when it copies an outcome: (done, cancelled, result, exception).
[[maybe_unused]] PyObject* get_snapshot(PyObject* self, PyObject*) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    concurrent_job& j = asked_job_of(self);
    if (j.is_observed && (!j.is_published || j.is_the_users)) return call_base(base.get_snapshot, self);
    const bool is_done = j.flag.is_set();
    if (is_done) make_outcome(j, std::nullopt);
    const auto or_none = [](PyObject* object) { return object != nullptr ? object : Py_None; };
    return PyTuple_Pack(4, is_done ? Py_True : Py_False, is_done && was_cancelled(j) ? Py_True : Py_False,
                        or_none(is_done ? j.value : nullptr), or_none(is_done ? j.exception : nullptr));
  });
}

// Tells the base, once. Whoever waits for a future is notified as if a worker had found it cancelled.
PyObject* publish_cancelled(PyObject* self) noexcept {
  concurrent_job& j = job_of(self);
  j.is_publication_begun = true;
  j.is_published = true;
  PyObject* const answer = call_base(base.cancel, self);
  if (answer == Py_False) return answer;                                 // the user has ended it
  py::object raised = answer == nullptr ? take_raised() : py::object();  // by a callback; all have run
  PyObject* const told = call_base(base.notify_cancel, self);
  Py_XDECREF(told);
  if (told != nullptr && answer != nullptr) return answer;
  Py_XDECREF(answer);
  if (raised) restore_raised(std::move(raised));
  return nullptr;
}

// Of a future that the user has ended before us: who waits for one that he cancelled is told by us.
PyObject* notify_if_cancelled(PyObject* self) noexcept {
  const auto state = py::reinterpret_steal<py::object>(get_field(self, state_field));
  if (!state) return nullptr;
  if (PyUnicode_Compare(state.ptr(), cancelled_by_user_state) != 0) Py_RETURN_NONE;
  return call_base(base.notify_cancel, self);
}

// Puts the outcome in through the base's own methods. Null where a callback has raised.
PyObject* tell_base(concurrent_job& j) noexcept {
  take_outcome(j);
  PyObject* const self = future_of(j);
  if (j.value == nullptr && j.exception == nullptr) return publish_cancelled(self);
  PyObject* told = j.value != nullptr ? call_base(base.set_result, self, j.value)
                                      : call_base(base.set_exception, self, j.exception);
  if (told == nullptr && PyErr_ExceptionMatches(exceptions::get().future_invalid_state) != 0) {
    j.is_the_users = true;
    PyErr_Clear();
    told = notify_if_cancelled(self);
  }
  j.is_published = true;
  return told;
}

// Tells those whom the base has never heard of.
PyObject* call_cancelled(PyObject* self) noexcept {
  job_of(self).is_publication_begun = true;
  PyObject* const called = invoke_kept_callbacks(self);
  if (called == nullptr) return nullptr;
  Py_DECREF(called);
  Py_RETURN_TRUE;
}

PyObject* cancel(PyObject* self, PyObject*) noexcept {
  concurrent_job& j = asked_job_of(self);
  concurrent_channel* const channel = channel_of(j);
  const bool withdrawn = channel != nullptr && !j.flag.is_set() && channel->withdraw(j);
  // Giving its arguments back has run Python code: the job may have come back meanwhile, and been published.
  if (withdrawn && j.is_publication_begun) Py_RETURN_TRUE;
  if (j.is_observed) return withdrawn ? publish_cancelled(self) : call_base(base.cancel, self);
  if (!withdrawn) return PyBool_FromLong(was_cancelled(j) ? 1 : 0);
  return call_cancelled(self);
}

// Threads that wait for a cancelled future have been told already, and the base would raise. Its caller, who
// means to tell them, hears once what the base would have said.
PyObject* set_running_or_notify_cancel(PyObject* self, PyObject*) noexcept {
  concurrent_job& j = asked_job_of(self);
  if (was_cancelled(j) && !std::exchange(j.is_cancel_noticed, true)) Py_RETURN_FALSE;
  return call_base(base.notify_cancel, self);
}

// ---- life ----

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
  const concurrent_job& j = job_of(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(j.value);
  Py_VISIT(j.exception);
  Py_VISIT(j.callbacks);
  return 0;
}

int clear(PyObject* self) noexcept {
  concurrent_job& j = job_of(self);
  Py_CLEAR(j.value);
  Py_CLEAR(j.exception);
  Py_CLEAR(j.callbacks);
  return 0;
}

void destroy(PyObject* self) noexcept {
  PyObject_GC_UnTrack(self);
  concurrent_job& j = job_of(self);
  j.discard_payload();  // of a job that was not accepted, or whose result nobody has asked for
  j.let_go_of_kind();
  clear(self);
  std::destroy_at(&j);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

int set_attribute(PyObject* self, PyObject* name, PyObject* value) noexcept {
  track(self);
  return PyObject_GenericSetAttr(self, name, value);
}

template <class Function>
PyCFunction as_method(Function* function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

const char doc[] = "The job inside a future of an executor.";

PyMethodDef methods[] = {
    {"result", as_method(&wait_for<&give_value>), METH_FASTCALL | METH_KEYWORDS,
     "result($self, timeout=None)\n--\n\n"
     "Return what the job returned, or raise what it raised; wait for it at most `timeout` seconds.\n\n"
     "Raises TimeoutError, CancelledError, or RuntimeError instead of a deadlock: on a worker, when every "
     "other "
     "worker\nof the pool waits like this for another of its jobs."},
    {"exception", as_method(&wait_for<&give_exception>), METH_FASTCALL | METH_KEYWORDS,
     "exception($self, timeout=None)\n--\n\n"
     "Return what the job raised, or None; wait for it at most `timeout` seconds. Raises as result() does."},
    {"done", &done, METH_NOARGS, "done($self, /)\n--\n\nReturn whether the job has ended or was cancelled."},
    {"running", &running, METH_NOARGS, "running($self, /)\n--\n\nReturn whether the job runs."},
    {"cancelled", &cancelled, METH_NOARGS,
     "cancelled($self, /)\n--\n\nReturn whether the job was cancelled."},
    {"cancel", &cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nWithdraw the job; return whether it never runs."},
    {"add_done_callback", as_method(&add_done_callback), METH_FASTCALL | METH_KEYWORDS,
     "add_done_callback($self, fn)\n--\n\n"
     "Call `fn` with the future when it is done, once, in the order of the calls; at once if it is."},
    {"set_running_or_notify_cancel", &set_running_or_notify_cancel, METH_NOARGS,
     "set_running_or_notify_cancel($self, /)\n--\n\n"
     "For who runs a job by other means: False if it was cancelled."},
    {"_invoke_callbacks", &invoke_callbacks, METH_NOARGS, nullptr},
#if PY_VERSION_HEX >= 0x030F0000
    {"_get_snapshot", &get_snapshot, METH_NOARGS, nullptr},
#endif
    {nullptr, nullptr, 0, nullptr}};

// One descriptor for each field that a future of the base has: it stands before what is in the instance.
PyGetSetDef* field_descriptors(const py::dict& fields_of_fresh) {
  static std::vector<PyGetSetDef>* const all = std::make_unique<std::vector<PyGetSetDef>>().release();
  for (const auto& [name, value] : fields_of_fresh) {
    PyObject* interned = Py_NewRef(name.ptr());
    PyUnicode_InternInPlace(&interned);
    all->push_back({PyUnicode_AsUTF8(interned), &get_field, &put_field, nullptr, interned});
  }
  all->push_back({nullptr, nullptr, nullptr, nullptr, nullptr});
  return all->data();
}

PyObject* make_carrier_type(const py::dict& fields_of_fresh) {
  std::array<PyType_Slot, 8> slots{{{Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                                    {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                                    {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                                    {Py_tp_setattro, reinterpret_cast<void*>(&set_attribute)},
                                    {Py_tp_methods, methods},
                                    {Py_tp_getset, field_descriptors(fields_of_fresh)},
                                    {Py_tp_doc, const_cast<char*>(doc)},
                                    {0, nullptr}}};
  PyType_Spec spec{
      "offgil._core.JobCarrier", job_offset + sizeof(concurrent_job), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
      slots.data()};
  PyObject* const type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  return type;
}

}  // namespace

concurrent_job* create_concurrent_future() noexcept {
  PyObject* const self = future_type->tp_alloc(future_type, 0);
  if (self == nullptr) return nullptr;
  PyObject_GC_UnTrack(self);
  return ::new (static_cast<void*>(&job_of(self))) concurrent_job;
}

PyObject* future_of(concurrent_job& j) noexcept {
  return reinterpret_cast<PyObject*>(reinterpret_cast<char*>(&j) - job_offset);
}

bool take_outcome(concurrent_job& j) noexcept {
  // Making it may run Python code, and another thread come here; the job can be asked only once.
  while (is_made_elsewhere(j)) sleep_without_gil();
  const auto me = std::this_thread::get_id();
  if (j.maker == me) return false;
  if (j.maker != std::thread::id()) give_up_what_is_being_made(j);
  if (j.has_outcome) return true;
  j.maker = me;
  j.made_in = process_generation();
  const outcome made(j);
  j.value = Py_XNewRef(made.value());
  j.exception = Py_XNewRef(made.exception());
  j.has_outcome = true;
  j.maker = std::thread::id();
  if (j.exception != nullptr || (j.value != nullptr && PyObject_IS_GC(j.value) != 0)) track(future_of(j));
  j.discard_payload();
  if (j.destination != nullptr) return true;
  if (j.is_somebody_to_be_told()) publish(j);  // it was handed back meanwhile, by this thread
  j.let_go_of_kind();
  return true;
}

void publish(concurrent_job& j) noexcept {
  if (j.maker == std::this_thread::get_id()) return;  // comes here again when the outcome is made
  if (std::exchange(j.is_publication_begun, true)) return;
  PyObject* const self = future_of(j);
  PyObject* const told = j.is_observed && !j.is_published ? tell_base(j) : invoke_kept_callbacks(self);
  if (told == nullptr) log_failed_callback(self, take_raised());  // on a thread that waits for something else
  Py_XDECREF(told);
}

void bind_concurrent_future(py::module_& m) {
  const py::object future = py::module_::import("concurrent.futures").attr("Future");
  const auto kept = [](const py::object& object) { return py::object(object).release().ptr(); };
  base = base_class{
      .type = kept(future),
      .result = kept(future.attr("result")),
      .exception = kept(future.attr("exception")),
      .done = kept(future.attr("done")),
      .running = kept(future.attr("running")),
      .cancelled = kept(future.attr("cancelled")),
      .cancel = kept(future.attr("cancel")),
      .add_done_callback = kept(future.attr("add_done_callback")),
      .notify_cancel = kept(future.attr("set_running_or_notify_cancel")),
      .set_result = kept(future.attr("set_result")),
      .set_exception = kept(future.attr("set_exception")),
      .get_snapshot = py::hasattr(future, "_get_snapshot") ? kept(future.attr("_get_snapshot")) : nullptr};
  const auto states = py::module_::import("concurrent.futures._base");
  pending_state = kept(states.attr("PENDING"));
  running_state = kept(states.attr("RUNNING"));
  finished_state = kept(states.attr("FINISHED"));
  cancelled_state = kept(states.attr("CANCELLED_AND_NOTIFIED"));
  cancelled_by_user_state = kept(states.attr("CANCELLED"));
  state_field = PyUnicode_InternFromString("_state");
  callbacks_field = PyUnicode_InternFromString("_done_callbacks");

  const py::dict fields = future().attr("__dict__");
  const auto carrier = py::reinterpret_steal<py::object>(make_carrier_type(fields));
  py::dict body;
  body["__slots__"] = py::make_tuple();
  body["__module__"] = "offgil";
  body["__doc__"] = "The future of a job: a concurrent.futures.Future whose cancel() withdraws the job.";
  const auto type =
      py::handle(reinterpret_cast<PyObject*>(&PyType_Type))("Future", py::make_tuple(carrier, future), body);
  future_type = reinterpret_cast<PyTypeObject*>(kept(type));
  m.attr("Future") = type;
}

}  // namespace offgil::python
