// completion_queue.hpp - finished jobs on their way to one consumer.
#pragma once

#include <atomic>
#include <cstdint>

#include "completion_sink.hpp"
#include "job_list.hpp"

namespace offgil {

// How a completion queue calls its consumer. Called by workers, who hold no lock; must not block.
class waker {
 public:
  virtual ~waker() = default;
  virtual void wake() noexcept = 0;
};

// Many producers, one consumer, lock-free: a worker must never wait for the consumer, which may be held up
// for as long as the GIL is. The consumer is woken only by the push that finds it asleep, so once per batch:
//
//   asleep    (null)        the next push wakes the consumer
//   attended  (a mark)      the consumer has promised to look again; pushes are silent
//   holding   (a chain)     jobs wait, newest first; pushes are silent
//
// A producer touches the queue and its waker after the job is out of its hands. Both must therefore outlive
// the producers' threads, not only their jobs.
class completion_queue : public completion_sink {
 public:
  explicit completion_queue(waker& consumer) noexcept : consumer_(consumer) {}

  // Any thread.
  void push(job& j) noexcept override {
    job* head = head_.load(std::memory_order_relaxed);
    do {
      j.next = head == attended() ? nullptr : head;
      // Release: publishes what the job's run wrote to the consumer's acquire in take().
    } while (!head_.compare_exchange_weak(head, &j, std::memory_order_release, std::memory_order_relaxed));
    if (head == nullptr) {
      wakeups_.fetch_add(1, std::memory_order_relaxed);
      consumer_.wake();
    }
  }

  // Consumer only: takes what has arrived, oldest first, and leaves the queue attended.
  job_list take() noexcept {
    job* const newest = head_.exchange(attended(), std::memory_order_acquire);
    return newest == attended() ? job_list() : job_list::from_newest(newest);
  }

  // Consumer only, while it attends: whether nothing has arrived since the last take().
  bool is_empty() const noexcept { return head_.load(std::memory_order_relaxed) == attended(); }

  // Consumer only: stops attending. False when something has arrived since the last take().
  bool fall_asleep() noexcept {
    job* mark = attended();
    return head_.compare_exchange_strong(mark, nullptr, std::memory_order_relaxed);
  }

  // Any thread: whether the next push would wake the consumer.
  bool is_asleep() const noexcept { return head_.load(std::memory_order_relaxed) == nullptr; }

  std::uint64_t wakeups() const noexcept { return wakeups_.load(std::memory_order_relaxed); }

 private:
  // An address that no job can have.
  job* attended() const noexcept { return reinterpret_cast<job*>(const_cast<completion_queue*>(this)); }

  alignas(64) std::atomic<job*> head_{nullptr};
  alignas(64) std::atomic<std::uint64_t> wakeups_{0};
  waker& consumer_;
};

}  // namespace offgil
