// pool.cpp - the Python type under offgil.Pool.
#include "pool.hpp"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "c_method.hpp"
#include "callable_name.hpp"
#include "errors.hpp"
#include "object_type.hpp"
#include "pool_core.hpp"
#include "running_loop.hpp"
#include "stats_dict.hpp"
#include "submission.hpp"
#include "trace_file.hpp"

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
  ~pool() {
    core_->close();
    core_->end_by_itself();
  }
  pool(const pool&) = delete;
  pool& operator=(const pool&) = delete;

  pool_core& core() const noexcept { return *core_; }
  const std::shared_ptr<pool_core>& shared_core() const noexcept { return core_; }

  // What the collector must know of.
  py::handle initializer() const noexcept { return core_->initializer(); }
  void drop_initializer() { core_->drop_initializer(); }

  // Null with an exception set.
  PyObject* submit(const submitted_call& call, worker_pool::when_full policy);

  py::object when_idle();

 private:
  std::shared_ptr<pool_core> core_;
};

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

PyObject* pool::submit(const submitted_call& call, worker_pool::when_full policy) {
  check_open(*core_, manners::of_asyncio);
  return submit_to(core_->channel(), call, policy, manners::of_asyncio);
}

py::object done_future() {
  py::object made = running_loop().attr("create_future")();
  made.attr("set_result")(py::none());
  return made;
}

py::object pool::when_idle() {
  core_->check_not_forked();
  if (core_->engine().is_on_own_thread())
    raise(PyExc_RuntimeError, "a job cannot wait for its own pool to become idle: it would wait for itself");
  if (core_->is_joined() && !core_->has_channel()) return done_future();
  std::shared_ptr<loop_channel> channel;
  try {
    channel = core_->shared_channel();
  } catch (const py::error_already_set& e) {
    if (!e.matches(exceptions::get().pool_closed)) throw;
    return done_future();  // the threads have ended while it was being made
  }
  loop_channel::place place(*channel);
  bridge_job* const j = core_->futures().create(place.channel());
  if (j == nullptr) throw py::error_already_set();
  const auto future = py::reinterpret_borrow<py::object>(core_->futures().future_of(*j));
  j->kind = &the_idle_kind();
  j->succeeded = true;
  const bool told = place.channel().hand_back_when_idle(*j);
  place.is_taken();
  if (!told) throw py::error_already_set();
  return future;
}

// ---- submit: the hot path ----

template <worker_pool::when_full policy>
PyObject* submit(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    if (nargs < 1) throw py::type_error("submit() missing 1 required positional argument: 'fn'");
    return this_object<pool>(self).submit({args[0], args + 1, static_cast<std::size_t>(nargs - 1), kwnames},
                                          policy);
  });
}

// ---- construction ----

std::unique_ptr<pool> make_pool(PyObject* args, PyObject* kwargs) {
  static const char* const names[] = {"workers",  "name",        "max_pending", "nice", "spin",
                                      "delivery", "initializer", "future_kind", nullptr};
  PyObject *workers{}, *name{}, *max_pending{}, *nice{}, *spin{}, *by{}, *initializer{}, *future_kind{};
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOOOOOO:Pool", const_cast<char**>(names), &workers, &name,
                                  &max_pending, &nice, &spin, &by, &initializer, &future_kind) == 0)
    throw py::error_already_set();
  pool_core::options options;
  options.engine.workers = workers_argument(workers, "workers");
  options.engine.name = text_argument(name, "name");
  options.engine.max_pending = max_pending_argument(max_pending);
  options.engine.nice = nice_argument(nice);
  options.engine.spin = spin_argument(spin);
  options.by = delivery_argument(by);
  options.style = &style_argument(future_kind);
  if (initializer != Py_None) options.initializer = py::reinterpret_borrow<py::object>(initializer);
  pool_core::purge_all();
  return std::make_unique<pool>(pool_core::start(std::move(options)));
}

// ---- the other methods: they hold the GIL, and are short, or release it themselves ----

py::object when_idle(pool& self) { return self.when_idle(); }

void close(pool& self) {
  self.core().check_not_forked();
  self.core().close();
}

bool join(pool& self, PyObject* argument) {
  const std::chrono::duration<double> at_most(PyFloat_AsDouble(argument));
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  self.core().check_not_forked();
  if (!self.core().join(std::chrono::duration_cast<std::chrono::nanoseconds>(at_most))) return false;
  self.core().close();
  return true;
}

std::size_t cancel_waiting(pool& self) { return self.core().engine().cancel_waiting(); }

std::vector<std::string> names_of_running(pool& self) { return running_names(self.core().engine()); }

bool is_on_own_thread(pool& self) { return self.core().is_on_own_thread(); }

py::dict counters(pool& self) { return stats_dict(&self.core()); }

void start_trace(pool& self, PyObject* argument) {
  const std::size_t limit = PyLong_AsSize_t(argument);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  self.core().check_not_forked();
  self.core().start_trace(limit);
}

