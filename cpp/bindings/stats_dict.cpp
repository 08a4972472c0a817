// stats_dict.cpp - a pool's counters for Python.
#include "stats_dict.hpp"

#include <chrono>

#include "pool_core.hpp"
#include "stats.hpp"

namespace offgil::python {
namespace {

double seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

py::tuple histogram_tuple(const histogram::snapshot& of) {
  py::tuple bounds(histogram::bucket_count - 1);
  py::tuple counts(histogram::bucket_count);
  for (std::size_t i = 0; i < histogram::bucket_count; ++i) {
    if (i + 1 < histogram::bucket_count) bounds[i] = seconds(histogram::upper_bound(i));
    counts[i] = of.counts[i];
  }
  return py::make_tuple(bounds, counts, seconds(of.sum));
}

}  // namespace

py::dict stats_dict(pool_core* core) {
  if (core != nullptr) core->purge();
  const pool_stats engine = core != nullptr ? core->engine().stats() : pool_stats{};
  const delivery_counters counters = core != nullptr ? core->counters : delivery_counters{};
  py::tuple busy(engine.worker_busy.size());
  for (std::size_t i = 0; i < engine.worker_busy.size(); ++i) busy[i] = seconds(engine.worker_busy[i]);
  py::dict all;
  all["submitted"] = engine.submitted;
  all["completed"] = engine.completed;
  all["failed"] = engine.failed;
  all["cancelled"] = engine.cancelled;
  all["pending"] = engine.pending;
  all["running"] = engine.running;
  all["rejected"] = engine.rejected;
  all["dropped"] = counters.dropped;
  all["gil_acquisitions"] = core != nullptr ? core->gil_acquisitions() : 0;
  all["wakeups"] = core != nullptr ? core->wakeups() : 0;
  all["batches"] = counters.batches;
  all["late_calls"] = engine.late_calls;
  all["inline_wakeups"] = counters.inline_wakeups;
  all["forwarded_callbacks"] = counters.forwarded_callbacks;
  all["worker_busy_seconds"] = busy;
  all["wait_seconds"] = histogram_tuple(engine.wait_time);
  all["run_seconds"] = histogram_tuple(engine.run_time);
  return all;
}

}  // namespace offgil::python
