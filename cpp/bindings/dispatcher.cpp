// dispatcher.cpp - the threads that bring completions to Python code nobody else would bring them to.
#include "dispatcher.hpp"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <exception>
#include <utility>

#include "thread_identity.hpp"
#include "thread_state.hpp"

namespace offgil::python {

namespace py = pybind11;

namespace {

using namespace std::chrono_literals;

// How long what is not urgent waits for company; and where somebody waits for it.
constexpr std::chrono::milliseconds linger = 20ms;
constexpr std::chrono::milliseconds linger_in_haste = 1ms;

// How often the thread that stands by looks, so that the leader is relieved after one or two times that, and
// how often in vain, which makes a second, until it ends.
constexpr std::chrono::milliseconds between_looks = 20ms;
constexpr unsigned looks_in_vain = 50;

}  // namespace

thread_local dispatcher::member* dispatcher::mine_ = nullptr;

dispatcher::dispatcher(const std::string& name, unsigned most_threads, const signal_mask& mask,
                       const std::atomic<std::size_t>& stack_size, std::atomic<std::uint64_t>& acquisitions)
    : name_(name + "-gil"),
      most_threads_(most_threads),
      mask_(mask),
      stack_size_(stack_size),
      acquisitions_(acquisitions) {}

bool dispatcher::is_on_own_thread() const noexcept { return mine_ != nullptr && &mine_->of == this; }

bool dispatcher::is_relieved() const noexcept { return is_on_own_thread() && mine_->is_relieved; }

// ---- announcements ----

bool dispatcher::announce(announced& ready, urgency how) noexcept {
  bool is_called = false;
  bool is_there = false;
  {
    const std::lock_guard lock(mutex_);
    is_called = add(ready, how);
    is_there = start_first();
  }
  if (is_called) announced_.notify_one();
  return is_there;
}

void dispatcher::announce_if_started(announced& ready, urgency how) noexcept {
  bool is_called = false;
  {
    const std::lock_guard lock(mutex_);
    is_called = has_started() && add(ready, how);
  }
  if (is_called) announced_.notify_one();
}

// Under mutex_. Whether the leader is to be called, who may sleep.
bool dispatcher::add(announced& ready, urgency how) noexcept {
  const bool is_first = first_ == nullptr;
  link(ready);
  if (is_in_long_call_) want_relief();
  return (how == urgency::now && !std::exchange(is_urgent_, true)) || is_first;
}

bool dispatcher::start() noexcept {
  const std::lock_guard lock(mutex_);
  return start_first();
}

// Under mutex_. One that is to stop, and has brought nothing yet, never does.
bool dispatcher::start_first() noexcept {
  if (has_started()) return true;
  if (stopping_) return false;
  try {
    start_thread();
  } catch (const std::exception&) {
    return false;
  }
  has_started_.store(true, std::memory_order_relaxed);
  return true;
}

// Under mutex_.
void dispatcher::want_relief() noexcept {
  relief_is_wanted_ = true;
  over_.notify_one();
}

// Under mutex_.
void dispatcher::link(announced& ready) noexcept {
  if (!std::exchange(ready.is_announced_, true)) ready.next_ = std::exchange(first_, &ready);
}

// Under mutex_.
void dispatcher::take_batch() noexcept {
  is_urgent_ = false;
  batch_ = std::exchange(first_, nullptr);
  is_bringing_ = batch_ != nullptr;
  if (is_bringing_) ++batches_;
  brought_.notify_all();
}

// False: stop.
bool dispatcher::wait_for_announcements() noexcept {
  std::unique_lock lock(mutex_);
  if (batch_ != nullptr) return true;  // left by one who was relieved
  const auto is_called = [this] { return first_ != nullptr || stopping_; };
  while (first_unanswered_ != nullptr) {
    if (announced_.wait_until(lock, next_look_, is_called) && clock::now() < next_look_) break;
    call_unanswered_again();
  }
  announced_.wait(lock, is_called);
  announced_.wait_for(lock, in_haste_ == 0 ? linger : linger_in_haste,
                      [this] { return is_urgent_ || stopping_; });
  take_batch();
  if (batch_ != nullptr) return true;
  is_over_ = true;
  over_.notify_all();
  return false;
}

void dispatcher::await_answer(announced& called) noexcept {
  const std::lock_guard lock(mutex_);
  if (called.look_for_answer() == announced::answer::complete || called.is_unanswered_) return;
  called.is_unanswered_ = true;
  called.in_vain_ = 0;
  if (first_unanswered_ == nullptr) next_look_ = clock::now() + patience;
  called.next_unanswered_ = std::exchange(first_unanswered_, &called);
}

// Under mutex_. A loop that is merely busy, or does not run, has the first call yet to make: the others come
// after 1, 2, 4... times the patience, and end with the 256th.
void dispatcher::call_unanswered_again() noexcept {
  constexpr unsigned most_in_vain = 256;
  next_look_ = clock::now() + patience;
  announced* rest = std::exchange(first_unanswered_, nullptr);
  while (rest != nullptr) {
    announced& each = *std::exchange(rest, rest->next_unanswered_);
    const auto answer = each.look_for_answer();
    each.in_vain_ = answer == announced::answer::none ? each.in_vain_ + 1 : 0;
    each.is_unanswered_ = answer != announced::answer::complete && each.in_vain_ <= most_in_vain;
    if (!each.is_unanswered_) continue;
    each.next_unanswered_ = std::exchange(first_unanswered_, &each);
    if (!std::has_single_bit(each.in_vain_)) continue;
    link(each);
    is_urgent_ = true;
  }
}

// With the GIL. The next to be called, who may be announced again from here on, or null: what is left, if
// anything, has time.
announced* dispatcher::next() noexcept {
  const std::lock_guard lock(mutex_);
  in_hand_ = nullptr;
  is_in_long_call_ = false;
  if (batch_ == nullptr && is_urgent_) take_batch();
  if (batch_ == nullptr) {
    is_bringing_ = false;
    brought_.notify_all();
    return nullptr;
  }
  announced* const taken = std::exchange(batch_, batch_->next_);
  taken->is_announced_ = false;
  return taken;
}

dispatcher::haste::haste(dispatcher& of) noexcept : of_(of) {
  {
    const std::lock_guard lock(of_.mutex_);
    ++of_.in_haste_;
    of_.is_urgent_ = true;
  }
  of_.announced_.notify_one();
}

dispatcher::haste::~haste() {
  const std::lock_guard lock(of_.mutex_);
  --of_.in_haste_;
}

// ---- threads ----

// Under mutex_. Throws std::system_error.
void dispatcher::start_thread() {
  members_.remove_if([](const member& each) { return each.has_ended; });
  member& added = members_.emplace_back(*this);
  try {
    const thread::attributes with{.stack_size = stack_size_.load(std::memory_order_relaxed)};
    added.handle.emplace(name_, with, [this, &added] { run(added); });
  } catch (...) {
    members_.pop_back();
    throw;
  }
  ++alive_;
}

void dispatcher::run(member& self) noexcept {
  mine_ = &self;
  mask_.apply();
  make_thread_state();  // for its whole life: to take the GIL costs no state
  {
    const thread_identity identity(name_);
    const py::gil_scoped_release idle;
    while (stand_by(self)) lead(self);
  }
  end_thread_state();
  {
    const std::lock_guard lock(mutex_);
    self.has_ended = true;
  }
  ended_.notify_all();  // the condition outlives us: stop() joins
}

// Until another thread does, or it is time to stop.
void dispatcher::lead(member& self) noexcept {
  while (wait_for_announcements()) {
    const py::gil_scoped_acquire gil;
    acquisitions_.fetch_add(1, std::memory_order_relaxed);
    while (announced* const each = next()) {
      each->on_dispatch();
      if (!std::exchange(self.is_relieved, false)) {
        await_answer(*each);
        continue;
      }
      const std::lock_guard lock(mutex_);
      --relieved_;
      self.held_up_in.reset();
      brought_.notify_all();
      return;
    }
  }
}

void dispatcher::begin_call(announced& caller, bool is_long, bool is_last) noexcept {
  if (!is_on_own_thread() || mine_->is_relieved) return;
  calls_.store(calls_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (in_hand_ != nullptr && !is_long && !is_in_long_call_) return;
  const std::lock_guard lock(mutex_);
  in_hand_ = &caller;
  is_in_long_call_ = is_long;
  if (standing_by() == 0 && alive_ < most_threads_) {
    try {
      start_thread();
    } catch (const std::exception&) {
      // This thread brings everything, as long as nothing blocks; the next batch will try again.
    }
  }
  const bool is_all = is_last && batch_ == nullptr && first_ == nullptr;
  if (is_long && !is_all) want_relief();
}

// Under mutex_, when there is a leader.
unsigned dispatcher::standing_by() const noexcept { return alive_ - relieved_ - 1; }

// Until the calling thread is to lead. False: it is not needed any more.
bool dispatcher::stand_by(member& self) noexcept {
  std::unique_lock lock(mutex_);
  if (leader_ == nullptr) {  // the first one; even if it is to stop, it brings what has been announced
    leader_ = &self;
    return true;
  }
  if (!is_over_ && watch(lock, self)) return true;
  --alive_;
  return false;
}

// Under mutex_. The same.
bool dispatcher::watch(std::unique_lock<std::mutex>& lock, member& self) noexcept {
  std::uint64_t seen = calls_.load(std::memory_order_relaxed);
  for (unsigned in_vain = 0; in_vain < looks_in_vain;) {
    over_.wait_for(lock, between_looks, [this] { return is_over_ || relief_is_wanted_; });
    if (is_over_) return false;
    const std::uint64_t call = calls_.load(std::memory_order_relaxed);
    const bool is_wanted = std::exchange(relief_is_wanted_, false) && in_hand_ != nullptr;
    if (std::exchange(seen, call) != call && !is_wanted) {
      in_vain = 0;
    } else if (in_hand_ == nullptr) {
      ++in_vain;
    } else {
      lock.unlock();
      const bool leads = take_over(is_wanted ? std::nullopt : std::optional(call), self);
      lock.lock();
      if (leads) return true;
    }
  }
  return false;
}

// False: the leader is not in that call any more, or not in any. It may only have waited for the GIL, like
// us, so one looks again when one has it.
bool dispatcher::take_over(std::optional<std::uint64_t> call, member& self) noexcept {
  const py::gil_scoped_acquire gil;
  acquisitions_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  if (in_hand_ == nullptr || (call && calls_.load(std::memory_order_relaxed) != *call)) return false;
  link(*std::exchange(in_hand_, nullptr));
  is_in_long_call_ = false;
  is_urgent_ = true;
  leader_->is_relieved = true;
  leader_->held_up_in = batches_;
  leader_ = &self;
  ++relieved_;
  return true;
}

// ---- the end ----

void dispatcher::let_end() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  announced_.notify_one();
}

std::uint64_t dispatcher::batches() noexcept {
  const std::lock_guard lock(mutex_);
  return batches_;
}

// What had been announced then was in that batch or in the next one; what a relieved thread left is in one
// more.
bool dispatcher::wait_until_brought(std::uint64_t batches, std::chrono::nanoseconds at_most) noexcept {
  const haste for_all_there_is(*this);
  const std::uint64_t last = batches + 2;
  std::unique_lock lock(mutex_);
  return brought_.wait_for(lock, at_most, [&] {
    const bool holds_one_up = std::any_of(members_.begin(), members_.end(), [last](const member& each) {
      return each.held_up_in && *each.held_up_in <= last;
    });
    const bool brings_later_ones = batches_ > last;
    // Announcements that came after the end of its threads go nowhere.
    const bool has_nothing_left = is_over_ || !has_started() || (first_ == nullptr && !is_bringing_);
    return !holds_one_up && (brings_later_ones || has_nothing_left);
  });
}

bool dispatcher::stop_within(std::chrono::nanoseconds at_most) noexcept {
  let_end();
  {
    std::unique_lock lock(mutex_);
    const auto have_ended = [this] {
      return std::all_of(members_.begin(), members_.end(), [](const member& each) { return each.has_ended; });
    };
    if (!ended_.wait_for(lock, at_most, have_ended)) return false;
  }
  stop();
  return true;
}

// A thread starts another one only before it ends itself: when none is left to join, none will come.
void dispatcher::stop() noexcept {
  const std::lock_guard until_they_have_ended(stopping_mutex_);
  let_end();
  for (;;) {
    std::list<member> joined;  // by its destructor
    const std::lock_guard lock(mutex_);
    if (members_.empty()) return;
    joined.splice(joined.end(), members_, members_.begin());
  }
}

}  // namespace offgil::python
