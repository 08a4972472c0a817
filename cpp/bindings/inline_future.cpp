// inline_future.cpp - a subclass of asyncio.Future that carries its job and wakes its awaiter inside the
// drain.
//
// The base keeps what a future is: state, result, exception, cancellation, callbacks, repr, debug traceback,
// "exception was never retrieved". Added are
//
// - the job, in the same allocation, behind the base's own fields;
// - the first done-callback and its context, kept aside when the base has none before it. The drain calls it
//   directly, in its context: no Handle, no call_soon, no further turn of the loop. Mostly it is the wake-up
//   of a task that awaits the future;
// - its iterator, which is the future itself: `await` makes no iterator object;
// - cancel(), which withdraws the job.
//
// The callbacks of one future run in the order in which they were added. The kept one is always the first and
// runs inside the drain, the others in the loop's next turn, as all of asyncio's do. Whenever it cannot run
// inside a drain (the state was changed by cancel() or set_result(), or a callback is added between the
// drain's two passes) or should not, because a loop in debug mode watches each callback, it goes through
// call_soon ahead of the others.
#include <pybind11/pybind11.h>

#include <array>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "c_method.hpp"
#include "errors.hpp"
#include "future_style.hpp"
#include "loop_channel.hpp"
#include "names.hpp"
#include "outcome.hpp"
#include "pool_core.hpp"

namespace offgil::python {
namespace {

struct inline_job : bridge_job {
  PyObject* callback = nullptr;  // the kept one, and its context
  PyObject* context = nullptr;
};

// Bits of bridge_job::future_flags.
enum flag : std::uint8_t {
  is_done = 1,        // as far as we have seen; calls of the base's unbound methods go unseen
  is_awaited = 2,     // asyncio's _asyncio_future_blocking
  base_has_one = 4,   // the base was given a callback while the future was pending
  ended_plainly = 8,  // the drain has set a result: nothing for the finalizer to report
  base_is_iterated = 16,
};

// The base type and what we use of it: its C slots, and its methods as unbound descriptors.
struct base_type {
  PyTypeObject* type;
  PyObject* add_done_callback;
  PyObject* remove_done_callback;
  PyObject* cancel;
  PyObject* result;
  PyObject* set_result;
  PyObject* set_exception;
  PyObject* callbacks;  // two getset descriptors: _callbacks, _asyncio_future_blocking
  PyObject* blocking;
};

base_type base{};
PyTypeObject* the_type = nullptr;
PyTypeObject* task_type = nullptr;
PyObject* no_arguments = nullptr;  // an empty tuple
Py_ssize_t job_offset = 0;
Py_ssize_t loop_offset = 0;    // where the base keeps its loop; 0: not known
Py_ssize_t result_offset = 0;  // and its result

// A done future that stands for any successful one when a C task is woken: the task only asks it for
// result(), which it can do without a method call because the type is exactly asyncio.Future, and throws the
// answer away; the coroutine gets its value from our iterator.
PyObject* shared_done_future = nullptr;
// From 3.14 on a task notes at a future that it awaits it, and takes that back from what it is woken by.
// asyncio.future_discard_from_awaited_by(), or null.
PyObject* discard_awaiter = nullptr;

inline_job& job_of(PyObject* future) noexcept {
  return *std::launder(reinterpret_cast<inline_job*>(reinterpret_cast<char*>(future) + job_offset));
}

PyObject* future_of_job(bridge_job& j) noexcept {
  return reinterpret_cast<PyObject*>(reinterpret_cast<char*>(static_cast<inline_job*>(&j)) - job_offset);
}

bool has(const bridge_job& j, flag which) noexcept { return (j.future_flags & which) != 0; }
void set(bridge_job& j, flag which) noexcept { j.future_flags |= which; }
void set(bridge_job& j, flag which, bool on) noexcept {
  j.future_flags = static_cast<std::uint8_t>(on ? j.future_flags | which : j.future_flags & ~which);
}

loop_channel* channel_of(const bridge_job& j) noexcept {
  return j.destination == nullptr ? nullptr : static_cast<mailbox*>(j.destination)->owner;
}

// Untracked until it can be part of a cycle that the collector may break: a million waiting futures are
// nothing for it to look at. While the job is in flight the job holds the future, so that what this refers to
// does not matter; a future that outlives its job is tracked for its loop's sake.
void track(PyObject* self) noexcept {
  if (PyObject_GC_IsTracked(self) == 0) PyObject_GC_Track(self);
}

// Calls one of the base's methods with `self` in front of a vectorcall's arguments.
PyObject* call_base(PyObject* method, PyObject* self, PyObject* const* args = nullptr, Py_ssize_t nargs = 0,
                    PyObject* kwnames = nullptr) noexcept {
  constexpr std::size_t most = 8;
  std::array<PyObject*, most> all{self};
  const auto given = static_cast<std::size_t>(nargs + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames)));
  if (given >= most) {
    PyErr_SetString(PyExc_TypeError, "too many arguments");
    return nullptr;
  }
  std::copy_n(args, given, all.begin() + 1);
  return PyObject_Vectorcall(method, all.data(), static_cast<std::size_t>(nargs) + 1, kwnames);
}

