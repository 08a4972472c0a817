// worker_threads.cpp - the threads of a pool, asleep until they are called.
#include "worker_threads.hpp"

#include <utility>

namespace offgil {

worker_threads::worker_threads(unsigned count, const std::string& name, int nice, guest& of)
    : host_(of), beds_(count), live_(count) {
  threads_.reserve(count);
  try {
    for (unsigned i = 0; i < count; ++i)
      threads_.push_back(std::make_unique<thread>(name + std::to_string(i), nice, [this, i] { run(i); }));
  } catch (...) {
    let_end();  // those that have started are joined with `threads_`
    throw;
  }
}

worker_threads::~worker_threads() = default;

void worker_threads::run(unsigned index) noexcept {
  host_.on_thread_start(index);
  while (wait_for_call(beds_[index])) host_.on_call();
  host_.on_thread_end();
  const std::lock_guard lock(mutex_);
  --live_;
  ended_.notify_all();
}

// False: the thread is to end. A call may be gone when the thread that was woken for it comes: a busy one has
// become free meanwhile.
bool worker_threads::wait_for_call(bed& own) noexcept {
  std::unique_lock lock(mutex_);
  while (calls_ == 0) {
    if (is_ending_) return false;
    own.is_called = false;
    own.below = std::exchange(last_asleep_, &own);
    own.called.wait(lock, [&own] { return own.is_called; });
  }
  --calls_;
  return true;
}

// Notifies without the mutex, which the woken thread needs at once.
void worker_threads::call() noexcept {
  bed* woken = nullptr;
  {
    const std::lock_guard lock(mutex_);
    ++calls_;
    woken = take_last_asleep();
  }
  if (woken != nullptr) woken->called.notify_one();
}

// Under mutex_. The caller notifies it.
worker_threads::bed* worker_threads::take_last_asleep() noexcept {
  bed* const taken = last_asleep_;
  if (taken == nullptr) return nullptr;
  last_asleep_ = std::exchange(taken->below, nullptr);
  taken->is_called = true;
  return taken;
}

// With the mutex: without, the last thread may end meanwhile, and all this with it.
void worker_threads::let_end() noexcept {
  const std::lock_guard lock(mutex_);
  is_ending_ = true;
  while (bed* const woken = take_last_asleep()) woken->called.notify_one();
}

bool worker_threads::wait_until_ended(std::chrono::nanoseconds at_most) {
  std::unique_lock lock(mutex_);
  if (!ended_.wait_for(lock, at_most, [this] { return live_ == 0; })) return false;
  threads_.clear();  // a thread that has ended and was not joined keeps its stack
  return true;
}

bool worker_threads::have_ended() const noexcept {
  const std::lock_guard lock(mutex_);
  return live_ == 0;
}

}  // namespace offgil
