// timer.hpp - a timer; all timers of a process share one thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace offgil {

// Calls a function after a delay, on a thread that is there for time alone: an expiry never depends on a
// worker being free. The first timer of a process starts that thread and its reactor (three descriptors), the
// last one to stop ends them. A forked child, in which the thread is missing, starts its own with its next
// timer; it must leak those that it inherited, as it must their owners.
//
// The thread is called offgil-time, and has the niceness and the CPUs of the thread that made the first
// timer.
//
// Thread-safe. Only the constructor, stop() and the destructor block.
class timer {
 public:
  // `on_expiry` is called without any lock. It must neither throw nor block: all other timers wait for it.
  // Throws std::system_error when the thread or its descriptors cannot be had.
  explicit timer(std::function<void()> on_expiry);
  ~timer();  // stops
  timer(const timer&) = delete;
  timer& operator=(const timer&) = delete;

  // Calls on_expiry once, after `delay`. At most one expiry may be outstanding; on_expiry itself may ask for
  // the next. Needs no memory. Does nothing after stop().
  void expire_after(std::chrono::nanoseconds delay) noexcept;

  // on_expiry is not called any more; a call that is under way has returned. Not from within on_expiry, nor
  // with a lock that it takes.
  void stop() noexcept;

 private:
  struct implementation;
  std::unique_ptr<implementation> implementation_;  // keeps Asio, slow to compile, out of everybody else
};

}  // namespace offgil
