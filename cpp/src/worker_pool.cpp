// worker_pool.cpp - the threads, and the way of a job through them.
#include "worker_pool.hpp"

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "worker.hpp"

namespace offgil {
namespace {

thread_local worker* this_worker = nullptr;

constexpr std::chrono::milliseconds sentinel_period{1};

// Withdrawn jobs that nobody looks for.
constexpr std::size_t few_withdrawn = 1024;

void hand_back(job_list jobs) noexcept {
  while (!jobs.empty()) {
    job& j = jobs.pop_front();
    j.destination->push(j);
  }
}

job_list just(job& j) noexcept {
  job_list one;
  one.push_back(j);
  return one;
}

bool was_withdrawn(const job& j) noexcept {
  return j.state.load(std::memory_order_acquire) == job_state::cancelled;
}

// A spinning worker must not slow its hyper-thread down.
void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

worker_pool::worker_pool(options with)
    : name_(with.name),
      max_pending_(with.max_pending),
      // Spinning workers on a CPU that somebody else needs only steal from him.
      spin_(with.spin.count() > 0 && with.workers > usable_cpu_count() ? std::chrono::nanoseconds{0}
                                                                       : with.spin),
      on_thread_start_(std::move(with.on_thread_start)),
      start_in_(with.start_in),
      on_start_(std::move(with.on_start)),
      waiters_(with.workers),
      parked_(with.workers),
      workers_(with.workers),
      threads_(with.workers, with.name + with.name_separator, with.nice, std::move(with.stack_size), *this) {
  tell(log::level::info, "made with", workers(), "workers");
}

worker_pool::~worker_pool() { close(); }

// Under mutex_, so that a trace that begins meanwhile has it.
void worker_pool::before_thread_start() {
  const std::lock_guard lock(mutex_);
  worker& made = workers_.make_next(*this);
  if (is_traced_.load(std::memory_order_relaxed)) made.spans.open(traced_jobs_);
}

void worker_pool::on_thread_start(unsigned index) noexcept {
  this_worker = &workers_[index];
  if (on_thread_start_) on_thread_start_();
  if (!on_start_) return;
  // Whoever has called this thread takes it for one that searches.
  starting_.fetch_add(1, std::memory_order_seq_cst);
  flush_wake_up();
  this_worker->enter(start_in_);
  on_start_();
  this_worker->leave_lane();
  starting_.fetch_sub(1, std::memory_order_seq_cst);
}

void worker_pool::on_thread_end() noexcept {
  for (lane* each : this_worker->lanes_entered)
    each->retire();  // may run code that asks whose thread this is
  this_worker = nullptr;
}

// Before threads_ goes: a tick that is under way may be calling a worker.
void worker_pool::on_end() noexcept {
  if (has_sentinel_.load(std::memory_order_acquire)) sentinel_timer_->stop();
}

worker_pool::admission worker_pool::submit(job& j, when_full policy, wake_up wake) {
  if (take_unlocked(j, wake)) return admission::accepted;
  get_ready();
  j.submitted_at = clock::now();
  job_list gone;
  bool call = false;
  admission answer = admission::accepted;
  {
    const std::lock_guard lock(mutex_);
    if (closed_.load(std::memory_order_relaxed)) {
      count_rejection();
      return admission::closed;
    }
    // Nobody overtakes those who already stand in line.
    if (max_pending_ != 0 && (!line_.empty() || !has_room())) {
      if (policy == when_full::refuse) {
        count_rejection();
        return admission::full;
      }
      queue_.open_level(j.priority);  // may throw; letting it in from the line may not
      line_.push_back(j);
      line_length_.store(line_.size(), std::memory_order_relaxed);
      // A worker may have started a job after has_room() looked, before it could see the line. Either it
      // sees the line now, or we see its start: see run_one().
      std::atomic_thread_fence(std::memory_order_seq_cst);
      gone = admit_from_line();
    } else {
      accept(j);
    }
    if (!j.accepted) answer = admission::in_line;
    call = reserve_worker_for_backlog();
  }
  hand_back(std::move(gone));
  if (call) threads_.call();
  return answer;
}

// The first thread is started by the job that needs it; the sentinel when there have been so many that it
// pays. Until then, workers claim one job at a time, and do not count as searching while they run it.
void worker_pool::get_ready() {
  if (!threads_.has_started() && !is_closed()) {
    if (born_in_.is_over()) born_in_ = process_generation();
    threads_.start_first();
  }
  if (submitted_.load(std::memory_order_relaxed) >= jobs_before_sentinel_.load(std::memory_order_relaxed))
    get_sentinel();
}

void worker_pool::flush_wake_up() noexcept {
  bool call = false;
  {
    const std::lock_guard lock(mutex_);
    collect();
    call = reserve_worker_for_backlog();
  }
  if (call) threads_.call();
}

bool worker_pool::wait_until_admitted(const job& j, std::chrono::nanoseconds at_most) {
  std::unique_lock lock(mutex_);
  return admitted_.wait_for(lock, at_most,
                            [&j] { return j.accepted || j.refused != refusal::none || was_withdrawn(j); });
}

bool worker_pool::cancel(job& j, bool abandon) noexcept {
  if (!(abandon ? j.cancel() : j.withdraw())) return false;
  bool makes_room = false;
  bool are_many = false;
  {
    const std::lock_guard lock(mutex_);
    makes_room = j.accepted && max_pending_ != 0;  // one in the line leaves no trace
    if (j.accepted) cancelled_waiting_.fetch_add(1, std::memory_order_release);
    const std::size_t linked = queue_.size() + line_.size() + idle_watchers_.size();
    are_many = ++withdrawn_since_sweep_ > std::max(few_withdrawn, linked / 2);
  }
  if (makes_room) serve_line();
  if (are_many) sweep();
  return true;
}

// A withdrawn job stays where it is linked until a worker comes by, which takes as long as jobs do. So that
// they do not pile up meanwhile, they are looked for when they may be more than the others.
void worker_pool::sweep() noexcept {
  withdraw([this] {
    withdrawn_since_sweep_ = 0;
    collect();
    job_list found = queue_.take_if(was_withdrawn);
    found.push_back(line_.take_if(was_withdrawn));
    found.push_back(idle_watchers_.take_if(was_withdrawn));
    line_length_.store(line_.size(), std::memory_order_relaxed);
    return found;
  });
}

std::size_t worker_pool::cancel_waiting() noexcept {
  return withdraw([this] { return take_waiting(refusal::none); });
}

std::size_t worker_pool::cancel_unclaimed(const completion_sink* only) noexcept {
  return withdraw([this, only] {
    collect();
    for (const auto& each : workers_) queue_.push_front(take_rest(*each));
    return queue_.take_all(only, searching_.load(std::memory_order_relaxed));
  });
}

void worker_pool::break_down() noexcept {
  close();
  withdraw([this] { return take_waiting(refusal::broken); });
}

// Under mutex_, like the next.
job_list worker_pool::take_waiting(refusal why) noexcept {
  withdrawn_as_ = why;
  // What a worker has claimed and not laid out yet, it withdraws itself: see run().
  withdrawals_begun_.fetch_add(1, std::memory_order_seq_cst);
  collect();
  for (const auto& each : workers_)
    queue_.push_front(job_list(each->rest.exchange(nullptr, std::memory_order_seq_cst)));
  return queue_.take_all();
}

// What a worker has claimed behind the job that it is at. Nothing if that has been withdrawn, which the
// worker is about to do itself: in the queue it would run. Under mutex_.
job_list worker_pool::take_rest(worker& of) noexcept {
  if (of.withdrawals_before_claim != withdrawals_begun_.load(std::memory_order_relaxed)) return {};
  return job_list(of.rest.exchange(nullptr, std::memory_order_acq_rel));
}

template <class Choice>
std::size_t worker_pool::withdraw(Choice choose) noexcept {
  job_list withdrawn;
  job_list told;
  std::size_t count = 0;
  bool call = false;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    withdrawn = choose();
    queue_length_.store(queue_.size(), std::memory_order_relaxed);
    call = reserve_worker_for_backlog();  // for others, who stood behind a job that runs
    count = count_withdrawn(withdrawn);
    if (!withdrawn.empty()) ++withdrawals_under_way_;
  }
  if (call) threads_.call();
  if (withdrawn.empty()) return 0;
  hand_back(std::move(withdrawn));
  serve_line();
  {
    const std::lock_guard lock(mutex_);
    --withdrawals_under_way_;
    awaited_may_have_ended_.notify_all();
    if (is_idle()) {
      told = take_idle_watchers();
      over = closed_.load(std::memory_order_relaxed);
    }
  }
  hand_back(std::move(told));
  if (over) let_threads_end();
  return count;
}

// Under mutex_: before that, nobody may see them end.
std::size_t worker_pool::count_withdrawn(const job_list& jobs) noexcept {
  std::size_t count = 0;
  for (job* j = jobs.front(); j != nullptr; j = j->next) {
    if (!j->withdraw()) continue;  // its consumer came before us
    j->refused = withdrawn_as_;
    ++count;
  }
  cancelled_waiting_.fetch_add(count, std::memory_order_release);
  return count;
}

void worker_pool::notify_when_idle(job& watcher) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!is_idle()) {
      idle_watchers_.push_back(watcher);
      idle_is_awaited_.store(true, std::memory_order_relaxed);  // nobody spins now
      return;
    }
  }
  watcher.destination->push(watcher);
}

