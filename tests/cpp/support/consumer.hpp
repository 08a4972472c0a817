// consumer.hpp - the far end of a completion queue, as the tests need it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>

#include "completion_queue.hpp"
#include "patience.hpp"

namespace offgil::testing {

// Sleeps on a condition variable between batches. receive() and receive_one() belong to one thread.
class consumer final : public waker {
 public:
  completion_queue queue{*this};

  // The next job that comes back, or null when none does in time.
  job* receive_one() {
    const auto deadline = clock::now() + patience;
    for (;;) {
      if (arrived_.empty()) arrived_ = queue.take();
      if (!arrived_.empty()) return &arrived_.pop_front();
      if (queue.fall_asleep() && !sleep_until(deadline)) return nullptr;
    }
  }

  // Passes the next `count` jobs to `use`. False when they do not come in time.
  template <class Job, class Use>
  bool receive(std::size_t count, Use use) {
    while (count-- != 0) {
      job* const j = receive_one();
      if (j == nullptr) return false;
      use(static_cast<Job&>(*j));
    }
    return true;
  }

  bool receive(std::size_t count) {
    return receive<job>(count, [](job&) {});
  }

  // Whether nothing has come back that was not received.
  bool has_nothing() {
    if (arrived_.empty()) arrived_ = queue.take();
    return arrived_.empty();
  }

  void wake() noexcept override {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    condition_.notify_one();
  }

 private:
  bool sleep_until(clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    const bool in_time = condition_.wait_until(lock, deadline, [this] { return woken_; });
    woken_ = false;
    return in_time;
  }

  job_list arrived_;
  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;  // guarded by mutex_
};

}  // namespace offgil::testing
