// thread.hpp - a thread as the pool needs it.
#pragma once

#include <pthread.h>

#include <functional>
#include <string>

namespace offgil {

// A joinable POSIX thread with an 8 MiB stack (Python code recursing to its own limit overflows 2 MiB), every
// signal blocked but for its own faults (the others belong to the main thread), a name (cut to 15 bytes, the
// kernel's limit, but for a number behind a hyphen or underscore) and a niceness added to its creator's.
// std::thread can set none of these before the thread runs.
class thread {
 public:
  // Throws std::system_error when the thread cannot start; `body` then never runs. `body` must not throw.
  thread(const std::string& name, int nice, std::function<void()> body);
  ~thread();  // joins
  thread(const thread&) = delete;
  thread& operator=(const thread&) = delete;

  void join() noexcept;

 private:
  pthread_t handle_{};
  bool joinable_ = false;
};

}  // namespace offgil