bool worker_pool::wait_until_ended(clock::time_point submitted_by, std::chrono::nanoseconds at_most) {
  flush_wake_up();
  std::unique_lock lock(mutex_);
  awaited_ = submitted_by;
  return awaited_may_have_ended_.wait_for(lock, at_most, [this] { return !has_awaited(); });
}

void worker_pool::close() noexcept {
  job_list refused;
  bool call = false;
  bool over = false;
  std::size_t waiting = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closed_.exchange(true, std::memory_order_relaxed)) return;
    enqueue(intake_.close());
    refused = std::move(line_);
    line_length_.store(0, std::memory_order_relaxed);
    for (job* j = refused.front(); j != nullptr; j = j->next) {
      j->refused = refusal::closed;
      if (!was_withdrawn(*j)) count_rejection();
    }
    call = reserve_worker_for_backlog();
    over = is_idle();
    waiting = queue_.size();
  }
  admitted_.notify_all();
  tell(log::level::info, "closed with", waiting, "jobs waiting");
  hand_back(std::move(refused));
  if (call) threads_.call();
  if (over) let_threads_end();
}

// Closed and idle is a state that nothing leads out of, so this is called once: by close(), by the worker
// that parks last, or by the last cancel_waiting() that found something. Before that, a worker that has been
// called but is not awake yet must find its thread.
void worker_pool::let_threads_end() noexcept { threads_.let_end(); }

