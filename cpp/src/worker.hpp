// worker.hpp - what a worker pool keeps for each of its threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "job.hpp"
#include "span_log.hpp"
#include "stats.hpp"

namespace offgil {

class worker_pool;

// Owned by the pool. The thread writes; others read, and may take over `rest`.
struct alignas(64) worker {
  // Reserves more than there are lanes: enter() is called where nothing may be thrown.
  worker(const worker_pool& of, unsigned number) : pool(&of), index(number) { lanes_entered.reserve(8); }

  const worker_pool* pool;
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
  std::uint64_t started_at_last_tick = 0;  // jobs, when somebody last looked whether it is still at the same
  std::uint64_t withdrawals_before_claim = 0;  // the thread reads it without the mutex, too

  // The thread's own:
  lane* inside = nullptr;
  std::vector<lane*> lanes_entered;

  // Returns how long it took, where another worker was in the lane.
  std::optional<clock::duration> enter(lane* wanted) {
    if (wanted == inside) return std::nullopt;
    leave_lane();
    if (wanted == nullptr) return std::nullopt;
    if (std::find(lanes_entered.begin(), lanes_entered.end(), wanted) == lanes_entered.end())
      lanes_entered.push_back(wanted);
    inside = wanted;
    if (wanted->visitors.fetch_add(1, std::memory_order_relaxed) == 0) {
      wanted->enter(index);
      return std::nullopt;
    }
    const auto begin = clock::now();
    wanted->enter(index);
    return clock::now() - begin;
  }

  void leave_lane() noexcept {
    if (inside == nullptr) return;
    inside->leave();
    inside->visitors.fetch_sub(1, std::memory_order_relaxed);
    inside = nullptr;
  }
};

}  // namespace offgil
