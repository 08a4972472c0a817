// lane_sharing.hpp - whether jobs let others into their lane while they run.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace offgil {

// Most jobs in a lane keep it to themselves, so that a second worker would only queue for it. But some leave
// it while they run, as Python callables do that release the GIL. Nothing tells but trying. Thread-safe in
// the sense that a lost update is harmless.
class lane_sharing {
 public:
  // Another worker came for the lane while a job of this kind was inside, and both got on; or one had to
  // wait. Each vain attempt makes the next one rarer.
  void learn(bool shares) noexcept {
    const int change = shares ? 1 : -1;
    score_.store(std::clamp(score_.load(std::memory_order_relaxed) + change, -most, most),
                 std::memory_order_relaxed);
    asked_.store(0, std::memory_order_relaxed);
    const auto interval = asked_per_try_.load(std::memory_order_relaxed);
    asked_per_try_.store(shares ? fewest_asked : std::min(2 * interval, most_asked),
                         std::memory_order_relaxed);
  }

  // Whether another worker is likely to get something done.
  bool is_likely() const noexcept { return score_.load(std::memory_order_relaxed) > 0; }

  // The same; but true now and then where it is not likely, to find out.
  bool is_worth_trying() noexcept {
    if (is_likely()) return true;
    const std::uint32_t interval = asked_per_try_.load(std::memory_order_relaxed);
    return asked_.fetch_add(1, std::memory_order_relaxed) % interval == interval - 1;
  }

 private:
  static constexpr int most = 4;
  static constexpr std::uint32_t fewest_asked = 32;
  static constexpr std::uint32_t most_asked = 4'096;

  std::atomic<int> score_{1};
  std::atomic<std::uint32_t> asked_{0};
  std::atomic<std::uint32_t> asked_per_try_{fewest_asked};
};

}  // namespace offgil
