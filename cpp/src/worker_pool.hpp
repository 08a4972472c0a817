// worker_pool.hpp - the threads, and the way of a job through them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "completion_queue.hpp"
#include "cpu_count.hpp"
#include "fork.hpp"
#include "intake.hpp"
#include "job.hpp"
#include "log.hpp"
#include "run_queue.hpp"
#include "span_log.hpp"
#include "stats.hpp"
#include "timer.hpp"
#include "waiting_room.hpp"
#include "worker.hpp"
#include "worker_threads.hpp"

namespace offgil {

// Owns the worker threads and every job between submit() and the push into the job's completion sink.
// All members are thread-safe. None blocks, except the constructor, the destructor and those that say so.
//
// How a worker finds work. A worker without work is *parked*, see worker_threads; when called, it takes jobs
// from the run queue until that is empty. A *searching* worker is one that will look at the queue again
// within one portion of work (or has just been called). A submit calls a parked worker only when nobody is
// searching, and a worker that turns to a long job calls the next one: workers wake one at a time, as the
// backlog warrants.
//
// All of this is decided under one mutex, so that "nothing to do, park" and "push, nobody searches, call one"
// cannot miss each other. Jobs that may wait a little for others pass the mutex by: they collect in the
// intake, as do those that come while a worker is searching. A worker that claims, the next submit through
// the mutex, a flush or, at the latest, the sentinel moves them to the run queue.
class worker_pool final : private worker_threads::guest {
 public:
  struct options {
    unsigned workers = 1;
    std::string name = "offgil";              // threads are called <name>-<n>
    char name_separator = '-';                // or otherwise
    std::size_t max_pending = 0;              // jobs that may wait; 0: any number
    int nice = 0;                             // added to the threads' niceness
    std::function<std::size_t()> stack_size;  // see thread::attributes; asked as each thread starts
    std::chrono::nanoseconds spin{0};         // how long an idle worker looks for work before it parks
    std::function<void()> on_thread_start;    // called on each thread first; must not throw
    lane* start_in = nullptr;                 // where each worker calls on_start before its first job
    std::function<void()> on_start;           // must not throw
  };

  // Starts no thread yet: a job that finds none idle does.
  explicit worker_pool(options with);

  // Lets accepted jobs end and joins. In a forked child, where the threads are not, a pool cannot be
  // destroyed: leak it.
  ~worker_pool() override;
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  enum class admission { accepted, in_line, full, closed };
  enum class when_full { refuse, wait_in_line };
  enum class wake_up { now, may_wait };

  // Takes the job over if it is `accepted`, or if it stands `in_line` until one of the waiting jobs starts;
  // otherwise it stays the caller's. A job in line is handed back `refused` when the pool closes first.
  //
  // `may_wait`: any worker that is awake may take the job, but none need be called yet. The caller promises
  // to call flush_wake_up() soon; if it does not, a timer does within about a millisecond.
  //
  // Throws as get_ready() does, and the job stays the caller's; after get_ready() it does not throw.
  admission submit(job& j, when_full policy = when_full::refuse, wake_up wake = wake_up::now);
  void flush_wake_up() noexcept;

  // Makes sure of a thread for the next job. Throws std::system_error where none has started and the first
  // one cannot. Where a later one cannot, those that there are do the work.
  void get_ready();
  bool has_started() const noexcept { return threads_.has_started(); }

  // Called here for every job that is refused, and by who answers `closed` in the pool's place.
  void count_rejection() noexcept { rejected_.fetch_add(1, std::memory_order_relaxed); }

  // Waits until a job that was put in line has left it: it is accepted, refused or withdrawn. False on
  // timeout. The caller keeps the job from being freed.
  bool wait_until_admitted(const job& j, std::chrono::nanoseconds at_most);

  // Withdraws a job that was submitted. True: it never runs, and is handed back. False: it runs or has run;
  // if `abandon`, it is counted as cancelled when it ends. For the job's consumer only: nobody may free the
  // job meanwhile.
  bool cancel(job& j, bool abandon = true) noexcept;

