// pool.cpp - the Python type under offgil.Pool.
#include "pool.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "callable_name.hpp"
#include "errors.hpp"
#include "native_function.hpp"
#include "pool_core.hpp"
#include "running_loop.hpp"
#include "stats_dict.hpp"

namespace offgil::python {
namespace {

// Ends when the pool is idle; never runs.
class idle_kind final : public bridge_kind {
 public:
  bool run(job&) noexcept override { return true; }
  py::object callable_of(const bridge_job&) const noexcept override { return {}; }
  PyObject* finish(bridge_job&) noexcept override { return Py_NewRef(Py_None); }
  void discard(bridge_job&) noexcept override {}
  void let_go() noexcept override {}
};

idle_kind& the_idle_kind() noexcept {
  static idle_kind kind;
  return kind;
}

class pool {
 public:
  explicit pool(std::shared_ptr<pool_core> core) noexcept : core_(std::move(core)) {}
  ~pool() { core_->close(); }
  pool(const pool&) = delete;
  pool& operator=(const pool&) = delete;

  pool_core& core() const noexcept { return *core_; }

  // Null with an exception set.
  PyObject* submit(PyObject* function, PyObject* const* args, std::size_t nargs, PyObject* kwnames,
                   worker_pool::when_full policy);

  py::object when_idle();

 private:
  std::shared_ptr<pool_core> core_;
};

[[noreturn]] void raise_closed() {
  raise(exceptions::get().pool_closed, is_exiting()
                                           ? "the pool was closed because the interpreter is shutting down"
                                           : "the pool has been closed; make a new one");
}

[[noreturn]] void raise_not_accepted(worker_pool::admission answer, const worker_pool& engine) {
  if (answer == worker_pool::admission::closed) raise_closed();
  raise(exceptions::get().pool_full, "the pool is full: max_pending=" + std::to_string(engine.max_pending()) +
                                         " jobs wait already; await run() to wait for room, or submit later");
}

std::vector<std::string> running_names(const worker_pool& engine) {
  // Without the GIL no job is freed; asking for a name may give it away.
  std::vector<py::object> callables;
  for (const job* each : engine.running()) {
    const auto& j = static_cast<const bridge_job&>(*each);
    callables.push_back(j.its_kind().callable_of(j));
  }
  std::vector<std::string> names;
  for (const auto& each : callables) names.push_back(callable_name(each));
  return names;
}

bool prepare(pool_core& core, bridge_job& j, PyObject* function, PyObject* const* args, std::size_t nargs,
             PyObject* kwnames) {
  if (native_function::check(function))
    return native_function::of(function).kind.prepare(j, args, nargs, kwnames);
  if (PyCallable_Check(function) != 0)
    return core.kinds().of(function).prepare(j, function, args, nargs, kwnames);
  throw py::type_error(
      std::string("the first argument, fn, must be a native function or another callable, not ") +
      Py_TYPE(function)->tp_name);
}

PyObject* pool::submit(PyObject* function, PyObject* const* args, std::size_t nargs, PyObject* kwnames,
                       worker_pool::when_full policy) {
  pool_core& core = *core_;
  core.check_usable();
  if (core.engine().is_closed()) {
    core.engine().count_rejection();
    raise_closed();
  }
  loop_channel::place place(core.channel());
  future_style& style = core.futures();
  bridge_job* const j = style.create(place.channel());
  if (j == nullptr) throw py::error_already_set();
  PyObject* const future = Py_NewRef(style.future_of(*j));  // the caller's; the job has its own
  try {
    if (!prepare(core, *j, function, args, nargs, kwnames)) throw py::error_already_set();
    const auto answer = place.channel().submit(*j, policy);
    if (j->destination == nullptr) raise_not_accepted(answer, core.engine());
    place.is_taken();
  } catch (...) {
    Py_DECREF(future);
    style.release(*j);
    throw;
  }
  return future;
}

py::object done_future() {
  py::object made = running_loop().attr("create_future")();
  made.attr("set_result")(py::none());
  return made;
}

py::object pool::when_idle() {
  core_->check_usable();
  if (core_->engine().is_on_own_thread())
    raise(PyExc_RuntimeError, "a job cannot wait for its own pool to become idle: it would wait for itself");
  if (core_->is_joined() && !core_->has_channel()) return done_future();
  loop_channel::place place(core_->channel());
  bridge_job* const j = core_->futures().create(place.channel());
  if (j == nullptr) throw py::error_already_set();
  const auto future = py::reinterpret_borrow<py::object>(core_->futures().future_of(*j));
  j->kind = &the_idle_kind();
  j->succeeded = true;
  place.channel().hand_back_when_idle(*j);
  place.is_taken();
  return future;
}

// ---- submit: the hot path, as a C method rather than a pybind11 one ----

// pybind11 keeps the pointer to a class's C++ object at the front of the instance where, as here, there is
// only one; casting would look the type up on every call.
pool& pool_of(PyObject* self) {
  auto* const instance = reinterpret_cast<py::detail::instance*>(self);
  void* const held = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
  return held != nullptr ? *static_cast<pool*>(held) : py::cast<pool&>(py::handle(self));
}

template <worker_pool::when_full policy>
PyObject* submit(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    if (nargs < 1) throw py::type_error("submit() missing 1 required positional argument: 'fn'");
    try {
      return pool_of(self).submit(args[0], args + 1, static_cast<std::size_t>(nargs - 1), kwnames, policy);
    } catch (const std::system_error& e) {
      set_os_error(e);
      return nullptr;
    }
  });
}

