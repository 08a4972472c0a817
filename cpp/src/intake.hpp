// intake.hpp - jobs on their way to the run queue.
#pragma once

#include <atomic>
#include <cstddef>

#include "job_list.hpp"

namespace offgil {

// Any thread puts jobs in without a lock; who holds the pool's mutex takes them all out. A submitter whose
// jobs may wait a little writes nothing else that workers read, so that they do not take each other's cache
// lines away with every job.
class intake {
 public:
  // Stamps the job and puts it in. False once it is closed: the job is not in it. Sequentially consistent, as
  // empty() and take() are: of "put a job in, then see who watches" and "stop watching, then look in", one
  // sees the other.
  bool push(job& j) noexcept {
    job* head = head_.load(std::memory_order_relaxed);
    j.submitted_at = time_of_push(head == nullptr);
    do {
      if (head == closed()) return false;
      j.next = head;
    } while (!head_.compare_exchange_weak(head, &j, std::memory_order_seq_cst, std::memory_order_relaxed));
    return true;
  }

  bool empty() const noexcept {
    const job* const head = head_.load(std::memory_order_seq_cst);
    return head == nullptr || head == closed();
  }

  // How many there are. While nobody takes any.
  std::size_t size() const noexcept {
    std::size_t count = 0;
    const job* each = head_.load(std::memory_order_acquire);
    for (; each != nullptr && each != closed(); each = each->next) ++count;
    return count;
  }

  // Takes what is there, oldest first.
  job_list take() noexcept {
    return empty() ? job_list() : job_list::from_newest(head_.exchange(nullptr, std::memory_order_seq_cst));
  }

  // The last take(): from now on nothing gets in. Call once.
  job_list close() noexcept {
    return job_list::from_newest(head_.exchange(closed(), std::memory_order_seq_cst));
  }

 private:
  // Reading the clock costs as much as all the rest, so jobs that follow each other share a reading: a few,
  // and only until somebody takes them. Several threads at once may share one for longer; no harm is done.
  clock::time_point time_of_push(bool first) noexcept {
    constexpr unsigned sharers = 8;
    const unsigned shared = shared_.load(std::memory_order_relaxed);
    if (first || shared == sharers) {
      const auto now = clock::now();
      last_reading_.store(now, std::memory_order_relaxed);
      shared_.store(1, std::memory_order_relaxed);
      return now;
    }
    shared_.store(shared + 1, std::memory_order_relaxed);
    return last_reading_.load(std::memory_order_relaxed);
  }

  // An address that no job can have.
  job* closed() const noexcept { return reinterpret_cast<job*>(const_cast<intake*>(this)); }

  alignas(64) std::atomic<job*> head_{nullptr};
  std::atomic<clock::time_point> last_reading_{};
  std::atomic<unsigned> shared_{0};
};

}  // namespace offgil