void write_without_gil(const trace& noted, const std::string& path) {
  try {
    const py::gil_scoped_release others_may_go_on;
    write_trace(noted, path);
  } catch (const std::system_error& e) {
    errno = e.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw py::error_already_set();
  }
}

py::cpp_function stop_trace(pool& self) {
  self.core().check_not_forked();
  return [noted = std::make_shared<trace>(self.core().stop_trace())](const std::string& path) {
    write_without_gil(*noted, path);
  };
}

bool is_closed(pool& self) { return self.core().engine().is_closed(); }
bool is_initializing(pool& self) { return self.core().is_initializing(); }
bool is_calling_back(pool& self) { return self.core().is_calling_back(); }
unsigned workers(pool& self) { return self.core().engine().workers(); }
std::uint64_t pending(pool& self) { return self.core().engine().stats().pending; }
std::uint64_t running(pool& self) { return self.core().engine().stats().running; }

// ---- the type ----

PyTypeObject* the_type = nullptr;  // kept for ever

PyMethodDef methods[] = {
    c_method(
        "submit", &submit<worker_pool::when_full::refuse>,
        "submit($self, fn, /, *args, **kwargs)\n--\n\n"
        "Submit a job; return its future at once.\n\n"
        "The job is accepted when this returns, and starts even if the event loop is blocked from here on. "
        "A Python\ncallable runs in a copy of the caller's context. Cancelling the future, an "
        "asyncio.Future, while "
        "the job waits\nwithdraws the job; while it runs, nobody waits for its end.\n\n"
        "Raises TypeError or OverflowError for arguments that a native function does not take, PoolFull "
        "when\n"
        "max_pending jobs wait, PoolClosed after aclose(), PoolBroken in a forked child, and RuntimeError "
        "where no\n"
        "event loop runs."),
    c_method("_submit_in_line", &submit<worker_pool::when_full::wait_in_line>,
             "_submit_in_line($self, fn, /, *args, **kwargs)\n--\n\nSubmit a job that waits for room."),
    {"_when_idle", &method<&when_idle>, METH_NOARGS,
     "_when_idle($self)\n--\n\nA future of the running loop that is done when no job waits or runs."},
    {"_close", &method<&close>, METH_NOARGS, "_close($self)\n--\n\nRefuse new jobs."},
    {"_join", &method_of_one<&join>, METH_O,
     "_join($self, seconds, /)\n--\n\n"
     "After close(): wait for the threads of an idle pool to end. False on timeout."},
    {"_cancel_waiting", &method<&cancel_waiting>, METH_NOARGS,
     "_cancel_waiting($self)\n--\n\nCancel every job that has not started; return how many."},
    {"_running_names", &method<&names_of_running>, METH_NOARGS,
     "_running_names($self)\n--\n\nNames of the jobs that run."},
    {"_is_on_own_thread", &method<&is_on_own_thread>, METH_NOARGS,
     "_is_on_own_thread($self)\n--\n\nWhether the calling thread is one of the workers."},
    {"_counters", &method<&counters>, METH_NOARGS, "_counters($self)\n--\n\nAll counters, by name."},
    {"_start_trace", &method_of_one<&start_trace>, METH_O,
     "_start_trace($self, limit, /)\n--\n\n"
     "Note from here on what at most `limit` jobs of each worker do."},
    {"_stop_trace", &method<&stop_trace>, METH_NOARGS,
     "_stop_trace($self)\n--\n\n"
     "Return what writes to a file, whose path is bytes, what was noted. It takes no GIL."},
    {"__reduce__", &refuse_to_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {
    {"_is_closed", &property<&is_closed>, nullptr, "Whether new jobs are refused.", nullptr},
    {"_is_initializing", &property<&is_initializing>, nullptr,
     "Whether a worker has yet to call its initializer, or is inside.", nullptr},
    {"_is_calling_back", &property<&is_calling_back>, nullptr, "Whether a done callback runs.", nullptr},
    {"workers", &property<&workers>, nullptr, "How many worker threads there are.", nullptr},
    {"pending", &property<&pending>, nullptr, "How many jobs wait for a worker.", nullptr},
    {"running", &property<&running>, nullptr, "How many jobs run.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

const char doc[] = "The engine behind offgil.Pool.";

PyType_Slot slots[] = {{Py_tp_init, as_slot(&initialise<pool, &make_pool>)},
                       {Py_tp_dealloc, as_slot(&deallocate<pool>)},
                       {Py_tp_traverse, as_slot(&traverse<pool>)},
                       {Py_tp_clear, as_slot(&clear<pool>)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {Py_tp_doc, const_cast<char*>(doc)},
                       {0, nullptr}};

}  // namespace

void bind_pool(py::module_& m) { the_type = add_object_type<pool>(m, "Pool", "offgil._core.Pool", slots); }

std::shared_ptr<pool_core> core_of_pool(PyObject* object) {
  if (PyObject_TypeCheck(object, the_type) == 0)
    throw py::type_error(std::string("pool must be a Pool, not ") + Py_TYPE(object)->tp_name);
  return this_object<pool>(object).shared_core();
}

}  // namespace offgil::python
