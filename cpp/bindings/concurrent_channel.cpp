// concurrent_channel.cpp - the way of jobs from any thread to a pool, and back as concurrent futures.
#include "concurrent_channel.hpp"

#include <utility>

#include "errors.hpp"
#include "exit_hook.hpp"
#include "interpreter.hpp"
#include "pool_core.hpp"

namespace offgil::python {
namespace {

concurrent_job& as_concurrent(job& j) noexcept { return static_cast<concurrent_job&>(j); }

// Leaves the queue asleep: its consumer is about to run Python code, which takes as long as it likes, and
// what comes meanwhile must call the dispatcher. With the GIL held throughout there is one consumer at a
// time.
job_list take_all(completion_queue& arrivals) noexcept {
  job_list all;
  do all.push_back(arrivals.take());
  while (!arrivals.fall_asleep());
  return all;
}

void throw_if_interrupted() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// The channel that brings on this thread, further up its stack.
thread_local const concurrent_channel* bringing = nullptr;

class bringing_here {
 public:
  explicit bringing_here(const concurrent_channel& of) noexcept : outer_(std::exchange(bringing, &of)) {}
  ~bringing_here() { bringing = outer_; }
  bringing_here(const bringing_here&) = delete;
  bringing_here& operator=(const bringing_here&) = delete;

