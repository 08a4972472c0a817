// executor.cpp - the Python type under offgil.ThreadPoolExecutor.
#include "executor.hpp"

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "c_method.hpp"
#include "concurrent_channel.hpp"
#include "errors.hpp"
#include "exit_hook.hpp"
#include "instrumentation.hpp"
#include "object_type.hpp"
#include "pool.hpp"
#include "pool_core.hpp"
#include "running_loop.hpp"
#include "stats_dict.hpp"
#include "submission.hpp"

namespace offgil::python {
namespace {

// A channel is the pool's.
struct given_back {
  void operator()(concurrent_channel* channel) const noexcept { channel->give_back(); }
};

// Jobs from any thread, as concurrent futures. Guarded by the GIL.
//
// An executor of its own starts its threads with the first job, so that one that is made at import, as many
// are, survives a fork. One on a pool's engine ends only itself.
//
// One that `serves_loop` belongs to one event loop, the one that it is given or else the first in which it is
// used: on that loop's thread jobs have futures of the loop's.
class executor {
 public:
  executor(pool_core::options with, bool blocks, bool serves_loop, const py::object& loop)
      : options_(std::move(with)), owns_core_(true), blocks_(blocks), serves_loop_(serves_loop) {
    bind_to(loop);
  }

  executor(std::shared_ptr<pool_core> core, bool blocks, bool serves_loop, const py::object& loop)
      : owns_core_(false), blocks_(blocks), serves_loop_(serves_loop) {
    bind_to(loop);
    attach(std::move(core));
  }

  ~executor() {
    if (!core_) return;
    if (owns_core_) core_->close();
    core_->end_by_itself();
  }
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;

  PyObject* submit(const submitted_call& call) {
    get_ready();
    if (serves_loop_)
      if (const auto channel = channel_of_this_thread())
        return submit_to(*channel, call, worker_pool::when_full::refuse, manners::of_executors);
    return submit_concurrent(call);
  }

  PyObject* submit_concurrent(const submitted_call& call) {
    get_ready();
    const bool may_block = blocks_ && core_->engine().max_pending() != 0 && !must_not_block();
    return submit_to(*channel_, call, may_block);
  }

  void shut_down(bool wait, bool cancel_futures);

  // What the collector must know of, before and after the first job.
  py::handle initializer() const noexcept {
    if (!core_) return options_.initializer;
    return owns_core_ ? core_->initializer() : py::handle();
  }
  void drop_initializer() {
    const py::object dropped = std::move(options_.initializer);
    if (core_ && owns_core_) core_->drop_initializer();
  }

  pool_core* core() const noexcept { return core_.get(); }
  bool is_shut_down() const noexcept { return is_shut_down_; }
  bool is_broken() const noexcept { return core_ && core_->is_broken(); }

 private:
  void get_ready() {
    check_not_shut_down();
    if (!core_) start();
    check_open(*core_, manners::of_executors);
  }

  void check_not_shut_down() {
    if (is_shut_down_ || is_exiting()) raise_closed(manners::of_executors);
  }

  void start();
  void bind_to(const py::object& loop) {
    if (!loop.is_none()) loop_ = py::weakref(loop);
  }
  // A pool that takes no jobs gives no channel, whose dispatcher nobody would stop.
  void attach(std::shared_ptr<pool_core> core) {
    const worker_pool& engine = core->engine();
    if (!engine.is_closed() && !engine.was_left_behind_by_fork())
      channel_.reset(&core->open_concurrent_channel());
    core_ = std::move(core);
  }
  bool must_not_block() const;
  std::shared_ptr<loop_channel> channel_of_this_thread();
  void wait_until_over();