// ---- the base ----

// asyncio.Future.__init__(loop=...).
bool initialise_base(PyObject* self, PyObject* loop) noexcept {
  PyObject* const keyword = PyDict_New();
  if (keyword == nullptr) return false;
  const bool done = PyDict_SetItem(keyword, names::get().loop, loop) == 0 &&
                    base.type->tp_init(self, no_arguments, keyword) == 0;
  Py_DECREF(keyword);
  return done;
}

PyObject* field_of_base(PyObject* self, Py_ssize_t at) noexcept {
  PyObject* field = nullptr;
  std::memcpy(&field, reinterpret_cast<const char*>(self) + at, sizeof field);
  return field;
}

// Most of a submit would be __init__, and most of that a call of the loop's get_debug(). But all that it
// leaves behind, outside of debug mode, is a reference to the loop among zeros. Where a future in our hands
// shows that this is so, and where the reference lies, it is put there directly.
void find_loop_in_base(PyObject* fresh, PyObject* its_loop) noexcept {
  Py_ssize_t found = 0;
  for (Py_ssize_t at = sizeof(PyObject); at < base.type->tp_basicsize; at += Py_ssize_t{sizeof(void*)}) {
    PyObject* const field = field_of_base(fresh, at);
    if (field == nullptr) continue;
    if (field != its_loop || found != 0) return;
    found = at;
  }
  loop_offset = found;
}

// The same for a result, which a future that has ended plainly keeps until it is collected.
void find_result_in_base(PyObject* done, PyObject* its_result) noexcept {
  for (Py_ssize_t at = sizeof(PyObject); at < base.type->tp_basicsize; at += Py_ssize_t{sizeof(void*)})
    if (field_of_base(done, at) == its_result) result_offset = at;
}

PyObject* result_of(PyObject* self) noexcept {
  if (has(job_of(self), ended_plainly) && result_offset != 0)
    if (PyObject* const kept = field_of_base(self, result_offset)) return Py_NewRef(kept);
  return call_base(base.result, self);
}

bool make_base(PyObject* self, const loop_channel& channel) noexcept {
  PyObject* const loop = channel.held_loop();
  if (loop_offset == 0 || channel.loop_debugs()) return initialise_base(self, loop);
  Py_INCREF(loop);
  std::memcpy(reinterpret_cast<char*>(self) + loop_offset, &loop, sizeof loop);
  return true;
}

// ---- the kept callback ----

void drop_kept(inline_job& j) noexcept {
  Py_CLEAR(j.callback);
  Py_CLEAR(j.context);
}

// Sends the kept callback through the loop. To be called before the base schedules its own.
bool schedule_kept(PyObject* self) noexcept {
  inline_job& j = job_of(self);
  if (j.callback == nullptr) return true;
  PyObject* const callback = std::exchange(j.callback, nullptr);
  PyObject* const context = std::exchange(j.context, nullptr);
  loop_channel* const channel = channel_of(j);
  bool done = false;
  if (channel != nullptr) {
    ++channel->core().counters.forwarded_callbacks;
    done = channel->call_soon(callback, self, context);
  } else {
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
  }
  Py_DECREF(callback);
  Py_DECREF(context);
  return done;
}