bool worker_pool::is_closed() const noexcept { return closed_.load(std::memory_order_relaxed); }

bool worker_pool::wait_until_finished(std::chrono::nanoseconds at_most) {
  return threads_.wait_until_ended(at_most);
}

bool worker_pool::is_on_own_thread() const noexcept {
  return this_worker != nullptr && this_worker->pool == this;
}

void worker_pool::expect_wait() noexcept {
  // A job may have forked: the gate is its parent's.
  if (this_worker == nullptr || this_worker->pool->was_left_behind_by_fork()) return;
  if (this_worker->inside != nullptr) this_worker->inside->gate.give_up_turn(this_worker->visit);
  this_worker->pool->release_claim(*this_worker);
}

void worker_pool::expect_calls(lane_sharing& of_calls) noexcept {
  if (this_worker == nullptr || this_worker->pool->was_left_behind_by_fork()) return;
  if (this_worker->inside != nullptr) this_worker->inside->gate.begin_job(this_worker->visit, &of_calls);
  this_worker->pool->release_claim(*this_worker);
}

bool worker_pool::enter_lane(lane& wanted) noexcept {
  if (!is_on_own_thread() || was_left_behind_by_fork()) return false;
  release_claim(*this_worker);
  this_worker->enter(&wanted);
  return true;
}

