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

#include "arguments.hpp"
#include "c_method.hpp"
#include "callable_name.hpp"
#include "errors.hpp"
#include "pool_core.hpp"
#include "running_loop.hpp"
#include "span_log.hpp"
#include "stats_dict.hpp"
#include "submission.hpp"

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
  const std::shared_ptr<pool_core>& shared_core() const noexcept { return core_; }

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

// ---- submit: the hot path, as a C method rather than a pybind11 one ----

template <worker_pool::when_full policy>
PyObject* submit(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    if (nargs < 1) throw py::type_error("submit() missing 1 required positional argument: 'fn'");
    try {
      return this_object<pool>(self).submit({args[0], args + 1, static_cast<std::size_t>(nargs - 1), kwnames},
                                            policy);
    } catch (const std::system_error& e) {
      set_os_error(e);
      return nullptr;
    }
  });
}

// ---- construction ----

std::unique_ptr<pool> make_pool(const py::object& workers, const py::object& name,
                                const py::object& max_pending, const py::object& nice, const py::object& spin,
                                const py::object& by, const py::object& initializer,
                                const std::string& future_kind) {
  pool_core::options options;
  options.engine.workers = workers_argument(workers, "workers");
  options.engine.name = text_argument(name, "name");
  options.engine.max_pending = max_pending_argument(max_pending);
  options.engine.nice = nice_argument(nice);
  options.engine.spin = spin_argument(spin);
  options.by = delivery_argument(by);
  options.style = &style_argument(future_kind);
  if (!initializer.is_none()) options.initializer = initializer;
  pool_core::purge_all();
  return std::make_unique<pool>(pool_core::start(std::move(options)));
}

std::int64_t nanoseconds(clock::time_point at) noexcept {
  return std::chrono::nanoseconds(at.time_since_epoch()).count();
}

// By worker the (name, submitted, begin, end) of each job; the (loop, begin, end, delivered) of each
// delivery; how many jobs were not noted. Times are nanoseconds of the monotonic clock.
py::tuple stop_trace(pool_core& core) {
  std::size_t lost = 0;
  py::list workers;
  for (const auto& each : core.engine().stop_trace()) {
    py::list spans;
    for (const job_span& span : each.spans)
      spans.append(py::make_tuple(span.name.data(), nanoseconds(span.submitted), nanoseconds(span.begin),
                                  nanoseconds(span.end)));
    workers.append(spans);
    lost += each.lost;
  }
  py::list deliveries;
  for (const auto& each : core.stop_trace())
    deliveries.append(
        py::make_tuple(each.loop, nanoseconds(each.begin), nanoseconds(each.end), each.delivered));
  return py::make_tuple(workers, deliveries, lost);
}

}  // namespace

void bind_pool(py::module_& m) {
  static PyMethodDef submit_method = c_method(
      "submit", &submit<worker_pool::when_full::refuse>,
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
  static PyMethodDef submit_in_line_method =
      c_method("_submit_in_line", &submit<worker_pool::when_full::wait_in_line>,
               "_submit_in_line($self, fn, /, *args, **kwargs)\n--\n\nSubmit a job that waits for room.");

  py::class_<pool> type(m, "Pool", "The engine behind offgil.Pool.");
  type.def(py::init(&make_pool), py::kw_only(), py::arg("workers"), py::arg("name"), py::arg("max_pending"),
           py::arg("nice"), py::arg("spin"), py::arg("delivery"), py::arg("initializer"),
           py::arg("future_kind"));
  add_c_method(type, submit_method);
  add_c_method(type, submit_in_line_method);
  // Holds the GIL: they are short, or release it themselves.
  type.def("_when_idle", &pool::when_idle,
           "A future of the running loop that is done when no job waits or runs.");
  type.def(
      "_close",
      [](pool& self) {
        self.core().check_not_forked();
        self.core().close();
      },
      "Refuse new jobs.");
  type.def(
      "_join",
      [](pool& self, double seconds) {
        self.core().check_not_forked();
        const std::chrono::duration<double> at_most(seconds);
        if (!self.core().join(std::chrono::duration_cast<std::chrono::nanoseconds>(at_most))) return false;
        self.core().close();
        return true;
      },
      py::arg("seconds"), "After close(): wait for the threads of an idle pool to end. False on timeout.");
  type.def(
      "_cancel_waiting", [](pool& self) { return self.core().engine().cancel_waiting(); },
      "Cancel every job that has not started; return how many.");
  type.def(
      "_running_names", [](pool& self) { return running_names(self.core().engine()); },
      "Names of the jobs that run.");
  type.def_property_readonly(
      "_is_closed", [](pool& self) { return self.core().engine().is_closed(); },
      "Whether new jobs are refused.");
  type.def_property_readonly(
      "_is_initializing", [](pool& self) { return self.core().is_initializing(); },
      "Whether a worker has yet to call its initializer, or is inside.");
  type.def_property_readonly(
      "_is_calling_back", [](pool& self) { return self.core().is_calling_back(); },
      "Whether a done callback of a native job runs.");
  type.def(
      "_is_on_own_thread", [](pool& self) { return self.core().is_on_own_thread(); },
      "Whether the calling thread is one of the workers.");
  type.def("_counters", [](pool& self) { return stats_dict(&self.core()); }, "All counters, by name.");
  type.def(
      "_start_trace",
      [](pool& self, std::size_t limit) {
        self.core().check_not_forked();
        self.core().start_trace(limit);
      },
      py::arg("limit"), "Note from here on what at most `limit` jobs of each worker do.");
  type.def(
      "_stop_trace",
      [](pool& self) {
        self.core().check_not_forked();
        return stop_trace(self.core());
      },
      "Return what was noted: by worker the jobs, the deliveries, and how many jobs were too many.");
  type.def_property_readonly(
      "workers", [](pool& self) { return self.core().engine().workers(); },
      "How many worker threads there are.");
  type.def_property_readonly(
      "pending", [](pool& self) { return self.core().engine().stats().pending; },
      "How many jobs wait for a worker.");
  type.def_property_readonly(
      "running", [](pool& self) { return self.core().engine().stats().running; }, "How many jobs run.");
}

std::shared_ptr<pool_core> core_of_pool(const py::object& object) {
  return object.cast<const pool&>().shared_core();
}

}  // namespace offgil::python