// Task passes a name of its own making, always the same and not the interned one.
bool is_context(PyObject* name) noexcept {
  static PyObject* seen = Py_NewRef(names::get().context);
  if (name == seen || name == names::get().context) return true;
  if (PyUnicode_CompareWithASCIIString(name, "context") != 0) return false;
  Py_DECREF(std::exchange(seen, Py_NewRef(name)));
  return true;
}

// Whether a call's keywords are none, or `context=` with a real context.
PyObject* context_argument(PyObject* const* values, PyObject* kwnames, bool& acceptable) noexcept {
  acceptable = true;
  if (kwnames == nullptr || PyTuple_GET_SIZE(kwnames) == 0) return nullptr;
  acceptable = PyTuple_GET_SIZE(kwnames) == 1 && PyContext_CheckExact(values[0]) != 0 &&
               is_context(PyTuple_GET_ITEM(kwnames, 0));
  return acceptable ? values[0] : nullptr;
}

PyObject* add_done_callback(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                            PyObject* kwnames) noexcept {
  inline_job& j = job_of(self);
  bool acceptable = false;
  PyObject* const context = context_argument(args + nargs, kwnames, acceptable);
  if (acceptable && nargs == 1 && j.callback == nullptr && !has(j, is_done) && !has(j, base_has_one)) {
    PyObject* const in = context != nullptr ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (in == nullptr) return nullptr;
    j.callback = Py_NewRef(args[0]);
    j.context = in;
    Py_RETURN_NONE;
  }
  track(self);
  // Between the drain's passes the base calls back at once, through the loop: the kept one must go first.
  if (has(j, is_done) && !schedule_kept(self)) return nullptr;
  if (!has(j, is_done)) set(j, base_has_one);
  if (loop_channel* const channel = channel_of(j)) ++channel->core().counters.forwarded_callbacks;
  return call_base(base.add_done_callback, self, args, nargs, kwnames);
}

PyObject* remove_done_callback(PyObject* self, PyObject* callback) noexcept {
  inline_job& j = job_of(self);
  long removed = 0;
  if (j.callback != nullptr) {
    const auto compared = py::reinterpret_borrow<py::object>(j.callback);  // __eq__ may do anything
    const int equal = PyObject_RichCompareBool(compared.ptr(), callback, Py_EQ);
    if (equal < 0) return nullptr;
    if (equal != 0 && j.callback == compared.ptr()) {
      drop_kept(j);
      removed = 1;
    }
  }
  PyObject* const by_base = call_base(base.remove_done_callback, self, &callback, 1);
  if (by_base == nullptr || removed == 0) return by_base;
  removed += PyLong_AsLong(by_base);
  Py_DECREF(by_base);
  return PyLong_FromLong(removed);
}

PyObject* get_of_base(PyObject* descriptor, PyObject* self) noexcept {
  return Py_TYPE(descriptor)->tp_descr_get(descriptor, self, reinterpret_cast<PyObject*>(Py_TYPE(self)));
}

// What repr() and asyncio's debugging look at.
PyObject* get_callbacks(PyObject* self, void*) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    const inline_job& j = job_of(self);
    auto of_base = py::reinterpret_steal<py::object>(get_of_base(base.callbacks, self));
    if (!of_base) throw py::error_already_set();
    if (j.callback == nullptr) return of_base.release().ptr();
    py::list all;
    all.append(py::make_tuple(py::handle(j.callback), py::handle(j.context)));
    if (!of_base.is_none())
      for (const auto& each : of_base) all.append(each);
    return all.release().ptr();
  });
}

// ---- state changes by user code ----