bool worker_pool::enter_lane_at_leisure(lane& wanted) noexcept {
  if (!is_on_own_thread() || was_left_behind_by_fork() || !has_leisure(*this_worker)) return false;
  this_worker->enter(&wanted);
  return true;
}

// It does not count as searching any more then.
bool worker_pool::has_leisure(worker& self) noexcept {
  if (self.rest.load(std::memory_order_relaxed) != nullptr || !intake_.empty() ||
      queue_length_.load(std::memory_order_relaxed) != 0)
    return false;
  const std::lock_guard lock(mutex_);
  if (parked_ == 0) return false;
  stop_searching(self);
  if (queue_.empty()) return true;
  start_searching(self);
  return false;
}

void worker_pool::release_claim(worker& self) noexcept {
  bool call = false;
  {
    const std::lock_guard lock(mutex_);
    stop_searching(self);
    queue_.push_front(take_rest(self));
    queue_length_.store(queue_.size(), std::memory_order_relaxed);
    call = reserve_worker_for_backlog();
  }
  if (call) threads_.call();
}

pool_stats worker_pool::stats() const {
  pool_stats seen;
  seen.worker_busy.reserve(workers());
  // What can be admitted is fixed meanwhile: so no picture shows more jobs waiting than may.
  std::unique_lock lock(mutex_, std::defer_lock);
  if (!was_left_behind_by_fork()) lock.lock();  // in a forked child it may be locked for ever
  // Withdrawals are read first, then ends, starts, and submissions, each published after the one that follows
  // here (the writers release, we acquire): whatever happens meanwhile, no difference below can be negative.
  const std::uint64_t cancelled_waiting = cancelled_waiting_.load(std::memory_order_acquire);
  std::uint64_t begun = 0;
  std::uint64_t ended_cancelled = 0;
  for (const auto& each : workers_) {
    const worker_counters::tally jobs = each->counters.read();
    begun += jobs.started;
    seen.completed += jobs.completed;
    seen.failed += jobs.failed;
    ended_cancelled += jobs.cancelled;
    const auto run_time = each->counters.run_time.read();
    seen.worker_busy.push_back(run_time.sum);
    seen.run_time += run_time;
    seen.wait_time += each->counters.wait_time.read();
  }
  seen.worker_busy.resize(workers());
  seen.submitted = submitted_.load(std::memory_order_acquire) + intake_.size();
  seen.cancelled = ended_cancelled + cancelled_waiting;
  seen.running = begun - seen.completed - seen.failed - ended_cancelled;
  seen.pending = seen.submitted - begun - cancelled_waiting;
  seen.late_calls = late_calls_.load(std::memory_order_relaxed);
  seen.rejected = rejected_.load(std::memory_order_relaxed);
  return seen;
}

void worker_pool::start_trace(std::size_t limit) {
  const std::lock_guard lock(mutex_);
  traced_jobs_ = limit;
  for (const auto& each : workers_) each->spans.open(limit);
  is_traced_.store(true, std::memory_order_relaxed);
}

std::vector<span_log::content> worker_pool::stop_trace() {
  const std::lock_guard lock(mutex_);  // a thread may start meanwhile
  is_traced_.store(false, std::memory_order_relaxed);
  std::vector<span_log::content> by_worker;
  by_worker.reserve(workers());
  for (const auto& each : workers_) by_worker.push_back(each->spans.close());
  return by_worker;
}

std::vector<const job*> worker_pool::running() const {
  std::vector<const job*> found;
  for (const auto& each : workers_)
    if (const job* current = each->current.load(std::memory_order_acquire)) found.push_back(current);
  return found;
}

