// clock.hpp - the one clock of the engine, and what a thread uses of a CPU.
#pragma once

#include <chrono>
#include <ctime>

namespace offgil {

using clock = std::chrono::steady_clock;

// What the thread that a clock belongs to has used of a CPU.
inline clock::duration cpu_time(clockid_t clock_of_thread) noexcept {
  timespec used{};
  ::clock_gettime(clock_of_thread, &used);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

inline clock::duration cpu_time_of_this_thread() noexcept { return cpu_time(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace offgil