// The user ends the future, by one of the base's methods: the job is not wanted any more. Where the loop is
// closed, the kept callback cannot be scheduled and the error is raised, but the future has ended, as the
// base's.
PyObject* end_by_user(PyObject* method, PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                      PyObject* kwnames = nullptr) noexcept {
  inline_job& j = job_of(self);
  py::object not_scheduled;
  if (!has(j, is_done)) {
    set(j, is_done);
    track(self);
    if (loop_channel* const channel = channel_of(j)) channel->withdraw(j);
    if (!schedule_kept(self)) not_scheduled = take_raised();
  }
  PyObject* const done = call_base(method, self, args, nargs, kwnames);
  if (!not_scheduled) return done;
  Py_XDECREF(done);
  PyErr_Clear();
  restore_raised(std::move(not_scheduled));
  return nullptr;
}

// What the base refuses must not end the job.
PyObject* cancel(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  if (!gives_at_most("msg", nargs, kwnames)) return call_base(base.cancel, self, args, nargs, kwnames);
  return end_by_user(base.cancel, self, args, nargs, kwnames);
}

PyObject* set_result(PyObject* self, PyObject* value) noexcept {
  return end_by_user(base.set_result, self, &value, 1);
}

// Pythons differ about this one: a future that nobody knows tells. Throws what it raises.
void check_that_base_takes(const py::object& stop_iteration, PyObject* self) {
  using namespace py::literals;
  const py::object future =
      py::handle(reinterpret_cast<PyObject*>(base.type))("loop"_a = py::handle(self).attr("get_loop")());
  future.attr("set_exception")(stop_iteration);
  future.attr("exception")();  // or it would complain that nobody asked
}

// What the base refuses must not end the job.
PyObject* set_exception(PyObject* self, PyObject* exception) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    const auto given = py::reinterpret_borrow<py::object>(exception);
    const py::object instance = PyExceptionClass_Check(exception) != 0 ? given() : given;
    PyObject* argument = instance.ptr();
    if (PyExceptionInstance_Check(argument) == 0) return call_base(base.set_exception, self, &argument, 1);
    if (py::isinstance(instance, PyExc_StopIteration)) check_that_base_takes(instance, self);
    return end_by_user(base.set_exception, self, &argument, 1);
  });
}

// ---- await ----

PyObject* iterate(PyObject* self) noexcept { return Py_NewRef(self); }

PySendResult send(PyObject* self, PyObject*, PyObject** out) noexcept {
  inline_job& j = job_of(self);
  if (has(j, is_done)) {
    *out = result_of(self);
    return *out != nullptr ? PYGEN_RETURN : PYGEN_ERROR;
  }
  if (has(j, is_awaited)) {
    // Resumed while pending. Unless an unbound method of the base has ended it, the awaiting side is at
    // fault.
    *out = call_base(base.result, self);
    if (*out != nullptr) return PYGEN_RETURN;
    if (PyErr_ExceptionMatches(exceptions::get().invalid_state) != 0)
      PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    return PYGEN_ERROR;
  }
  set(j, is_awaited);
  *out = Py_NewRef(self);
  return PYGEN_NEXT;
}

PyObject* next(PyObject* self) noexcept {
  PyObject* out = nullptr;
  const PySendResult outcome = send(self, nullptr, &out);
  if (outcome != PYGEN_RETURN) return out;
  // StopIteration(out), also where `out` is a tuple or an exception.
  PyObject* const stop = PyObject_CallOneArg(PyExc_StopIteration, out);
  Py_DECREF(out);
  if (stop != nullptr) PyErr_SetObject(PyExc_StopIteration, stop);
  Py_XDECREF(stop);
  return nullptr;
}

// Who asks for an iterator by name, rather than by `await`, may want all of one, with throw() and close(). It
// is the base's, and marks the base as awaited.
PyObject* iterate_by_base(PyObject* self, PyObject*) noexcept {
  set(job_of(self), base_is_iterated);
  return base.type->tp_iter(self);
}

// The base is asked as well, which may have been iterated by its unbound method.
PyObject* get_blocking(PyObject* self, void*) noexcept {
  inline_job& j = job_of(self);
  if (has(j, is_awaited)) Py_RETURN_TRUE;
  PyObject* const by_base = get_of_base(base.blocking, self);
  if (by_base == Py_True) set(j, base_is_iterated);
  return by_base;
}