// For an operator: one line, and nothing unless it is wanted.
void worker_pool::tell(log::level at, std::string_view what, std::size_t count,
                       std::string_view whom) const noexcept {
  if (!log::enabled(at)) return;
  try {
    std::string line = "pool '" + name_ + "' ";
    line.append(what).append(" ").append(std::to_string(count)).append(" ").append(whom);
    log::write(at, line);
  } catch (const std::bad_alloc&) {  // as for any line that cannot be written
  }
}

// ---- a worker's way ----

// Entered as a searching worker: whoever called it has counted it so.
void worker_pool::pump() noexcept {
  worker& self = *this_worker;
  bool counted = true;
  for (;;) {
    run_queue::claim portion = claim_or_park(self, std::exchange(counted, false));
    if (portion.jobs.empty()) return;
    run(self, std::move(portion.jobs));
  }
}

run_queue::claim worker_pool::claim_or_park(worker& self, bool counted) noexcept {
  std::unique_lock lock(mutex_);
  if (counted) self.searching = true;
  start_searching(self);
  if (queue_.empty() && intake_.empty() && (self.inside != nullptr || spin_.count() > 0)) {
    lock.unlock();
    self.leave_lane();
    if (spin_.count() > 0) look_for_work_a_while();
    lock.lock();
  }
  collect();
  if (queue_.empty()) stop_searching(self);
  if (queue_.empty()) {
    note_portion(self, {});
    ++parked_;
    const bool closed = closed_.load(std::memory_order_relaxed);
    const bool start = !closed && has_sentinel_.load(std::memory_order_acquire) &&
                       !sentinel_runs_.exchange(true, std::memory_order_relaxed);
    const bool idle = is_idle();
    job_list told = idle ? take_idle_watchers() : job_list();
    lock.unlock();
    if (start) sentinel_timer_->expire_after(sentinel_period);
    hand_back(std::move(told));
    if (idle && closed) let_threads_end();
    return {};
  }
  start_searching(self);
  const bool is_watched = has_sentinel_.load(std::memory_order_acquire);
  run_queue::claim portion = is_watched ? queue_.take() : queue_.take_one();
  note_portion(self, portion.jobs);
  queue_length_.store(queue_.size(), std::memory_order_relaxed);
  self.withdrawals_before_claim = withdrawals_begun_.load(std::memory_order_relaxed);
  if (!portion.is_short) stop_searching(self);
  const unsigned others_searching = searching_.load(std::memory_order_relaxed) - (self.searching ? 1 : 0);
  const bool call = others_searching == 0 && !queue_.empty() &&
                    (!self.searching || queue_.is_worth_another_worker()) && reserve_parked_worker();
  // Who goes on counting as searching while it runs something, or has jobs standing behind that, must be
  // watched: the estimate may be wrong.
  const bool start = portion.is_short && !sentinel_runs_.exchange(true, std::memory_order_relaxed);
  lock.unlock();
  if (call) threads_.call();
  if (start) sentinel_timer_->expire_after(sentinel_period);
  return portion;
}

// Under mutex_. Jobs claimed before somebody awaits any for the first time count as awaited: they are older.
void worker_pool::note_portion(worker& self, const job_list& claimed) noexcept {
  self.oldest_claimed = claimed.empty() || awaited_ ? clock::time_point::max() : clock::time_point::min();
  if (!awaited_) return;
  for (const job* j = claimed.front(); j != nullptr; j = j->next)
    self.oldest_claimed = std::min(self.oldest_claimed, j->submitted_at);
  awaited_may_have_ended_.notify_all();
}

// Under mutex_.
bool worker_pool::has_awaited() noexcept {
  collect();
  return withdrawals_under_way_ != 0 || queue_.has_from(*awaited_) ||
         std::any_of(workers_.begin(), workers_.end(),
                     [this](const auto& each) { return each->oldest_claimed <= *awaited_; });
}

void worker_pool::start_searching(worker& self) noexcept {
  if (!std::exchange(self.searching, true)) searching_.fetch_add(1, std::memory_order_relaxed);
}

