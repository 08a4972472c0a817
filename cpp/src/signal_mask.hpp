// signal_mask.hpp - which signals a thread blocks.
#pragma once

#include <pthread.h>

#include <csignal>
#include <initializer_list>

namespace offgil {

// A value. The functions that touch a thread's mask are for the calling one.
class signal_mask {
 public:
  static signal_mask of_this_thread() noexcept {
    signal_mask seen;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &seen.blocked_);
    return seen;
  }

  // All but those by which the kernel tells a thread of its own fault. Those end the process, blocked or not;
  // blocked, they do so without the handlers that would say where.
  static signal_mask of_all_but_faults() noexcept {
    signal_mask made;
    sigfillset(&made.blocked_);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
      sigdelset(&made.blocked_, fault);
    return made;
  }

  void apply() const noexcept { ::pthread_sigmask(SIG_SETMASK, &blocked_, nullptr); }

 private:
  signal_mask() noexcept { sigemptyset(&blocked_); }

  sigset_t blocked_;
};

}  // namespace offgil