  pool_core::options options_;
  const bool owns_core_;
  const bool blocks_;
  const bool serves_loop_;
  bool is_shut_down_ = false;
  std::shared_ptr<pool_core> core_;                          // null until the first job
  std::unique_ptr<concurrent_channel, given_back> channel_;  // null where the pool was closed before
  py::object loop_;                                          // weak; null until one was given or found
  std::weak_ptr<loop_channel> loop_channel_;
};

// Under the GIL throughout, but for what comes first: that may run Python code, which may submit to this
// executor, or shut it down.
void executor::start() {
  pool_core::purge_all();
  if (core_) return;
  check_not_shut_down();
  attach(pool_core::start(options_));
  const py::object dropped = std::move(options_.initializer);  // the core has it
}

// A thread that runs an event loop would keep the loop from what makes room; a job's would keep a worker.
bool executor::must_not_block() const {
  if (core_->is_on_own_thread()) return true;
  return !py::module_::import("asyncio").attr("_get_running_loop")().is_none();
}

std::shared_ptr<loop_channel> executor::channel_of_this_thread() {
  if (auto known = loop_channel_.lock(); known && known->is_known_to_run()) return known;
  const py::object running = py::module_::import("asyncio").attr("_get_running_loop")();
  if (running.is_none()) return nullptr;
  if (!loop_) loop_ = py::weakref(running);
  if (!loop_().is(running)) return nullptr;
  auto found = core_->shared_channel();
  loop_channel_ = found;
  return found;
}

void executor::shut_down(bool wait, bool cancel_futures) {
  if (wait && core_ && core_->is_on_own_thread())
    raise(
        PyExc_RuntimeError,
        "shutdown(wait=True) was called by one of the jobs or callbacks that it would have to wait for; call "
        "shutdown(wait=False) there");
  is_shut_down_ = true;
  if (!core_ || core_->engine().was_left_behind_by_fork()) return;
  if (owns_core_) core_->close();  // first: what is cancelled makes room, and nobody in line may have it
  if (cancel_futures && channel_) {
    core_->engine().cancel_unclaimed(owns_core_ ? nullptr : channel_.get());
    channel_->bring();
  }
  if (!wait)
    core_->end_by_itself();
  else if (owns_core_ || channel_)
    wait_until_over();
}

// Throws what a signal handler raised. What was asked for goes on; another call goes on waiting for it.
void executor::wait_until_over() {
  const auto alive = core_;
  for (bool over = false; !over;) {
    if (owns_core_) {
      const py::gil_scoped_release jobs_may_need_it;
      over = alive->engine().wait_until_finished(between_signals);
    } else {
      over = channel_->wait_until_empty(between_signals);
    }
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
  while (owns_core_ && !core_->join(between_signals))
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

using door = PyObject* (executor::*)(const submitted_call&);

template <door submit_by>
PyObject* submit_here(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    if (nargs < 1) throw py::type_error("submit() missing 1 required positional argument: 'fn'");
    return (this_object<executor>(self).*
            submit_by)({args[0], args + 1, static_cast<std::size_t>(nargs - 1), kwnames});
  });
}

PyObject* submit_by_wrapper(PyObject* wrapper, PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                            PyObject* kwnames) {
  const auto alive = py::reinterpret_borrow<py::object>(wrapper);
  std::vector<PyObject*> all{self};
  all.insert(all.end(), args, args + nargs + (kwnames != nullptr ? PyTuple_GET_SIZE(kwnames) : 0));
  return PyObject_Vectorcall(wrapper, all.data(), static_cast<std::size_t>(nargs) + 1, kwnames);
}

constinit instrumented_method submit_itself{"_submit_here"};
constinit instrumented_method submit_concurrent_itself{"_submit_concurrent_here"};

// By what others have put around it; not for a native function, which sees nothing of that.
template <door submit_by, instrumented_method& itself>
PyObject* submit(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    PyObject* const wrapper = itself.wrapper();
    if (wrapper != nullptr && nargs > 0 &&
        !is_native({args[0], args + 1, static_cast<std::size_t>(nargs - 1), kwnames}))
      return submit_by_wrapper(wrapper, self, args, nargs, kwnames);
    return submit_here<submit_by>(self, args, nargs, kwnames);
  });
}

// Any objects are as true or false as Python has it.
void shut_down(executor& self, PyObject* arguments) {
  int wait = 0;
  int cancel_futures = 0;
  if (PyArg_ParseTuple(arguments, "pp:_shut_down", &wait, &cancel_futures) == 0)
    throw py::error_already_set();
  self.shut_down(wait != 0, cancel_futures != 0);
}

py::dict counters(executor& self) { return stats_dict(self.core()); }
bool is_shut_down(executor& self) { return self.is_shut_down(); }
bool is_broken(executor& self) { return self.is_broken(); }

// ---- construction ----

