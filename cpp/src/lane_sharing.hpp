// lane_sharing.hpp - whether jobs let others into their lane while they run.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "run_time_estimate.hpp"

namespace offgil {

// Short jobs in a lane only queue for it, so that a second worker gets nothing done: unless they leave it
// while they run, as Python callables do that release the GIL. Nothing tells but trying. Thread-safe in the
// sense that a lost update is harmless.
class lane_sharing {
 public:
  using nanoseconds = run_time_estimate::nanoseconds;

  // A worker has come to the lane for a job of this kind, while another one was inside, and had to wait so
  // long. `each` is how long a job takes.
  void learn(nanoseconds waited, nanoseconds each) noexcept {
    const int change = waited < each / 2 ? 1 : -1;
    score_.store(std::clamp(score_.load(std::memory_order_relaxed) + change, -most, most),
                 std::memory_order_relaxed);
  }

  // Whether another worker is likely to get something done; true now and then where it is not, to find out.
  bool is_worth_trying() noexcept {
    return score_.load(std::memory_order_relaxed) > 0 ||
           asked_.fetch_add(1, std::memory_order_relaxed) % asked_per_try == asked_per_try - 1;
  }

 private:
  static constexpr int most = 4;
  static constexpr std::uint32_t asked_per_try = 64;

  std::atomic<int> score_{0};
  std::atomic<std::uint32_t> asked_{0};
};

}  // namespace offgil