  // Withdraws every job that still waits. Returns how many.
  std::size_t cancel_waiting() noexcept;

  // The same for those of one destination, or any if null; but what a worker has claimed, or has been called
  // for, counts as running.
  std::size_t cancel_unclaimed(const completion_sink* only) noexcept;

  // The workers are of no use any more: closes, and refuses what waits.
  void break_down() noexcept;

  // Hands `watcher` back, without running it, as soon as no accepted job waits or runs and all of them have
  // been handed back.
  void notify_when_idle(job& watcher) noexcept;

  // Waits until no job is left that was submitted at that time or before: all have ended, and have been
  // handed back. Later ones may go on. False on timeout. A second call must not ask for an earlier time.
  bool wait_until_ended(clock::time_point submitted_by, std::chrono::nanoseconds at_most);

  // From now on submit() answers `closed`, and the threads end when the accepted jobs have. Idempotent.
  void close() noexcept;
  bool is_closed() const noexcept;

  // Threads that wait for jobs of this pool.
  waiting_room& waiters() noexcept { return waiters_; }

  // After close(): waits until every thread has run its last instruction for this pool, and joins them. False
  // on timeout.
  bool wait_until_finished(std::chrono::nanoseconds at_most);
  bool has_finished() const noexcept { return threads_.have_ended(); }  // but perhaps not been joined

  bool is_on_own_thread() const noexcept;

  // For a job that is about to wait for something outside of its lane: another worker may have the lane
  // meanwhile, and what this one has claimed behind the job goes to others. No effect on a thread that is not
  // a worker, like the next.
  static void expect_wait() noexcept;

  // The same where code is about to be called that may wait, in the lane or outside. How it shares the lane
  // is learned for itself. `of_calls` must live until the worker leaves the lane.
  static void expect_calls(lane_sharing& of_calls) noexcept;

  // For a sink, while a worker hands a job back: has the worker enter the lane, which it leaves again as it
  // does after a job. False on any other thread. At leisure: only if it has nothing else to do and another
  // one is there for what comes meanwhile.
  bool enter_lane(lane& wanted) noexcept;
  bool enter_lane_at_leisure(lane& wanted) noexcept;

  bool was_left_behind_by_fork() const noexcept { return threads_.has_started() && born_in_.is_over(); }

  unsigned workers() const noexcept { return workers_.most(); }
  std::size_t max_pending() const noexcept { return max_pending_; }
  pool_stats stats() const;

  // From here on each worker notes when its jobs were submitted, began and ended, of up to `limit` jobs. Not
  // noting costs one load per job, noting about as much as two clock readings.
  void start_trace(std::size_t limit);
  std::vector<span_log::content> stop_trace();  // by worker; see trace_file.hpp

  // The jobs that run at the moment. For who can make sure that no job is freed meanwhile, as its consumers
  // can.
  std::vector<const job*> running() const;

 private:
  void before_thread_start() override;
  void on_thread_start(unsigned index) noexcept override;
  void on_call() noexcept override { pump(); }
  void on_thread_end() noexcept override;
  void on_end() noexcept override;

  void pump() noexcept;
  run_queue::claim claim_or_park(worker& self, bool counted) noexcept;
  void run(worker& self, job_list jobs) noexcept;
  void give_back(worker& self, job_list portion) noexcept;
  void run_one(worker& self, job& j, clock::time_point begin) noexcept;
  void withdraw_portion(worker& self, job_list portion) noexcept;
  template <class Choice>
  std::size_t withdraw(Choice choose) noexcept;
  void sweep() noexcept;
  job_list take_waiting(refusal why) noexcept;
  job_list take_rest(worker& of) noexcept;
  std::size_t count_withdrawn(const job_list& jobs) noexcept;
  job_list take_idle_watchers() noexcept;
  void start_searching(worker& self) noexcept;
  void stop_searching(worker& self) noexcept;
  void release_claim(worker& self) noexcept;
  bool has_leisure(worker& self) noexcept;
  void note_portion(worker& self, const job_list& claimed) noexcept;
  bool has_awaited() noexcept;
  bool is_idle() const noexcept;
  void let_threads_end() noexcept;
  void look_for_work_a_while() noexcept;