// Who has seen it searching has left a job to it.
void worker_pool::stop_searching(worker& self) noexcept {
  if (!std::exchange(self.searching, false)) return;
  searching_.fetch_sub(1, std::memory_order_seq_cst);
  collect();
}

job_list worker_pool::take_idle_watchers() noexcept {
  idle_is_awaited_.store(false, std::memory_order_relaxed);
  return std::move(idle_watchers_);
}

bool worker_pool::is_idle() const noexcept {
  return queue_.empty() && intake_.empty() && parked_ == workers() && withdrawals_under_way_ == 0;
}

// Stays in the lane when all have run: the next portion may be of the same.
void worker_pool::run(worker& self, job_list jobs) noexcept {
  job* next = jobs.release();
  self.is_busy.store(true, std::memory_order_relaxed);
  while (next != nullptr) {
    const auto now = clock::now();
    if (self.is_stay_over(now)) {
      self.leave_lane();
      give_back(self, job_list(next));
      break;
    }
    job& j = *next;
    // From here on the rest may be taken over, by the sentinel or a withdrawal. A withdrawal that came before
    // found nothing, and is seen here.
    self.rest.store(j.next, std::memory_order_seq_cst);
    if (withdrawals_begun_.load(std::memory_order_seq_cst) == self.withdrawals_before_claim)
      run_one(self, j, now);
    else
      withdraw_portion(self, just(j));
    next = self.rest.exchange(nullptr, std::memory_order_acquire);
  }
  if (self.is_stay_over(clock::now())) self.leave_lane();
  self.is_busy.store(false, std::memory_order_relaxed);
}

// Queues it again, in its old place; unless all that waited has been withdrawn meanwhile.
void worker_pool::give_back(worker& self, job_list portion) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (withdrawals_begun_.load(std::memory_order_relaxed) == self.withdrawals_before_claim) {
      queue_.push_front(std::move(portion));
      queue_length_.store(queue_.size(), std::memory_order_relaxed);
      return;
    }
  }
  withdraw_portion(self, std::move(portion));
}

void worker_pool::withdraw_portion(worker& self, job_list portion) noexcept {
  {
    const std::lock_guard lock(mutex_);
    portion.push_back(job_list(self.rest.exchange(nullptr, std::memory_order_acquire)));
    count_withdrawn(portion);
  }
  hand_back(std::move(portion));
  if (max_pending_ != 0) serve_line();
}

void worker_pool::run_one(worker& self, job& j, clock::time_point begin) noexcept {
  job_state expected = job_state::waiting;
  if (!j.state.compare_exchange_strong(expected, job_state::running, std::memory_order_acq_rel)) {
    j.destination->push(j);  // cancelled, and counted by who cancelled it
    return;
  }
  self.counters.count_start();
  if (max_pending_ != 0) {
    // The counterpart of the fence in submit().
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (line_length_.load(std::memory_order_relaxed) != 0) serve_line();
  }
  job_kind& kind = *j.kind;
  self.current.store(&j, std::memory_order_release);
  if (self.enter(kind.in_lane())) begin = clock::now();
  if (self.inside != nullptr)
    self.inside->gate.begin_job(self.visit, kind.is_worth_sharing() ? &kind.sharing : nullptr);

  std::optional<job_span> span;
  if (is_traced_.load(std::memory_order_relaxed)) kind.describe(j, span.emplace().name);

  j.succeeded = kind.run(j);
  const auto end = clock::now();

  // The job's kind may die with the job as soon as it is handed back: nothing touches it after that. The end
  // is counted before: who has the result must find it in stats().
  kind.estimate.learn(end - begin);
  self.counters.wait_time.record(begin - j.submitted_at);
  self.counters.run_time.record(end - begin);
  if (span) {
    span->submitted = j.submitted_at;
    span->begin = begin;
    span->end = end;
    self.spans.add(*span);
  }
  self.current.store(nullptr, std::memory_order_relaxed);
  const auto before = j.state.exchange(job_state::done, std::memory_order_acq_rel);
  self.counters.count_end(j.succeeded, before == job_state::abandoned);
  j.destination->push(j);
}

