// stats.hpp - what a pool has counted.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "histogram.hpp"

namespace offgil {

// One worker's share. The worker writes, anybody reads.
class worker_counters {
 public:
  void count_start() noexcept { add(started); }
  void count_end(bool succeeded, bool abandoned) noexcept {
    add(abandoned ? cancelled : succeeded ? completed : failed);
  }

  struct tally {
    std::uint64_t started = 0;
    std::uint64_t completed = 0;
    std::uint64_t failed = 0;
    std::uint64_t cancelled = 0;
  };

  // As of one moment, so that at most one job runs; unless they are so short that it never gets hold of one.
  tally read() const noexcept {
    tally seen;
    for (int attempts = 0; attempts < 100; ++attempts) {
      seen.completed = completed.load(std::memory_order_acquire);
      seen.failed = failed.load(std::memory_order_acquire);
      seen.cancelled = cancelled.load(std::memory_order_acquire);
      seen.started = started.load(std::memory_order_acquire);
      if (seen.started - seen.completed - seen.failed - seen.cancelled <= 1) break;
    }
    return seen;
  }

  std::atomic<std::uint64_t> started{0};
  std::atomic<std::uint64_t> completed{0};
  std::atomic<std::uint64_t> failed{0};
  std::atomic<std::uint64_t> cancelled{0};  // while they ran
  histogram wait_time;
  histogram run_time;

 private:
  // Release: who reads an end with acquire also sees the start before it, see worker_pool::stats().
  static void add(std::atomic<std::uint64_t>& counter) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
};

// A consistent picture: submitted == completed + failed + cancelled + pending + running, at every moment.
struct pool_stats {
  std::uint64_t submitted = 0;
  std::uint64_t completed = 0;  // ended with a result
  std::uint64_t failed = 0;     // ended with an error
  std::uint64_t cancelled = 0;  // withdrawn while they waited, or unwanted when they ended
  std::uint64_t pending = 0;
  std::uint64_t running = 0;
  std::uint64_t rejected = 0;  // never accepted: the pool was full or closed
  std::uint64_t late_calls =
      0;  // by the sentinel, for jobs that stood behind no other and had waited for long
  histogram::snapshot wait_time;
  histogram::snapshot run_time;
  std::vector<std::chrono::nanoseconds> worker_busy;  // time each worker has spent running jobs
};

}  // namespace offgil
