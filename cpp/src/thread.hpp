// thread.hpp - a thread as the pool needs it.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <functional>
#include <string>

namespace offgil {

// A joinable POSIX thread with a stack of any size, every signal blocked but for its own faults (the others
// belong to the main thread), a name (cut to 15 bytes, the kernel's limit, but for a number behind a hyphen
// or underscore) and a niceness added to its creator's. std::thread can set none of these before the thread
// runs.
class thread {
 public:
  struct attributes {
    int nice = 0;
    std::size_t stack_size = 0;  // in bytes; 0: the system's default, but at least 1 MiB
  };

  // Throws std::system_error when the thread cannot start; `body` then never runs. `body` must not throw.
  thread(const std::string& name, attributes with, std::function<void()> body);
  ~thread();  // joins
  thread(const thread&) = delete;
  thread& operator=(const thread&) = delete;

  void join() noexcept;

 private:
  pthread_t handle_{};
  bool joinable_ = false;
};

}  // namespace offgil