// Spins that find nothing are given up, one in sixteen goes on to see whether times have changed.
void worker_pool::look_for_work_a_while() noexcept {
  constexpr int most_credit = 16;
  if (spin_credit_.load(std::memory_order_relaxed) <= 0 &&
      spins_skipped_.fetch_add(1, std::memory_order_relaxed) % most_credit != 0)
    return;
  const auto until = clock::now() + spin_;
  bool found = false;
  do {
    for (int i = 0; i < 8; ++i) relax();
    found = queue_length_.load(std::memory_order_relaxed) != 0 || !intake_.empty();
  } while (!found && !is_closed() && !idle_is_awaited_.load(std::memory_order_relaxed) &&
           clock::now() < until);
  const int credit = spin_credit_.load(std::memory_order_relaxed);
  spin_credit_.store(found ? std::min(credit + 2, most_credit) : std::max(credit - 1, 0),
                     std::memory_order_relaxed);
}

// ---- admission; all but serve_line() under mutex_ ----

std::uint64_t worker_pool::started() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& each : workers_) sum += each->counters.started.load(std::memory_order_acquire);
  return sum;
}

bool worker_pool::has_room() const noexcept {
  const std::uint64_t gone = started() + cancelled_waiting_.load(std::memory_order_relaxed);
  return submitted_.load(std::memory_order_relaxed) - gone < max_pending_;
}

void worker_pool::accept(job& j) {
  collect();       // who came first goes first
  queue_.push(j);  // may throw on a new priority, before anything has changed
  j.accepted = true;
  queue_length_.store(queue_.size(), std::memory_order_relaxed);
  submitted_.fetch_add(1, std::memory_order_release);
}

// The way in without the mutex: for a job that may wait for company, or that a searching worker will find. It
// is open while the sentinel runs, which collects what nobody else does. Not under a bound, which is the
// mutex's to keep, and not for priorities that may need memory.
bool worker_pool::take_unlocked(job& j, wake_up wake) noexcept {
  if (max_pending_ != 0 || j.priority != 0 || !sentinel_runs_.load(std::memory_order_relaxed)) return false;
  if (wake == wake_up::now && !is_somebody_searching()) return false;
  j.accepted = true;
  if (!intake_.push(j)) {
    j.accepted = false;
    return false;
  }
  const bool is_left_alone = wake == wake_up::now && !is_somebody_searching();
  if (is_left_alone || !sentinel_runs_.load(std::memory_order_seq_cst)) flush_wake_up();
  return true;
}

void worker_pool::collect() noexcept { enqueue(intake_.take()); }

void worker_pool::enqueue(job_list taken_in) noexcept {
  submitted_.fetch_add(taken_in.size(), std::memory_order_release);  // before anybody can start them
  queue_.push_ordinary(std::move(taken_in));
  queue_length_.store(queue_.size(), std::memory_order_relaxed);
}

// Lets those in line in, as far as there is room. Returns the ones who had given up, to be handed back.
job_list worker_pool::admit_from_line() noexcept {
  job_list gone;
  while (!line_.empty() && (was_withdrawn(*line_.front()) || has_room())) {
    job& first = line_.pop_front();
    if (was_withdrawn(first))
      gone.push_back(first);
    else
      accept(first);
  }
  line_length_.store(line_.size(), std::memory_order_relaxed);
  admitted_.notify_all();
  return gone;
}

void worker_pool::serve_line() noexcept {
  job_list gone;
  bool call = false;
  {
    const std::lock_guard lock(mutex_);
    gone = admit_from_line();
    call = reserve_worker_for_backlog();
  }
  hand_back(std::move(gone));
  if (call) threads_.call();
}

