// concurrent_channel.hpp - the way of jobs from any thread to a pool, and back as concurrent futures.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

#include "clock.hpp"
#include "completion_queue.hpp"
#include "concurrent_future.hpp"
#include "dispatcher.hpp"
#include "job_list.hpp"
#include "worker_pool.hpp"

namespace offgil::python {

class pool_core;

// One per executor; the pool keeps it until its threads have ended, and lends it to another executor when the
// first is gone and nothing is in flight. With the GIL held, but for push().
//
// What comes back is sorted by who wants to know. A job of a Python callable comes back on the worker that
// has run it and holds the GIL, and ends there. Of a native job, or one that never ran, whoever waits in
// result() is woken; a future that somebody observes goes to a worker that has nothing else to do, or else to
// the dispatcher, who calls its callbacks; any other only needs its memory back, which has time. The
// dispatcher starts when it has somebody to call, or when there have been so many jobs that it pays.
class concurrent_channel final : public completion_sink, private announced {
 public:
  explicit concurrent_channel(pool_core& core);

  pool_core& core() const noexcept { return core_; }
  std::size_t in_flight() const noexcept { return in_flight_; }

  // Of the executor that has it. A new one has an owner.
  bool is_free() const noexcept { return !has_owner_ && in_flight_ == 0; }
  void lend() noexcept { has_owner_ = true; }
  void give_back() noexcept { has_owner_ = false; }

  // Whether the pool has taken the job. While the job is in its hands, it has a reference to its future,
  // which is the channel's business; the caller has one of his own. `block`: waits for room where the pool is
  // full, with the GIL released. Throws what a signal handler raised meanwhile; the job is withdrawn then,
  // unless it runs already.
  worker_pool::admission submit(concurrent_job& j, bool block);

  // Withdraws a job that still waits; its arguments are released at once. False: it runs or has ended.
  bool withdraw(concurrent_job& j) noexcept;

  // Waits until the outcome is there, with the GIL released. False on timeout. Throws what a signal handler
  // raised; RuntimeError instead of a deadlock, see waiting_room; PoolBroken in a forked child.
  bool wait(concurrent_job& j, std::optional<clock::time_point> until);

  // For a wait by other means: guards against the same deadlock. Throws as above.
  std::unique_ptr<waiting_room::absence> absence_for(const concurrent_job& j);

  // In a forked child: nothing that was in flight ever comes back.
  bool was_left_behind_by_fork() const noexcept;

  // Whether the calling thread is one that brings: of the dispatcher's, or inside bring().
  bool brings_here() const noexcept;

  // Ends, on the calling thread, what has come back: all of it, with the callbacks that it has, or only what
  // has nobody to tell.
  void bring() noexcept;
  void collect() noexcept;

  // What is in flight ends when its jobs have, also if nobody submits, or waits, any more.
  void end_by_itself() noexcept;

  // Waits until nothing is in flight, with the GIL released. False on timeout.
  bool wait_until_empty(std::chrono::nanoseconds at_most);

  void push(job& j) noexcept override;

 private:
  // Calls the dispatcher for what has come back.
  class bell final : public waker {
   public:
    bell(concurrent_channel& of, dispatcher::urgency how) noexcept : of_(of), how_(how) {}
    void wake() noexcept override;

   private:
    concurrent_channel& of_;
    dispatcher::urgency how_;
  };

  void on_dispatch() noexcept override;
  bool wait_for_room(concurrent_job& j);
  void get_dispatcher(const concurrent_job& j) noexcept;
  void tell() noexcept;
  void end(concurrent_job& j) noexcept;
  static bool may_be_long(const call_time_estimate& calls) noexcept;
  void end_and_time(concurrent_job& j, call_time_estimate& calls) noexcept;
  void end_on_worker(concurrent_job& j) noexcept;
  void take_place();
  void give_place_back() noexcept;

  pool_core& core_;
  bool has_owner_ = true;
  std::shared_ptr<dispatcher> dispatcher_;
  bell urgently_{*this, dispatcher::urgency::now};
  bell whenever_{*this, dispatcher::urgency::soon};
  completion_queue observed_{urgently_};
  completion_queue unobserved_{whenever_};
  static constexpr unsigned few_native_jobs = 64;
  unsigned native_jobs_left_ = few_native_jobs;  // before the dispatcher starts; then 0
  // Short calls cost less than to read the clock: one in so many is timed.
  static constexpr unsigned calls_per_look = 8;
  unsigned calls_not_timed_ = 0;
  lane_sharing sharing_of_calls_;
  call_time_estimate estimate_of_calls_;  // by the dispatcher, or at leisure
  job_list in_dispatch_;  // have been taken from there, to be ended; who is held up leaves them to others

  std::shared_ptr<pool_core> held_core_;  // while something is in flight
  std::size_t in_flight_ = 0;

  std::mutex empty_mutex_;
  std::condition_variable empty_;
  std::size_t awaiting_empty_ = 0;  // threads
};

}  // namespace offgil::python