template <worker_pool::when_full policy>
PyMethodDef submit_definition(const char* name, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&submit<policy>)),
          METH_FASTCALL | METH_KEYWORDS, doc};
}

void add_method(const py::object& type, PyMethodDef& definition) {
  PyObject* const method = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &definition);
  if (method == nullptr) throw py::error_already_set();
  type.attr(definition.ml_name) = py::reinterpret_steal<py::object>(method);
}

// ---- construction ----

// Integers as Python means them: no bool, no float. `what` is the argument's name.
std::int64_t integer_argument(const py::object& given, const char* what) {
  if (PyBool_Check(given.ptr()) || PyIndex_Check(given.ptr()) == 0)
    throw py::type_error(std::string(what) + " must be an int, not " + Py_TYPE(given.ptr())->tp_name);
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(given.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0) throw py::value_error(std::string(what) + " is out of range");
  return value;
}

unsigned workers_argument(const py::object& given) {
  if (given.is_none()) return usable_cpu_count();
  constexpr std::int64_t most = 4096;
  const std::int64_t workers = integer_argument(given, "workers");
  if (workers < 1 || workers > most)
    throw py::value_error("workers must be between 1 and " + std::to_string(most) + ", not " +
                          std::to_string(workers));
  return static_cast<unsigned>(workers);
}

std::size_t max_pending_argument(const py::object& given) {
  if (given.is_none()) return 0;
  const std::int64_t most = integer_argument(given, "max_pending");
  if (most < 1)
    throw py::value_error("max_pending must be at least 1, or None for any number, not " +
                          std::to_string(most));
  return static_cast<std::size_t>(most);
}

int nice_argument(const py::object& given) {
  const std::int64_t nice = integer_argument(given, "nice");
  constexpr std::int64_t most = 39;
  if (nice < -most || nice > most)
    throw py::value_error("nice must be between -39 and 39, not " + std::to_string(nice));
  return static_cast<int>(nice);
}

