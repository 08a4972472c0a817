// pools.hpp - what most tests of a worker pool begin with.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "consumer.hpp"
#include "jobs.hpp"
#include "patience.hpp"
#include "worker_pool.hpp"

namespace offgil::testing {

inline worker_pool::options with_workers(unsigned count, std::size_t max_pending = 0) {
  worker_pool::options options;
  options.workers = count;
  options.max_pending = max_pending;
  return options;
}

// Keeps one worker busy until it is released. Its one job comes back to `destination` like any other.
class blocker {
 public:
  explicit blocker(consumer& destination) : job_(kind_, destination.queue) {}
  ~blocker() { release(); }
  blocker(const blocker&) = delete;
  blocker& operator=(const blocker&) = delete;

  // Whether a worker is inside the job.
  bool occupies_a_worker_of(worker_pool& pool) {
    return pool.submit(job_) == worker_pool::admission::accepted &&
           eventually([this] { return inside_.load(); });
  }
  void release() { gate_.open(); }
  test_job& its_job() { return job_; }

 private:
  class blocking_kind final : public job_kind {
   public:
    explicit blocking_kind(blocker& of) : of_(of) {}
    bool run(job& j) noexcept override {
      ++static_cast<test_job&>(j).runs;
      of_.inside_ = true;
      return of_.gate_.pass();
    }

   private:
    blocker& of_;
  };

  gate gate_;
  std::atomic<bool> inside_{false};
  blocking_kind kind_{*this};
  test_job job_;
};

// The identity of the counters, that none of them has run below zero, and that no more jobs wait than may.
inline bool is_consistent(const pool_stats& seen, std::size_t max_pending, unsigned workers) {
  const bool adds_up =
      seen.submitted == seen.completed + seen.failed + seen.cancelled + seen.pending + seen.running;
  const bool is_bounded = max_pending == 0 || seen.pending <= max_pending;
  return adds_up && is_bounded && seen.pending <= seen.submitted && seen.running <= workers;
}

// Another thread that asks for the counters all the time.
class stats_watch {
 public:
  explicit stats_watch(const worker_pool& pool)
      : thread_([this, &pool] {
          do {
            if (!is_consistent(pool.stats(), pool.max_pending(), pool.workers())) ++inconsistent_;
          } while (!stop_);
        }) {}
  ~stats_watch() {
    stop_ = true;
    thread_.join();
    EXPECT_EQ(inconsistent_, 0U);
  }
  stats_watch(const stats_watch&) = delete;
  stats_watch& operator=(const stats_watch&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::size_t inconsistent_ = 0;
  std::thread thread_;
};

}  // namespace offgil::testing
