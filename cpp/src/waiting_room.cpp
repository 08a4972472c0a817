// waiting_room.cpp - threads that wait for a job to come back.
#include "waiting_room.hpp"

#include <semaphore.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace offgil {
namespace {

timespec as_timespec(clock::time_point at) noexcept {
  const auto since = std::max(at.time_since_epoch(), clock::duration::zero());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  return {static_cast<std::time_t>(seconds.count()),
          static_cast<long>(std::chrono::nanoseconds(since - seconds).count())};
}

// A semaphore, because a wait for it, unlike one on a condition variable, ends when a signal handler has run.
class semaphore {
 public:
  semaphore() noexcept { ::sem_init(&handle_, 0, 0); }
  ~semaphore() { ::sem_destroy(&handle_); }
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  void post() noexcept { ::sem_post(&handle_); }

  // 0, or why it did not come to that.
  int wait(const std::optional<clock::time_point>& until) noexcept {
    if (!until) return ::sem_wait(&handle_) == 0 ? 0 : errno;
    const timespec at = as_timespec(*until);
    return ::sem_clockwait(&handle_, CLOCK_MONOTONIC, &at) == 0 ? 0 : errno;
  }

 private:
  sem_t handle_{};
};

}  // namespace

waiting_room::end waiting_room::wait(completion_flag& flag, bool on_worker,
                                     std::optional<clock::time_point> until) {
  struct sleeper : guest {
    semaphore posted;
  } self;
  self.flag = &flag;
  self.occupies_worker = on_worker && !until;
  self.wake = [](guest& g) noexcept { static_cast<sleeper&>(g).posted.post(); };
  {
    const std::lock_guard lock(mutex_);
    if (!flag.make(completion_flag::wait)) return end::flag_is_set;
    if (would_be_the_last(self)) return end::deadlock;
    guests_.push_back(&self);
  }
  const int error = self.posted.wait(until);
  const std::lock_guard lock(mutex_);  // whoever wakes us is through with us
  if (!remove(self)) return end::flag_is_set;
  return error == EINTR ? end::interrupted : end::out_of_time;
}

void waiting_room::wake(const completion_flag& flag) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(guests_, [&flag](guest* each) {
    if (each->flag != &flag || each->wake == nullptr) return false;
    each->wake(*each);
    return true;
  });
}

// Under mutex_.
bool waiting_room::would_be_the_last(const guest& worker) const noexcept {
  if (!worker.occupies_worker) return false;
  const auto others = std::count_if(guests_.begin(), guests_.end(), [](const guest* each) {
    return each->occupies_worker && !each->flag->is_set();
  });
  return others + 1 >= static_cast<std::ptrdiff_t>(workers_);
}

// Under mutex_. False: it has been woken.
bool waiting_room::remove(const guest& gone) noexcept { return std::erase(guests_, &gone) != 0; }

waiting_room::absence::absence(waiting_room& room, const completion_flag& flag)
    : room_(room), self_{&flag, true, nullptr} {
  const std::lock_guard lock(room_.mutex_);
  is_deadlock_ = !flag.is_set() && room_.would_be_the_last(self_);
  if (!is_deadlock_) room_.guests_.push_back(&self_);
}

waiting_room::absence::~absence() {
  if (is_deadlock_) return;
  const std::lock_guard lock(room_.mutex_);
  room_.remove(self_);
}

}  // namespace offgil