  bool take_unlocked(job& j, wake_up wake) noexcept;
  void collect() noexcept;
  void enqueue(job_list taken_in) noexcept;
  bool has_room() const noexcept;
  void accept(job& j);
  job_list admit_from_line() noexcept;
  void serve_line() noexcept;
  bool is_somebody_searching() const noexcept;
  bool reserve_worker_for_backlog() noexcept;
  bool reserve_parked_worker() noexcept;

  void tell(log::level at, std::string_view what, std::size_t count, std::string_view whom) const noexcept;

  void get_sentinel() noexcept;
  void sentinel_tick() noexcept;
  struct stuck {
    bool any_searching = false;  // workers that counted so
    std::size_t recovered = 0;   // jobs
    bool watched = false;        // there are workers to watch
  };
  stuck recover_stuck_portions() noexcept;
  std::uint64_t started() const noexcept;

  const std::string name_;
  const std::size_t max_pending_;
  const std::chrono::nanoseconds spin_;
  const std::function<void()> on_thread_start_;
  lane* const start_in_;
  const std::function<void()> on_start_;
  process_generation born_in_;  // or its first thread was started in

  waiting_room waiters_;
  intake intake_;

  alignas(64) mutable std::mutex mutex_;
  // Guarded by mutex_:
  run_queue queue_;
  job_list line_;  // jobs that wait for room in queue_
  job_list idle_watchers_;
  unsigned parked_ = 0;
  unsigned withdrawals_under_way_ = 0;        // calls of cancel_waiting() that have jobs yet to hand back
  refusal withdrawn_as_ = refusal::none;      // by the last who withdrew all
  std::size_t traced_jobs_ = 0;               // of each worker, at most
  std::size_t withdrawn_since_sweep_ = 0;     // one by one, by cancel()
  std::condition_variable admitted_;          // jobs have left the line
  std::optional<clock::time_point> awaited_;  // jobs submitted by then, by wait_until_ended()
  std::condition_variable awaited_may_have_ended_;

  // Written under mutex_, read anywhere:
  std::atomic<std::uint64_t> submitted_{0};  // without what the intake holds
  std::atomic<std::uint64_t> cancelled_waiting_{0};
  std::atomic<std::uint64_t> rejected_{0};
  std::atomic<std::uint64_t> late_calls_{0};
  std::atomic<std::uint64_t> withdrawals_begun_{0};  // of all that wait: cancel_waiting(), break_down()
  std::atomic<unsigned> searching_{0};
  std::atomic<unsigned> starting_{0};  // of those that have been called: inside on_start
  std::atomic<bool> sentinel_runs_{false};
  std::atomic<bool> closed_{false};

  // Hints, read without the mutex and never relied upon alone:
  std::atomic<std::size_t> line_length_{0};
  std::atomic<std::size_t> queue_length_{0};
  std::atomic<int> spin_credit_{4};
  std::atomic<unsigned> spins_skipped_{0};
  std::atomic<bool> idle_is_awaited_{false};
  std::atomic<bool> is_traced_{false};

  std::uint64_t submitted_at_last_tick_ = 0;  // the sentinel's own

  worker_list workers_;
  // By how many a pool has turned out to be worth a timer.
  std::atomic<std::uint64_t> jobs_before_sentinel_{64};
  std::atomic<bool> has_sentinel_{false};
  std::mutex making_sentinel_;
  std::optional<timer> sentinel_timer_;  // made once, under that mutex; stopped by the last thread
  worker_threads threads_;               // last: its threads use the above
};

}  // namespace offgil