int set_blocking(PyObject* self, PyObject* value, void*) noexcept {
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
    return -1;
  }
  const int truth = PyObject_IsTrue(value);
  if (truth < 0) return -1;
  inline_job& j = job_of(self);
  set(j, is_awaited, truth != 0);
  return has(j, base_is_iterated) ? Py_TYPE(base.blocking)->tp_descr_set(base.blocking, self, value) : 0;
}

PyMethodDef add_done_callback_definition = {
    "add_done_callback", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&add_done_callback)),
    METH_FASTCALL | METH_KEYWORDS,
    "add_done_callback($self, fn, /, *, context=None)\n--\n\n"
    "Call fn(self) in `context` when the future is done: the first one where the result is delivered, the\n"
    "others, and all of a future that is done, in the event loop's next turn."};

// A task asks for three attributes on every suspension; they are found without a search through the types.
PyObject* get_attribute(PyObject* self, PyObject* name) noexcept {
  const names& all = names::get();
  if (name == all.asyncio_future_blocking) return get_blocking(self, nullptr);
  if (name == all.add_done_callback) return PyCFunction_New(&add_done_callback_definition, self);
  if (name == all.get_loop)
    if (loop_channel* const channel = channel_of(job_of(self)))
      return guarded<PyObject*>(nullptr, [channel] { return Py_NewRef(channel->loop_getter()); });
  return PyObject_GenericGetAttr(self, name);
}

int set_attribute(PyObject* self, PyObject* name, PyObject* value) noexcept {
  if (name == names::get().asyncio_future_blocking) return set_blocking(self, value, nullptr);
  track(self);
  return PyObject_GenericSetAttr(self, name, value);
}

// ---- life ----

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
  const inline_job& j = job_of(self);
  Py_VISIT(j.callback);
  Py_VISIT(j.context);
  // A static base does not know that our type is an object of its own.
  if ((base.type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) Py_VISIT(Py_TYPE(self));
  return base.type->tp_traverse(self, visit, arg);
}

int clear(PyObject* self) noexcept {
  drop_kept(job_of(self));
  return base.type->tp_clear(self);
}

