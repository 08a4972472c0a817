// lane_gate.cpp - workers take turns in a lane, and regularly leave it to everybody else.
#include "lane_gate.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

namespace offgil {
namespace {

using namespace std::chrono_literals;

// For how long the first in the queue waits before it looks at what the holder of the turn is doing. Jobs of
// that kind are not known to let others in, so that one without CPU time mostly waits for the GIL itself, for
// less.
constexpr clock::duration first_look = 2ms;
constexpr clock::duration longest_look = 8ms;

// A visitor that waits for this long, while the job inside computes, was not let in by it.
constexpr clock::duration long_wait = 200us;

// For how long a job may run and prove something about the one beside: then CPython has not interrupted
// either.
constexpr clock::duration short_visit = 4ms;

// Whether somebody waits is not seen of a thread that is about to wait again: a job that lets go of the GIL
// only for moments wakes it over and over, in vain.
constexpr unsigned most_stays_without_gap = 3;

// A stay that was longer than a period is followed by a longer gap: who misses it waits for as long again.
constexpr int stays_per_gap = 32;
constexpr clock::duration longest_gap = 1ms;

}  // namespace

void lane_gate::wait_for_turn(visitor& self) noexcept {
  lock held(mutex_);
  ::pthread_getcpuclockid(::pthread_self(), &self.cpu_clock_);
  self.next_ = nullptr;
  (first_ == nullptr ? first_ : last_->next_) = &self;
  last_ = &self;
  is_waited_for_.store(true, std::memory_order_relaxed);

  auto look = first_look;
  while (!is_let_in(held, self, look)) continue;

  first_ = self.next_;
  is_waited_for_.store(first_ != nullptr, std::memory_order_relaxed);
  if (first_ != nullptr) first_->called_.notify_one();
  self.is_entering_ = true;
  // A lane that has been empty for a while had its gap.
  const auto now = clock::now();
  if (inside_++ == 0 && now - empty_since_ >= gap) begin_stay(now);
}

// Waits for a while if it is not.
bool lane_gate::is_let_in(lock& held, visitor& self, clock::duration& look) noexcept {
  self.beside_ = nullptr;
  if (first_ != &self) {
    self.called_.wait(held);
  } else if (clock::now() < closed_until_) {
    self.called_.wait_until(held, closed_until_);
  } else if (holder_ == nullptr) {
    take_turn(self);
    return true;
  } else if (lane_sharing* const kind = holder_->kind_of_job_.load(std::memory_order_relaxed);
             kind != nullptr && kind->is_worth_trying()) {
    pass_beside(self);
    return true;
  } else if (is_held_up_beside(held, self, look)) {
    pass_beside(self);
    overtaken_ = holder_;
    take_turn(self);
    return true;
  }
  return false;
}

void lane_gate::pass_beside(visitor& self) noexcept {
  passing_ = &self;
  self.beside_ = holder_;
  self.passed_ = clock::now();
  self.cpu_time_beside_ = cpu_time(holder_->cpu_clock_);
}

// Waits for a while, and looks whether the holder of the turn, the same all the time, does not use it. One
// that waits for the GIL itself does.
bool lane_gate::is_held_up_beside(lock& held, visitor& self, clock::duration& look) noexcept {
  const auto turn = turns_;
  const auto cpu_time_before = cpu_time(holder_->cpu_clock_);
  const auto begin = clock::now();
  self.called_.wait_until(held, begin + look);
  if (holder_ == nullptr || turns_ != turn) {
    look = first_look;
    return false;
  }
  const auto now = clock::now();
  if (now - begin < look) return false;
  look = std::min(4 * look, longest_look);
  if (holder_->is_entering_) return false;
  return cpu_time(holder_->cpu_clock_) - cpu_time_before < (now - begin) / 2 ||
         now - holder_->turn_began_ > patience;
}

void lane_gate::take_turn(visitor& self) noexcept {
  ++turns_;
  holder_ = &self;
  self.has_turn_.store(true, std::memory_order_relaxed);
  self.turn_began_ = clock::now();
}

void lane_gate::has_entered(visitor& self, clock::duration waited) noexcept {
  const std::lock_guard held(mutex_);
  self.is_entering_ = false;
  if (passing_ == &self) passing_ = nullptr;
  self.entered_ = self.stay_began_ = clock::now();
  self.cpu_time_at_gap_ = cpu_time(self.cpu_clock_);
  self.next_inside_ = std::exchange(first_inside_, &self);
  if (!is_inside(self.beside_)) return;
  if (self.beside_ == overtaken_ && holder_ == &self)
    overtaken_->has_turn_.store(false, std::memory_order_relaxed);
  lane_sharing* const kind = self.beside_->kind_of_job_.load(std::memory_order_relaxed);
  if (kind != nullptr && has_kept_out(*self.beside_, self, waited)) kind->learn(false);
  self.cpu_time_beside_ = cpu_time(self.beside_->cpu_clock_);
}

// Under mutex_.
bool lane_gate::is_inside(const visitor* beside) const noexcept {
  return beside != nullptr && (beside == holder_ || beside == overtaken_);
}

// Under mutex_. The job inside has computed while the visitor beside it had the lane: without it.
bool lane_gate::has_shared(const visitor& inside, const visitor& beside,
                           clock::duration visit) const noexcept {
  return visit <= short_visit && cpu_time(inside.cpu_clock_) - beside.cpu_time_beside_ >= visit / 4 * 3;
}

// Under mutex_. It may have been somebody else: then the job inside has used no CPU time either.
bool lane_gate::has_kept_out(const visitor& inside, const visitor& other,
                             clock::duration waited) const noexcept {
  return waited >= long_wait && cpu_time(inside.cpu_clock_) - other.cpu_time_beside_ >= waited / 2;
}

// A job that lets go of the lane for a moment may wait long for its way back, as for the GIL beside a thread
// that computes. Then nobody else needs a gap, and the way out and in again would take as long. Workers that
// are not inside all the time, on a busy machine, say, must not be mistaken for such.
bool lane_gate::had_others_the_lane(visitor& self, clock::time_point now) noexcept {
  constexpr int hardly_any = 8;
  const std::lock_guard held(mutex_);
  if (cpu_time_since_gap() * hardly_any > now - stay_began_) return false;
  begin_stay(now);
  self.stay_began_ = now;
  return true;
}

// Under mutex_.
void lane_gate::remove_from_inside(const visitor& self) noexcept {
  visitor** link = &first_inside_;
  while (*link != &self) link = &(*link)->next_inside_;
  *link = self.next_inside_;
  cpu_time_of_those_gone_ += cpu_time(self.cpu_clock_) - self.cpu_time_at_gap_;
}

// Under mutex_. Of all workers in the lane.
clock::duration lane_gate::cpu_time_since_gap() const noexcept {
  clock::duration sum = cpu_time_of_those_gone_;
  for (const visitor* each = first_inside_; each != nullptr; each = each->next_inside_)
    sum += cpu_time(each->cpu_clock_) - each->cpu_time_at_gap_;
  return sum;
}

// Under mutex_.
void lane_gate::begin_stay(clock::time_point now) noexcept {
  stay_began_ = now;
  next_gap_.store(now + period, std::memory_order_relaxed);
  cpu_time_of_those_gone_ = {};
  for (visitor* each = first_inside_; each != nullptr; each = each->next_inside_)
    each->cpu_time_at_gap_ = cpu_time(each->cpu_clock_);
}

void lane_gate::leave(visitor& self, bool somebody_waits) noexcept {
  const auto now = clock::now();
  const std::lock_guard held(mutex_);
  // Also beside one that stays: whose job has been interrupted waits for the lane itself.
  if (is_gap_due(now)) {
    if (somebody_waits || ++stays_without_gap_ == most_stays_without_gap) {
      closed_until_ =
          now + std::clamp<clock::duration>((now - stay_began_) / stays_per_gap, gap, longest_gap);
      stays_without_gap_ = 0;
    }
    begin_stay(std::max(now, closed_until_));
  }
  if (--inside_ == 0) empty_since_ = now;
  remove_from_inside(self);
  if (is_inside(self.beside_)) {
    lane_sharing* const kind = self.beside_->kind_of_job_.load(std::memory_order_relaxed);
    if (kind != nullptr && has_shared(*self.beside_, self, now - self.entered_)) kind->learn(true);
  }
  self.beside_ = nullptr;
  // A visitor that gets in only now learns nothing any more.
  if (passing_ != nullptr && passing_->beside_ == &self) {
    lane_sharing* const kind = self.kind_of_job_.load(std::memory_order_relaxed);
    if (kind != nullptr && has_kept_out(self, *passing_, now - passing_->passed_)) kind->learn(false);
  }
  self.kind_of_job_.store(nullptr, std::memory_order_relaxed);
  if (overtaken_ == &self) overtaken_ = nullptr;
  self.has_turn_.store(false, std::memory_order_relaxed);
  free_turn_of(self);
}

void lane_gate::give_up_turn(visitor& self) noexcept {
  const std::lock_guard held(mutex_);
  free_turn_of(self);
}

// Under mutex_.
void lane_gate::free_turn_of(visitor& self) noexcept {
  if (holder_ != &self) return;
  self.has_turn_.store(false, std::memory_order_relaxed);
  holder_ = nullptr;
  ++turns_;
  if (first_ != nullptr) first_->called_.notify_one();
}

void lane_gate::call_first() noexcept {
  const std::lock_guard held(mutex_);
  if (first_ != nullptr) first_->called_.notify_one();
}

}  // namespace offgil
