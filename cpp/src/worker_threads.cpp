// worker_threads.cpp - the threads of a pool, asleep until they are called.
#include "worker_threads.hpp"

#include <exception>
#include <thread>
#include <utility>

#include "clock.hpp"
#include "log.hpp"

namespace offgil {

worker_threads::worker_threads(unsigned count, std::string name, int nice,
                               std::function<std::size_t()> stack_size, guest& of)
    : name_(std::move(name)), nice_(nice), stack_size_(std::move(stack_size)), host_(of), beds_(count) {
  threads_.reserve(count);
}

// A thread that is still to end may start another one.
worker_threads::~worker_threads() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return is_ending_ && live_ == 0; });
}

namespace {

// Of all pools: threads that have been started and have not answered a call yet.
std::atomic<int> newcomers{0};

// Who makes pools faster than their threads get on would have thousands of them.
void wait_in_a_crowd() noexcept {
  constexpr int crowd = 32;
  constexpr std::chrono::milliseconds at_most{5};
  const auto until = clock::now() + at_most;
  while (newcomers.load(std::memory_order_relaxed) > crowd && clock::now() < until)
    std::this_thread::sleep_for(at_most / 10);
}

}  // namespace

void worker_threads::start_first() {
  wait_in_a_crowd();
  const std::lock_guard lock(mutex_);
  if (threads_.empty() && !is_ending_) start_next();
}

// Under mutex_, which the new thread waits for. Throws std::system_error.
void worker_threads::start_next() {
  const auto index = static_cast<unsigned>(threads_.size());
  if (made_ == threads_.size()) {
    host_.before_thread_start();
    ++made_;
  }
  const thread::attributes with{.nice = nice_, .stack_size = stack_size_ ? stack_size_() : 0};
  threads_.push_back(
      std::make_unique<thread>(name_ + std::to_string(index), with, [this, index] { run(index); }));
  newcomers.fetch_add(1, std::memory_order_relaxed);
  ++live_;
  ++new_;
  has_started_.store(true, std::memory_order_relaxed);
}

void worker_threads::run(unsigned index) noexcept {
  host_.on_thread_start(index);
  bool is_newcomer = true;
  while (wait_for_call(beds_[index])) {
    host_.on_call();
    if (std::exchange(is_newcomer, false)) newcomers.fetch_sub(1, std::memory_order_relaxed);
  }
  host_.on_thread_end();
  if (is_newcomer) newcomers.fetch_sub(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  const bool is_last = live_ == 1;
  if (is_last) {
    lock.unlock();
    host_.on_end();
    lock.lock();
  }
  --live_;
  ended_.notify_all();
}

// False: the thread is to end. A call may be gone when the thread that was woken for it comes: a busy one has
// become free meanwhile.
bool worker_threads::wait_for_call(bed& own) noexcept {
  std::unique_lock lock(mutex_);
  if (std::exchange(own.is_new, false)) --new_;
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
    if (woken == nullptr && calls_ > new_ && threads_.size() < beds_.size()) try_to_start_next();
  }
  if (woken != nullptr) woken->called.notify_one();
}

// Under mutex_. Where it fails, those that there are do the work, and the next call tries again.
void worker_threads::try_to_start_next() noexcept {
  try {
    start_next();
  } catch (const std::exception&) {
    log::write(log::level::warn, "cannot start another worker thread");
  }
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
  std::unique_lock lock(mutex_);
  is_ending_ = true;
  while (bed* const woken = take_last_asleep()) woken->called.notify_one();
  if (!threads_.empty()) return;
  lock.unlock();
  host_.on_end();
}

bool worker_threads::wait_until_ended(std::chrono::nanoseconds at_most) {
  std::unique_lock lock(mutex_);
  if (!ended_.wait_for(lock, at_most, [this] { return is_ending_ && live_ == 0; })) return false;
  threads_.clear();  // a thread that has ended and was not joined keeps its stack
  return true;
}

bool worker_threads::have_ended() const noexcept {
  const std::lock_guard lock(mutex_);
  return is_ending_ && live_ == 0;
}

}  // namespace offgil