bool blocks_argument(PyObject* given) {
  if (given == nullptr) return true;
  const std::string policy = text_argument(given, "on_full");
  if (policy != "block" && policy != "raise")
    throw py::value_error("on_full must be 'block' or 'raise', not '" + policy + "'");
  return policy == "block";
}

std::unique_ptr<executor> make_executor(PyObject* args, PyObject* kwargs) {
  static const char* const names[] = {"workers",     "name", "initializer", "max_pending", "on_full",
                                      "serves_loop", "pool", "loop",        nullptr};
  PyObject *workers = Py_None, *name{}, *initializer = Py_None, *max_pending = Py_None, *on_full{},
           *pool = Py_None, *loop = Py_None;
  int serves_loop = 0;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOOpOO:Executor", const_cast<char**>(names), &workers,
                                  &name, &initializer, &max_pending, &on_full, &serves_loop, &pool,
                                  &loop) == 0)
    throw py::error_already_set();
  const bool blocks = blocks_argument(on_full);
  const bool serves = serves_loop != 0;
  const auto its_loop = py::reinterpret_borrow<py::object>(loop);
  if (pool != Py_None) return std::make_unique<executor>(core_of_pool(pool), blocks, serves, its_loop);
  pool_core::options options;
  options.engine.workers = workers_argument(workers, "max_workers");
  if (name != nullptr) options.engine.name = text_argument(name, "thread_name_prefix");
  options.engine.name_separator = '_';
  options.engine.max_pending = max_pending_argument(max_pending);
  options.has_no_owner = true;
  if (initializer != Py_None) options.initializer = py::reinterpret_borrow<py::object>(initializer);
  return std::make_unique<executor>(std::move(options), blocks, serves, its_loop);
}

// ---- the type ----

PyMethodDef methods[] = {
    c_method(
        "submit", &submit<&executor::submit, submit_itself>,
        "submit($self, fn, /, *args, **kwargs)\n--\n\n"
        "Submit a job; return its future at once.\n\n"
        "Raises RuntimeError after shutdown() and while the interpreter ends, PoolBroken where an "
        "initializer has failed\nand in a forked child, PoolFull where max_pending jobs wait and on_full is "
        "'raise', or the thread must not\nblock: it runs an event loop, or a job of this executor. Otherwise "
        "it waits for room."),
    c_method("_submit_concurrent", &submit<&executor::submit_concurrent, submit_concurrent_itself>,
             "_submit_concurrent($self, fn, /, *args, **kwargs)\n--\n\n"
             "Submit a job with a concurrent future, also on the thread of the loop that this serves."),
    c_method("_submit_here", &submit_here<&executor::submit>,
             "_submit_here($self, fn, /, *args, **kwargs)\n--\n\n"
             "Submit a job, past what others have put around submit()."),
    c_method("_submit_concurrent_here", &submit_here<&executor::submit_concurrent>,
             "_submit_concurrent_here($self, fn, /, *args, **kwargs)\n--\n\n"
             "Submit a job with a concurrent future, past what others have put around submit()."),
    {"_shut_down", &method_of_one<&shut_down>, METH_VARARGS,
     "_shut_down($self, wait, cancel_futures, /)\n--\n\n"
     "Refuse new jobs; withdraw those that wait, wait for the others."},
    {"_counters", &method<&counters>, METH_NOARGS, "_counters($self)\n--\n\nAll counters, by name."},
    {"__reduce__", &refuse_to_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {
    {"_shutdown", &property<&is_shut_down>, nullptr, "Whether shutdown() has been called.", nullptr},
    {"_broken", &property<&is_broken>, nullptr, "Whether an initializer has failed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

const char doc[] = "The engine behind offgil.ThreadPoolExecutor.";

PyType_Slot slots[] = {{Py_tp_init, as_slot(&initialise<executor, &make_executor>)},
                       {Py_tp_dealloc, as_slot(&deallocate<executor>)},
                       {Py_tp_traverse, as_slot(&traverse<executor>)},
                       {Py_tp_clear, as_slot(&clear<executor>)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {Py_tp_doc, const_cast<char*>(doc)},
                       {0, nullptr}};

}  // namespace

void bind_executor(py::module_& m) {
  find_standard_executor();
  add_object_type<executor>(m, "Executor", "offgil._core.Executor", slots);
}

}  // namespace offgil::python
