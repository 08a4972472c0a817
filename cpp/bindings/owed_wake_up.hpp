// owed_wake_up.hpp - when a parked worker is called for short jobs.
#pragma once

#include <algorithm>
#include <cstddef>

#include "run_queue.hpp"
#include "run_time_estimate.hpp"

namespace offgil::python {

// Calling a worker costs more than many a job. Short jobs are queued at once, for any worker that is awake,
// but a parked one is called only for some of them together. One per channel; guarded by the GIL.
class owed_wake_up {
 public:
  // For a job that is about to be submitted, one of `in_flight`. True: a worker is to be called with it.
  // False: the caller owes a worker_pool::flush_wake_up(), soon.
  bool is_due_with(const run_time_estimate& estimate, std::size_t in_flight) noexcept {
    const bool is_short = estimate.known() && estimate.value() < short_enough_to_wait;
    if (is_short) work_ += estimate.value();
    ++jobs_;
    const bool is_much = jobs_ >= std::max(fewest_jobs, in_flight - in_flight / 4) || work_ >= most_work;
    if (is_short && in_flight != 1 && !is_much) return false;
    forget();
    return true;
  }

  // Whether a flush is owed; then not any more.
  bool pay() noexcept {
    if (jobs_ == 0) return false;
    forget();
    return true;
  }

 private:
  // How much may be owed: work that is worth the call; or three quarters of what is in flight, whose last
  // quarter has results to give meanwhile, but never just a few jobs. And how short a job must be known to be
  // to wait for others.
  static constexpr run_time_estimate::nanoseconds most_work = run_queue::worth_a_wake_up;
  static constexpr std::size_t fewest_jobs = 64;
  static constexpr run_time_estimate::nanoseconds short_enough_to_wait{5'000};

  void forget() noexcept {
    jobs_ = 0;
    work_ = {};
  }

  std::size_t jobs_ = 0;
  run_time_estimate::nanoseconds work_{0};
};

}  // namespace offgil::python
