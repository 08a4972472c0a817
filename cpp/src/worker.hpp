// worker.hpp - what a worker pool keeps for each of its threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "job.hpp"
#include "span_log.hpp"
#include "stats.hpp"

namespace offgil {

class worker_pool;

// Owned by the pool. The thread writes; others read, and may take over `rest`.
struct alignas(64) worker {
  // Reserves more than there are lanes: enter() is called where nothing may be thrown.
  worker(worker_pool& of, unsigned number) : pool(&of), index(number) { lanes_entered.reserve(8); }

  worker_pool* pool;
  unsigned index;

  // The jobs that follow the running one in the claimed portion. Whoever exchanges it for null owns them:
  // the worker itself when it gets there, or the sentinel when the running job takes longer than expected.
  std::atomic<job*> rest{nullptr};

  std::atomic<const job*> current{nullptr};  // null between jobs
  std::atomic<bool> is_busy{false};          // with a claimed portion; also while its jobs are handed back
  worker_counters counters;
  span_log spans;

  // Guarded by the pool's mutex:
  bool searching = false;
  clock::time_point oldest_claimed = clock::time_point::max();  // of its portion: when it was submitted
  std::uint64_t started_at_last_tick = 0;  // jobs, when somebody last looked whether it is still at the same
  std::uint64_t withdrawals_before_claim = 0;  // the thread reads it without the mutex, too

  // The thread's own:
  lane* inside = nullptr;
  lane_gate::visitor visit;  // of the gate of `inside`
  std::vector<lane*> lanes_entered;

  // Whether it was somewhere else before; then it may have waited.
  bool enter(lane* wanted) noexcept {
    if (wanted == inside) return false;
    leave_lane();
    if (wanted == nullptr) return true;
    if (std::find(lanes_entered.begin(), lanes_entered.end(), wanted) == lanes_entered.end())
      lanes_entered.push_back(wanted);
    wanted->gate.enter(visit, [this, wanted] { wanted->enter(index); });
    inside = wanted;
    return true;
  }

  void leave_lane() noexcept {
    if (inside == nullptr) return;
    lane& left = *std::exchange(inside, nullptr);
    const bool somebody_waits = left.leave();
    left.gate.leave(visit, somebody_waits);
  }

  // Whether it has to leave the lane that it is in, even if there is more to do.
  bool is_stay_over(clock::time_point now) noexcept {
    return inside != nullptr && inside->gate.is_stay_over(visit, now);
  }
};

// The workers of a pool, made one by one, as their threads are. Whoever walks through them, without a lock,
// meets those that have been made.
class worker_list {
 public:
  explicit worker_list(unsigned most)
      : most_(most), all_(std::make_unique<std::unique_ptr<worker>[]>(most)) {}

  // By one thread at a time. Throws std::bad_alloc.
  worker& make_next(worker_pool& of) {
    const unsigned number = made_.load(std::memory_order_relaxed);
    all_[number] = std::make_unique<worker>(of, number);
    made_.store(number + 1, std::memory_order_release);
    return *all_[number];
  }

  worker& operator[](unsigned number) const noexcept { return *all_[number]; }
  unsigned most() const noexcept { return most_; }

  const std::unique_ptr<worker>* begin() const noexcept { return all_.get(); }
  const std::unique_ptr<worker>* end() const noexcept {
    return all_.get() + made_.load(std::memory_order_acquire);
  }

 private:
  const unsigned most_;
  const std::unique_ptr<std::unique_ptr<worker>[]> all_;
  std::atomic<unsigned> made_{0};
};

}  // namespace offgil
