// patience.hpp - bounded waits, so that a broken engine fails a test instead of hanging it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "clock.hpp"

namespace offgil::testing {

// No correct engine on any machine takes so long; nothing is ever waited for to its end in a test that
// passes.
inline constexpr std::chrono::seconds patience{20};

template <class Predicate>
bool eventually(Predicate holds) {
  const auto deadline = clock::now() + patience;
  while (!holds()) {
    if (clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Closed until it is opened. Who waits at it gives up in the end, so that a failing test can still be torn
// down.
class gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }

  bool pass() {
    std::unique_lock lock(mutex_);
    return opened_.wait_for(lock, patience, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;  // guarded by mutex_
};

}  // namespace offgil::testing