 private:
  const concurrent_channel* const outer_;
};

[[noreturn]] void raise_deadlock() {
  raise(
      PyExc_RuntimeError,
      "deadlock: every worker of this pool is inside a job that waits for another job of the same pool; give "
      "the pool more workers, or await such jobs outside of it");
}

}  // namespace

concurrent_channel::concurrent_channel(pool_core& core) : core_(core), dispatcher_(core.its_dispatcher()) {}

// ---- to the pool ----

// Before the job exists in the engine: what is in flight keeps the pool.
void concurrent_channel::take_place() {
  if (in_flight_++ == 0) held_core_ = core_.shared_from_this();
}

void concurrent_channel::give_place_back() noexcept {
  if (--in_flight_ != 0) return;
  if (awaiting_empty_ != 0) {
    const std::lock_guard lock(empty_mutex_);
    empty_.notify_all();
  }
  core_.end_if_done();
  const auto last = std::move(held_core_);  // may end the pool, and this with it
}

worker_pool::admission concurrent_channel::submit(concurrent_job& j, bool block) {
  constexpr std::size_t jobs_per_look = 64;
  take_place();
  py::handle(future_of(j)).inc_ref();  // the job's
  worker_pool& engine = core_.engine();
  j.destination = this;
  get_dispatcher(j);
  const auto policy = block ? worker_pool::when_full::wait_in_line : worker_pool::when_full::refuse;
  // Does not throw, so that the place is either kept or given back: only another priority would need memory.
  const auto answer = engine.submit(j, policy);
  if (answer == worker_pool::admission::in_line) {
    return wait_for_room(j) ? worker_pool::admission::accepted : worker_pool::admission::closed;
  }
  if (answer != worker_pool::admission::accepted) {
    j.destination = nullptr;
    py::handle(future_of(j)).dec_ref();
    give_place_back();
    return answer;
  }
  const bool will_be_brought = unobserved_.is_asleep() || dispatcher_->has_started();
  if (in_flight_ % jobs_per_look == 0 || !will_be_brought) collect();
  return answer;
}

// Until it starts, a native job that nobody observes stays in flight after its end.
void concurrent_channel::get_dispatcher(const concurrent_job& j) noexcept {
  if (native_jobs_left_ == 0 || j.kind->in_lane() != nullptr) return;
  if (--native_jobs_left_ != 0) return;
  native_jobs_left_ = few_native_jobs;  // to try again, where it cannot start
  end_by_itself();
}

void concurrent_channel::end_by_itself() noexcept {
  collect();
  if (in_flight_ == 0 || !dispatcher_->start()) return;
  native_jobs_left_ = 0;
  dispatcher_->announce(*this, dispatcher::urgency::soon);
}

// False: the pool was closed meanwhile.
bool concurrent_channel::wait_for_room(concurrent_job& j) {
  const auto alive = held_core_;
  for (bool admitted = false; !admitted;) {
    {
      const py::gil_scoped_release others_may_make_room;
      admitted = core_.engine().wait_until_admitted(j, between_signals);
    }
    if (PyErr_CheckSignals() == 0) continue;
    py::object interrupt = take_raised();
    withdraw(j);
    restore_raised(std::move(interrupt));
    throw py::error_already_set();
  }
  return j.refused == refusal::none;
}

bool concurrent_channel::withdraw(concurrent_job& j) noexcept {
  // The job may come back, as the last, while giving its arguments back runs Python code.
  const auto alive = held_core_;
  if (core_.engine().was_left_behind_by_fork() || !core_.engine().cancel(j, false)) return false;
  j.has_outcome = true;
  j.discard_payload();
  if ((j.flag.set() & completion_flag::wait) != 0) core_.engine().waiters().wake(j.flag);
  return true;
}

// ---- waiting ----

bool concurrent_channel::was_left_behind_by_fork() const noexcept {
  return core_.engine().was_left_behind_by_fork();
}

bool concurrent_channel::wait(concurrent_job& j, std::optional<clock::time_point> until) {
  core_.check_not_forked();
  const auto alive =
      core_.shared_from_this();  // what is in flight, and keeps the pool, may come back meanwhile
  const bool on_worker = core_.engine().is_on_own_thread();
  for (;;) {
    auto reason = waiting_room::end::flag_is_set;
    {
      const py::gil_scoped_release jobs_may_need_it;
      worker_pool::expect_wait();
      reason = core_.engine().waiters().wait(j.flag, on_worker, until);
    }
    if (reason == waiting_room::end::flag_is_set) return true;
    if (reason == waiting_room::end::deadlock) raise_deadlock();
    throw_if_interrupted();
    if (reason == waiting_room::end::out_of_time) return false;
  }
}

std::unique_ptr<waiting_room::absence> concurrent_channel::absence_for(const concurrent_job& j) {
  core_.check_not_forked();
  if (!core_.engine().is_on_own_thread()) return nullptr;
  auto made = std::make_unique<waiting_room::absence>(core_.engine().waiters(), j.flag);
  if (made->is_deadlock()) raise_deadlock();
  return made;
}

bool concurrent_channel::wait_until_empty(std::chrono::nanoseconds at_most) {
  const dispatcher::haste for_the_last(*dispatcher_);
  end_by_itself();
  if (in_flight_ == 0) return true;
  ++awaiting_empty_;
  {
    // From before the GIL is let go, so that whoever ends the last job finds us waiting, until before it is
    // asked for: who has it may want the mutex.
    std::unique_lock lock(empty_mutex_);
    const py::gil_scoped_release jobs_may_need_it;
    empty_.wait_for(lock, at_most);
    lock.unlock();
  }
  --awaiting_empty_;
  collect();
  return in_flight_ == 0;
}

// ---- from the pool ----

void concurrent_channel::push(job& base) noexcept {
  concurrent_job& j = as_concurrent(base);
  const std::uint8_t wishes = j.flag.set();
  if ((wishes & completion_flag::wait) != 0) core_.engine().waiters().wake(j.flag);
  // Jobs that are withdrawn together get all their flags first: a callback of one may wait for another.
  if (gil_lane::is_inside() && j.state.load(std::memory_order_relaxed) == job_state::done)
    end_on_worker(j);
  else if ((wishes & completion_flag::notice) != 0)
    observed_.push(j);
  else
    unobserved_.push(j);
}

// Callbacks count as part of what jobs of their kind take: nothing is to stand behind long ones. The kind is
// the pool's.
void concurrent_channel::end_on_worker(concurrent_job& j) noexcept {
  call_time_estimate& calls = j.kind->estimate_of_calls;
  if (!j.is_somebody_to_be_told()) {
    if (calls.value() > call_time_estimate::nanoseconds(100)) calls.learn({});
    return end(j);
  }
  if (may_be_long(calls)) worker_pool::expect_calls(sharing_of_calls_);
  end_and_time(j, calls);
}

void concurrent_channel::bell::wake() noexcept {
  if (how_ == dispatcher::urgency::soon)
    of_.dispatcher_->announce_if_started(of_, how_);
  else
    of_.tell();
}

// On a worker, perhaps: compute must not wait for the GIL, unless there is nothing to compute, or no other
// thread.
void concurrent_channel::tell() noexcept {
  worker_pool& engine = core_.engine();
  const bool is_here = engine.enter_lane_at_leisure(core_.lane()) ||
                       (!dispatcher_->announce(*this) && engine.enter_lane(core_.lane()));
  if (!is_here) return;
  worker_pool::expect_calls(sharing_of_calls_);
  bring();
}

// One of the dispatcher's threads may be inside, held up in Python code, when another one comes to go on.
void concurrent_channel::on_dispatch() noexcept {
  const auto alive = held_core_;
  in_dispatch_.push_back(take_all(observed_));
  in_dispatch_.push_back(take_all(unobserved_));
  while (!in_dispatch_.empty() && !dispatcher_->is_relieved()) {
    concurrent_job& j = as_concurrent(in_dispatch_.pop_front());
    if (j.is_somebody_to_be_told())
      dispatcher_->begin_call(*this, may_be_long(estimate_of_calls_), in_dispatch_.empty());
    end_and_time(j, estimate_of_calls_);
  }
}

bool concurrent_channel::may_be_long(const call_time_estimate& calls) noexcept {
  return !calls.known() || calls.value() >= run_queue::long_call;
}

void concurrent_channel::end_and_time(concurrent_job& j, call_time_estimate& calls) noexcept {
  if (!j.is_somebody_to_be_told() || (!may_be_long(calls) && ++calls_not_timed_ % calls_per_look != 0))
    return end(j);
  const auto alive = held_core_;
  const auto begin = clock::now();
  end(j);
  calls.learn(clock::now() - begin);
}

bool concurrent_channel::brings_here() const noexcept {
  return bringing == this || dispatcher_->is_on_own_thread();
}

// A callback may wait for what stands behind it. By result() it gets that here; by other means, as wait(),
// from a thread of the dispatcher's that goes on meanwhile.
void concurrent_channel::bring() noexcept {
  const auto alive = held_core_;
  const bringing_here until_return(*this);
  in_dispatch_.push_back(take_all(observed_));
  in_dispatch_.push_back(take_all(unobserved_));
  for (bool is_announced = false; !in_dispatch_.empty();) {
    concurrent_job& j = as_concurrent(in_dispatch_.pop_front());
    if (j.is_somebody_to_be_told() && !in_dispatch_.empty() && !std::exchange(is_announced, true))
      dispatcher_->announce(
          *this, may_be_long(estimate_of_calls_) ? dispatcher::urgency::now : dispatcher::urgency::soon);
    end_and_time(j, estimate_of_calls_);
  }
}

void concurrent_channel::collect() noexcept {
  const auto alive = held_core_;
  job_list arrived = take_all(unobserved_);
  while (!arrived.empty()) end(as_concurrent(arrived.pop_front()));
}

// The engine's part in the job is over. A native result that nobody has asked for stays what it is; all else
// must not outlive the pool.
void concurrent_channel::end(concurrent_job& j) noexcept {
  if (j.is_somebody_to_be_told()) {
    ++core_.calls_under_way;
    publish(j);
    --core_.calls_under_way;
  }
  if (!j.succeeded || j.kind->in_lane() != nullptr) take_outcome(j);
  j.destination = nullptr;
  if (j.has_outcome) j.let_go_of_kind();
  Py_DECREF(future_of(j));
  give_place_back();
}

}  // namespace offgil::python