void destroy(PyObject* self) noexcept {
  inline_job& j = job_of(self);
  // The base leaves a subclass's finalizer to the subclass: it reports an exception that nobody has
  // retrieved.
  if (!has(j, ended_plainly) && PyObject_CallFinalizerFromDealloc(self) < 0) return;
  PyObject_GC_UnTrack(self);  // what is dropped below may run the collector, who must not find us
  drop_kept(j);
  j.discard_payload();  // of a future whose job was not accepted
  j.let_go_of_kind();
  std::destroy_at(&j);
  PyTypeObject* const type = Py_TYPE(self);
  base.type->tp_dealloc(self);
  // A heap type's deallocator gives back the object's reference to its type, a static type's does not.
  if ((base.type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) Py_DECREF(type);
}

PyMethodDef methods[] = {
    add_done_callback_definition,
    {"remove_done_callback", &remove_done_callback, METH_O,
     "remove_done_callback($self, fn, /)\n--\n\n"
     "Remove every callback that equals fn; return how many."},
    {"cancel", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&cancel)), METH_FASTCALL | METH_KEYWORDS,
     "cancel($self, /, msg=None)\n--\n\n"
     "Cancel the future, and withdraw its job if that still waits. False if it is done."},
    {"set_result", &set_result, METH_O,
     "set_result($self, result, /)\n--\n\n"
     "End the future with a result of your own; its job is withdrawn if it waits."},
    {"set_exception", &set_exception, METH_O,
     "set_exception($self, exception, /)\n--\n\n"
     "End the future with an exception of your own; its job is withdrawn if it waits."},
    {"__await__", &iterate_by_base, METH_NOARGS | METH_COEXIST, nullptr},
    {"__iter__", &iterate_by_base, METH_NOARGS | METH_COEXIST, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {{"_asyncio_future_blocking", &get_blocking, &set_blocking, nullptr, nullptr},
                            {"_callbacks", &get_callbacks, nullptr, nullptr, nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyTypeObject* make_type() {
  const char* const doc = "The future of a job: an asyncio.Future whose cancel() withdraws the job.";
  std::array<PyType_Slot, 14> slots{{{Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                                     {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                                     {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                                     {Py_tp_methods, methods},
                                     {Py_tp_getset, properties},
                                     {Py_tp_getattro, reinterpret_cast<void*>(&get_attribute)},
                                     {Py_tp_setattro, reinterpret_cast<void*>(&set_attribute)},
                                     {Py_am_await, reinterpret_cast<void*>(&iterate)},
                                     {Py_am_send, reinterpret_cast<void*>(&send)},
                                     {Py_tp_iter, reinterpret_cast<void*>(&iterate)},
                                     {Py_tp_iternext, reinterpret_cast<void*>(&next)},
                                     {Py_tp_doc, const_cast<char*>(doc)},
                                     {0, nullptr}}};
  PyType_Spec spec{
      "offgil._core.Future", static_cast<int>(job_offset + Py_ssize_t{sizeof(inline_job)}), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
      slots.data()};
  const auto bases = py::make_tuple(py::handle(reinterpret_cast<PyObject*>(base.type)));
  PyObject* const type = PyType_FromSpecWithBases(&spec, bases.ptr());
  if (type == nullptr) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(type);
}

// Futures refer to their loops. One that outlives every loop gets this, which only looks like one.
py::object make_loop_stand_in() {
  return py::module_::import("types").attr("SimpleNamespace")(py::arg("get_debug") =
                                                                  py::cpp_function([] { return false; }));
}

// Whether a task that awaits a future of ours can be woken by the shared one.
bool release_awaiter(PyObject* self, PyObject* task) noexcept {
  if (discard_awaiter == nullptr) return true;
  const std::array<PyObject*, 2> arguments{self, task};
  PyObject* const done = PyObject_Vectorcall(discard_awaiter, arguments.data(), arguments.size(), nullptr);
  if (done == nullptr) PyErr_Clear();
  Py_XDECREF(done);
  return done != nullptr;
}

// Whether a callback is the wake-up of a C task: a built-in method of a task that is called so.
bool is_task_wakeup(PyObject* callback) noexcept {
  static PyMethodDef* known = nullptr;
  if (Py_TYPE(callback) != &PyCFunction_Type) return false;
  PyMethodDef* const method = reinterpret_cast<PyCFunctionObject*>(callback)->m_ml;
  if (method == known) return true;
  PyObject* const self = PyCFunction_GET_SELF(callback);
  if (known != nullptr || self == nullptr || PyObject_TypeCheck(self, task_type) == 0) return false;
  if (std::string(method->ml_name).find("wakeup") == std::string::npos) return false;
  known = method;
  return true;
}

// Calls it as Handle._run() does.
bool call_in_context(PyObject* callback, PyObject* context, PyObject* argument) noexcept {
  if (PyContext_Enter(context) != 0) return false;
  PyObject* const result = PyObject_CallOneArg(callback, argument);
  if (result != nullptr) {
    Py_DECREF(result);
    return PyContext_Exit(context) == 0;
  }
  py::object raised = take_raised();
  if (PyContext_Exit(context) != 0) PyErr_Clear();
  restore_raised(std::move(raised));
  return false;
}

// ---- the style ----

class inline_style final : public future_style {
 public:
  bridge_job* create(loop_channel& channel) noexcept override {
    return guarded<bridge_job*>(nullptr, [&] {
      auto self = py::reinterpret_steal<py::object>(
          reinterpret_cast<PyObject*>(PyObject_GC_New(PyObject, the_type)));  // untracked, and not cleared
      if (!self) throw py::error_already_set();
      std::memset(self.ptr() + 1, 0, static_cast<std::size_t>(the_type->tp_basicsize) - sizeof(PyObject));
      auto* const j = ::new (static_cast<void*>(&job_of(self.ptr()))) inline_job;
      if (!make_base(self.ptr(), channel)) throw py::error_already_set();
      static_cast<void>(self.release());  // until release()
      return j;
    });
  }

  PyObject* future_of(bridge_job& j) const noexcept override { return future_of_job(j); }

  bool resolve(bridge_job& base_job) noexcept override {
    auto& j = static_cast<inline_job&>(base_job);
    if (has(j, is_done)) return true;
    set(j, is_done);
    PyObject* const self = future_of_job(j);
    py::object raised;
    if (channel_of(j)->loop_debugs() && !schedule_kept(self)) raised = take_raised();
    const auto of_job = outcome::for_loop(j);
    PyObject* done = nullptr;
    if (of_job.is_cancelled()) {
      done = call_base(base.cancel, self);
    } else if (PyObject* const value = of_job.value()) {
      if (PyObject_IS_GC(value) != 0) track(self);  // it may refer to its own future
      done = call_base(base.set_result, self, &value, 1);
      if (done != nullptr) set(j, ended_plainly);
    } else {
      track(self);
      PyObject* const exception = of_job.exception();
      done = call_base(base.set_exception, self, &exception, 1);
    }
    Py_XDECREF(done);
    if (done == nullptr && !clear_if_done_already() && !raised) raised = take_raised();
    PyErr_Clear();
    if (!raised) return true;
    restore_raised(std::move(raised));
    return false;
  }

  bool run_callbacks(bridge_job& base_job, loop_channel& channel) noexcept override {
    auto& j = static_cast<inline_job&>(base_job);
    if (j.callback == nullptr) return true;
    PyObject* const callback = std::exchange(j.callback, nullptr);
    PyObject* const context = std::exchange(j.context, nullptr);
    PyObject* const self = future_of_job(j);
    const bool stand_in = has(j, ended_plainly) && is_task_wakeup(callback) &&
                          release_awaiter(self, PyCFunction_GET_SELF(callback));
    ++channel.core().counters.inline_wakeups;
    const bool goes_on = call_in_context(callback, context, stand_in ? shared_done_future : self) ||
                         channel.report_callback_error(callback, context, self);
    Py_DECREF(callback);
    Py_DECREF(context);
    return goes_on;
  }

  void release(bridge_job& j) noexcept override {
    PyObject* const self = future_of_job(j);
    if (Py_REFCNT(self) > 1) track(self);
    Py_DECREF(self);
  }
};

}  // namespace

future_style& inline_futures() noexcept {
  static inline_style style;
  return style;
}

void prepare_inline_futures() {
  // What asyncio.Future is unless somebody has replaced it by the one written in Python, as nest_asyncio
  // does.
  const auto asyncio = py::module_::import("_asyncio");
  const py::object future = asyncio.attr("Future");
  const auto kept = [&future](const char* name) {
    return future.attr(name).cast<py::object>().release().ptr();
  };
  base = base_type{.type = reinterpret_cast<PyTypeObject*>(py::object(future).release().ptr()),
                   .add_done_callback = kept("add_done_callback"),
                   .remove_done_callback = kept("remove_done_callback"),
                   .cancel = kept("cancel"),
                   .result = kept("result"),
                   .set_result = kept("set_result"),
                   .set_exception = kept("set_exception"),
                   .callbacks = kept("_callbacks"),
                   .blocking = kept("_asyncio_future_blocking")};
  task_type = reinterpret_cast<PyTypeObject*>(py::object(asyncio.attr("Task")).release().ptr());
  no_arguments = PyTuple_New(0);
  constexpr Py_ssize_t alignment = alignof(inline_job);
  job_offset = (base.type->tp_basicsize + alignment - 1) / alignment * alignment;
  the_type = make_type();
  const py::object loop = make_loop_stand_in();
  const py::object fresh = future(py::arg("loop") = loop);
  find_loop_in_base(fresh.ptr(), loop.ptr());
  const auto result = py::dict();  // a new object
  shared_done_future = future(py::arg("loop") = loop).release().ptr();
  py::handle(shared_done_future).attr("set_result")(result);
  find_result_in_base(shared_done_future, result.ptr());
  if (py::hasattr(asyncio, "future_discard_from_awaited_by"))
    discard_awaiter = asyncio.attr("future_discard_from_awaited_by").cast<py::object>().release().ptr();
}

}  // namespace offgil::python
