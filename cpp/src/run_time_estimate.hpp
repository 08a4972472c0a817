// run_time_estimate.hpp - how long the jobs of one function take, as a moving average.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace offgil {

// Thread-safe in the sense that a lost update is harmless: workers store what they saw, the last one wins.
class run_time_estimate {
 public:
  using nanoseconds = std::chrono::duration<float, std::nano>;

  // Negative: no job of this function has ended yet.
  nanoseconds value() const noexcept { return nanoseconds(average_.load(std::memory_order_relaxed)); }
  bool known() const noexcept { return value().count() >= 0; }

  // Rises fast and falls slowly: taking a long job for a short one costs others their latency, the
  // opposite mistake costs one lock. What is right within a factor of two is left alone, so that workers
  // that run the same short function do not fight over its cache line.
  void learn(nanoseconds seen) noexcept {
    const float old = average_.load(std::memory_order_relaxed);
    if (seen.count() < 2 * old && seen.count() > old / 2) return;
    const float now =
        old < 0 ? seen.count() : old + (seen.count() - old) * (seen.count() > old ? 0.5F : 0.1F);
    average_.store(now, std::memory_order_relaxed);
  }

 private:
  std::atomic<float> average_{-1.0F};
};

// The same of calls that now and then wait for what is not theirs, as for a lane that another thread has:
// what two in a row have taken at least.
class call_time_estimate {
 public:
  using nanoseconds = run_time_estimate::nanoseconds;

  nanoseconds value() const noexcept { return estimate_.value(); }
  bool known() const noexcept { return estimate_.known(); }

  void learn(nanoseconds seen) noexcept {
    const nanoseconds before(last_.exchange(seen.count(), std::memory_order_relaxed));
    if (before.count() >= 0) estimate_.learn(std::min(before, seen));
  }

 private:
  run_time_estimate estimate_;
  std::atomic<float> last_{-1.0F};
};

}  // namespace offgil
