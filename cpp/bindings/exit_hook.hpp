// exit_hook.hpp - what must be gone before Python ends, and how it is told.
#pragma once

#include <chrono>

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

  // Called once, from an atexit handler: after the non-daemon threads have ended, so that those may use a
  // pool to their end, and before finalization. May leave an exception set: an interrupt that came meanwhile.
  virtual void leave_interpreter() noexcept = 0;
};

// How long a wait without the GIL may go without a look at whether a signal has come.
inline constexpr std::chrono::milliseconds between_signals{50};

// True once the residents have been told to leave.
bool is_exiting() noexcept;

void install_exit_hook();

}  // namespace offgil::python
