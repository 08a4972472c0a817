// lane_gate.hpp - workers take turns in a lane, and regularly leave it to everybody else.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>

#include "clock.hpp"
#include "lane_sharing.hpp"

namespace offgil {

// What a lane leads to, such as the GIL, has other users: an event loop, other threads. They get it only if a
// worker lets go of it for longer than they take to wake up, and the more workers want it, the later. So one
// worker at a time has the *turn*, and the others wait here, first come first served, without wanting the
// GIL. After every `period` of work in the lane the worker leaves it. If another thread waits, which is not
// always seen, or for the third time, all workers stay out for a `gap`.
//
// The job of the worker that has the turn may have left the lane meanwhile, to wait for something or to
// compute outside. The first in the queue is let in beside it where jobs of that kind are known to do so; and
// takes the turn over where the job's thread uses no CPU time, or has had the turn for longer than
// `patience`.
//
// One gate for all lanes that lead to the same thing. Thread-safe. Only enter() blocks.
class lane_gate {
 public:
  // Less than the 5 ms after which a thread that waits for the GIL interrupts its holder.
  static constexpr std::chrono::microseconds period{3'000};
  // In which a thread that waits for the GIL wakes up and takes it, which takes some 50 us.
  static constexpr std::chrono::microseconds gap{100};
  // Two jobs that compute for longer than this compete for the GIL: none may wait for the other for ever.
  static constexpr std::chrono::milliseconds patience{100};

  // A worker at the gate or in the lane. Owned by the worker, which is the only one to call with it.
  class visitor {
   public:
    // False outside, and where the worker was let in beside another one, or has lost the turn to one that is
    // inside by now.
    bool has_turn() const noexcept { return has_turn_.load(std::memory_order_relaxed); }

   private:
    friend class lane_gate;

    std::atomic<lane_sharing*> kind_of_job_{nullptr};  // the worker writes; who waits for the lane reads

    std::atomic<bool> has_turn_{false};  // written under the gate's mutex
    // Guarded by the gate's mutex:
    visitor* next_ = nullptr;  // in the queue
    std::condition_variable called_;
    bool is_entering_ = false;  // has passed the gate, and waits for what the lane leads to
    clock::time_point turn_began_;
    clockid_t cpu_clock_{};
    visitor* beside_ = nullptr;          // inside when this one passed
    clock::duration cpu_time_beside_{};  // when this one passed, then when it entered
    clock::time_point passed_;
    clock::time_point entered_;
    clock::duration cpu_time_at_gap_{};  // or when it entered
    visitor* next_inside_ = nullptr;

    clock::time_point stay_began_;  // the worker's own
  };

  // Calls `enter_lane()` when it is the visitor's turn, or it is let in beside another one.
  template <class Callable>
  void enter(visitor& self, Callable enter_lane) noexcept {
    wait_for_turn(self);
    const auto begin = clock::now();
    enter_lane();
    has_entered(self, clock::now() - begin);
  }

  // After the visitor has left the lane, for which others than workers wait, or not.
  void leave(visitor& self, bool somebody_waits) noexcept;

  // The visitor is about to wait, outside of the lane, for something else.
  void give_up_turn(visitor& self) noexcept;

  // Before each job in the lane. The kind must live until leave(); null: to try is not worth it.
  void begin_job(visitor& self, lane_sharing* kind) noexcept {
    self.kind_of_job_.store(kind, std::memory_order_relaxed);
    if (kind != nullptr && is_waited_for_.load(std::memory_order_relaxed) && kind->is_likely()) call_first();
  }

  // Whether the visitor has to leave the lane before the next job: for a gap, after a stay of its own during
  // which another one's gap has been, or without the turn. Not where the lane has mostly been others' since
  // the last gap.
  bool is_stay_over(visitor& self, clock::time_point now) noexcept {
    if (is_gap_due(now) && had_others_the_lane(self, now)) return false;
    return !self.has_turn() || is_gap_due(now) || now - self.stay_began_ >= period;
  }

  // Whether workers have to leave the lane before the next job.
  bool is_gap_due(clock::time_point now) const noexcept {
    return now >= next_gap_.load(std::memory_order_relaxed);
  }

 private:
  using lock = std::unique_lock<std::mutex>;

  void wait_for_turn(visitor& self) noexcept;
  bool is_let_in(lock& held, visitor& self, clock::duration& look) noexcept;
  bool is_held_up_beside(lock& held, visitor& self, clock::duration& look) noexcept;
  void pass_beside(visitor& self) noexcept;
  void take_turn(visitor& self) noexcept;
  void has_entered(visitor& self, clock::duration waited) noexcept;
  bool had_others_the_lane(visitor& self, clock::time_point now) noexcept;
  clock::duration cpu_time_since_gap() const noexcept;
  void begin_stay(clock::time_point now) noexcept;
  void remove_from_inside(const visitor& self) noexcept;
  void free_turn_of(visitor& self) noexcept;
  bool is_inside(const visitor* beside) const noexcept;
  bool has_shared(const visitor& inside, const visitor& beside, clock::duration visit) const noexcept;
  bool has_kept_out(const visitor& inside, const visitor& other, clock::duration waited) const noexcept;
  void call_first() noexcept;

  std::mutex mutex_;
  // Guarded by mutex_:
  visitor* holder_ = nullptr;     // of the turn
  visitor* overtaken_ = nullptr;  // still inside, from which holder_ has taken it over
  visitor* passing_ = nullptr;    // beside holder_ or overtaken_: the last one that has not entered yet
  visitor* first_ = nullptr;      // of the queue
  visitor* last_ = nullptr;
  unsigned inside_ = 0;  // or entering
  visitor* first_inside_ = nullptr;
  clock::duration cpu_time_of_those_gone_{};  // since the last gap
  std::uint64_t turns_ = 0;
  clock::time_point empty_since_{};
  clock::time_point closed_until_{};
  clock::time_point stay_began_{};  // at the last gap
  unsigned stays_without_gap_ = 0;

  // Written under mutex_, read by workers between two jobs:
  std::atomic<clock::time_point> next_gap_{clock::time_point::max()};
  std::atomic<bool> is_waited_for_{false};
};

}  // namespace offgil