std::chrono::nanoseconds spin_argument(const py::object& given) {
  if (!PyFloat_Check(given.ptr()) && !PyLong_Check(given.ptr()))
    throw py::type_error(std::string("spin must be a number of seconds, not ") +
                         Py_TYPE(given.ptr())->tp_name);
  const double seconds = given.cast<double>();
  if (!(seconds >= 0 && seconds <= 1)) throw py::value_error("spin must be between 0 and 1 second");
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

// Raises UnicodeEncodeError, a ValueError, for a text that is none.
std::string text_argument(const py::object& given, const char* what) {
  if (!py::isinstance<py::str>(given))
    throw py::type_error(std::string(what) + " must be a str, not " + Py_TYPE(given.ptr())->tp_name);
  Py_ssize_t size = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(given.ptr(), &size);
  if (text == nullptr) throw py::error_already_set();
  return {text, static_cast<std::size_t>(size)};
}

delivery delivery_argument(const py::object& given) {
  const std::string name = text_argument(given, "delivery");
  if (name == "auto") return delivery::automatic;
  if (name == "eventfd") return delivery::eventfd;
  if (name == "callback") return delivery::callback;
  throw py::value_error("delivery must be 'auto', 'eventfd' or 'callback', not '" + name + "'");
}

future_style& style_argument(const std::string& name) {
  if (name == "inline") return inline_futures();
  if (name == "plain") return plain_futures();
  throw py::value_error("no such kind of future: " + name);
}

std::unique_ptr<pool> make_pool(const py::object& workers, const py::object& name,
                                const py::object& max_pending, const py::object& nice, const py::object& spin,
                                const py::object& by, const std::string& future_kind) {
  worker_pool::options options{.workers = workers_argument(workers),
                               .name = text_argument(name, "name"),
                               .max_pending = max_pending_argument(max_pending),
                               .nice = nice_argument(nice),
                               .spin = spin_argument(spin)};
  const delivery chosen = delivery_argument(by);
  future_style& style = style_argument(future_kind);
  const auto refuse_at_exit = [] {
    if (is_exiting())
      raise(exceptions::get().pool_closed, "no pool can be made while the interpreter is shutting down");
  };
  refuse_at_exit();
  pool_core::purge_all();
  std::shared_ptr<pool_core> core;
  try {
    core = std::make_shared<pool_core>(std::move(options), chosen, style);
  } catch (const std::system_error& e) {
    raise(exceptions::get().pool_error, e.what());
  }
  refuse_at_exit();  // it may have begun while the threads started, with the GIL released
  core->move_in();
  return std::make_unique<pool>(std::move(core));
}

}  // namespace

void bind_pool(py::module_& m) {
  static PyMethodDef submit_method = submit_definition<worker_pool::when_full::refuse>(
      "submit",
      "submit($self, fn, /, *args, **kwargs)\n--\n\n"
      "Submit a job; return its future at once.\n\n"
      "The job is accepted when this returns, and starts even if the event loop is blocked from here on. A "
      "Python\ncallable runs in a copy of the caller's context. Cancelling the future, an asyncio.Future, "
      "while "
      "the job waits\nwithdraws the job; while it runs, nobody waits for its end.\n\n"
      "Raises TypeError or OverflowError for arguments that a native function does not take, PoolFull when\n"
      "max_pending jobs wait, PoolClosed after aclose(), PoolBroken in a forked child, and RuntimeError "
      "where no\n"
      "event loop runs.");
  static PyMethodDef submit_in_line_method = submit_definition<worker_pool::when_full::wait_in_line>(
      "_submit_in_line",
      "_submit_in_line($self, fn, /, *args, **kwargs)\n--\n\nSubmit a job that waits for room.");

  py::class_<pool> type(m, "Pool", "The engine behind offgil.Pool.");
  type.def(py::init(&make_pool), py::kw_only(), py::arg("workers"), py::arg("name"), py::arg("max_pending"),
           py::arg("nice"), py::arg("spin"), py::arg("delivery"), py::arg("future_kind"));
  add_method(type, submit_method);
  add_method(type, submit_in_line_method);
  // Holds the GIL: they are short, or release it themselves.
  type.def("_when_idle", &pool::when_idle,
           "A future of the running loop that is done when no job waits or runs.");
  type.def(
      "_close",
      [](pool& self) {
        self.core().check_usable();
        self.core().close();
      },
      "Refuse new jobs.");
  type.def(
      "_join",
      [](pool& self) {
        self.core().check_usable();
        self.core().join();
        self.core().close();
      },
      "After close(): wait for the threads of an idle pool to end.");
  type.def(
      "_cancel_waiting", [](pool& self) { return self.core().engine().cancel_waiting(); },
      "Cancel every job that has not started; return how many.");
  type.def(
      "_running_names", [](pool& self) { return running_names(self.core().engine()); },
      "Names of the jobs that run.");
  type.def(
      "_is_on_own_thread", [](pool& self) { return self.core().engine().is_on_own_thread(); },
      "Whether the calling thread is one of the workers.");
  type.def("_counters", [](pool& self) { return stats_dict(self.core()); }, "All counters, by name.");
  type.def_property_readonly(
      "workers", [](pool& self) { return self.core().engine().workers(); },
      "How many worker threads there are.");
  type.def_property_readonly(
      "pending", [](pool& self) { return self.core().engine().stats().pending; },
      "How many jobs wait for a worker.");
  type.def_property_readonly(
      "running", [](pool& self) { return self.core().engine().stats().running; }, "How many jobs run.");
}

}  // namespace offgil::python