// Whether a worker is to be called: jobs wait, nobody will look at them soon, and somebody is free to.
bool worker_pool::reserve_worker_for_backlog() noexcept {
  // Each that has been called and is starting will take one.
  const unsigned starting =
      std::min(starting_.load(std::memory_order_relaxed), searching_.load(std::memory_order_relaxed));
  return queue_.size() > starting && !is_somebody_searching() && reserve_parked_worker();
}

bool worker_pool::is_somebody_searching() const noexcept {
  return searching_.load(std::memory_order_seq_cst) > starting_.load(std::memory_order_seq_cst);
}

bool worker_pool::reserve_parked_worker() noexcept {
  if (parked_ == 0) return false;
  --parked_;
  searching_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// ---- the sentinel ----

// Where no timer can be had, the pool goes on without, and tries again much later.
void worker_pool::get_sentinel() noexcept {
  constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
  constexpr std::uint64_t much_later = 4096;
  const std::lock_guard lock(making_sentinel_);
  if (sentinel_timer_ || is_closed()) return;
  try {
    sentinel_timer_.emplace([this] { sentinel_tick(); });
    jobs_before_sentinel_ = never;
    has_sentinel_.store(true, std::memory_order_release);
  } catch (const std::exception&) {
    jobs_before_sentinel_ += much_later;
    log::write(log::level::warn, "no timer can be had: a pool claims its jobs one at a time");
  }
}

// Looks at the pool every millisecond while there is traffic, on the timer thread, which runs no jobs. It
// makes good on wake-ups that a submitter owes and has not delivered, and on estimates that were wrong.
// Exactly one runs at a time: `sentinel_runs_` goes from false to true under mutex_, and whoever did it
// starts the timer.
void worker_pool::sentinel_tick() noexcept {
  bool work = false;
  stuck found;
  std::size_t waiting = 0;
  {
    const std::lock_guard lock(mutex_);
    found = recover_stuck_portions();
    collect();
    const std::uint64_t submitted = submitted_.load(std::memory_order_relaxed);
    const bool traffic = std::exchange(submitted_at_last_tick_, submitted) != submitted;
    sentinel_runs_.store(traffic || found.watched, std::memory_order_seq_cst);
    collect();  // once more: a job that is not in by now will find that nobody watches
    if (!queue_.empty()) {
      sentinel_runs_.store(true, std::memory_order_relaxed);
      work = reserve_worker_for_backlog();
      // Not where its submitter is just about to call one.
      const bool is_late = queue_.has_from(clock::now() - clock::duration(sentinel_period) / 4);
      if (work && is_late && !found.any_searching) late_calls_.fetch_add(1, std::memory_order_relaxed);
      waiting = queue_.size();
    }
    if (sentinel_runs_.load(std::memory_order_relaxed)) sentinel_timer_->expire_after(sentinel_period);
  }
  if (work) threads_.call();
  if (found.recovered != 0)
    tell(log::level::debug, "took back", found.recovered,
         "jobs that stood behind a longer one than estimated");
  if (work) tell(log::level::debug, "called a worker late for", waiting, "jobs");
}

// For every worker that is still at the job it was at one tick ago, or at handing it back, which may take as
// long where callbacks run inside push(): it searches no more, and what stood behind that job is queued again
// in its old place.
worker_pool::stuck worker_pool::recover_stuck_portions() noexcept {
  stuck found;
  for (const auto& each : workers_) {
    const std::uint64_t started = each->counters.started.load(std::memory_order_relaxed);
    const bool same_job = std::exchange(each->started_at_last_tick, started) == started;
    if (same_job && each->is_busy.load(std::memory_order_relaxed)) {
      found.any_searching = found.any_searching || each->searching;
      stop_searching(*each);
      job_list behind = take_rest(*each);
      found.recovered += behind.size();
      queue_.push_front(std::move(behind));
    }
    found.watched = found.watched || each->searching || each->rest.load(std::memory_order_relaxed) != nullptr;
  }
  queue_length_.store(queue_.size(), std::memory_order_relaxed);
  return found;
}

}  // namespace offgil
