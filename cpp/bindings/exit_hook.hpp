// exit_hook.hpp - what must be gone before Python ends, and how it is told.
#pragma once

#include <chrono>
#include <functional>

#include "clock.hpp"

namespace offgil::python {

// Something with threads that must be gone before Python finalizes: a thread that asks for the GIL later is
// killed in the middle of C++ (up to 3.13) or hangs for ever (from 3.14). All with the GIL held.
class resident {
 public:
  resident() = default;
  virtual ~resident();
  resident(const resident&) = delete;
  resident& operator=(const resident&) = delete;

  // To be called when the object is complete: from here on it may be told to leave.
  void move_in();

  // Called when the main thread has ended: waits for the jobs that were submitted by then, while other
  // threads go on submitting. May leave an exception set, as the next: what a signal handler has raised
  // meanwhile.
  virtual void await_accepted(clock::time_point submitted_by) noexcept = 0;

  // Called once, from an atexit handler: after the non-daemon threads have ended, so that those may use a
  // pool to their end, and before finalization.
  virtual void leave_interpreter() noexcept = 0;
};

// How long a wait without the GIL may go without a look at whether a signal has come.
inline constexpr std::chrono::milliseconds between_signals{50};

// For a resident: waits, with the GIL released, until `ended_within` some time is true. False with an
// exception set when a signal handler raises. From then on no wait of this exit is longer than a moment:
// false, and nothing is set.
bool wait_at_exit(const std::function<bool(std::chrono::nanoseconds)>& ended_within) noexcept;

// True once the residents have been told to leave.
bool is_exiting() noexcept;

void install_exit_hook();

}  // namespace offgil::python
