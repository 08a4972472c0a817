// thread_state.cpp - what Python keeps of a thread of ours.
#include "thread_state.hpp"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <utility>

namespace offgil::python {
namespace {

// Up to 3.11 a forked child waits for ever for a lock of the interpreter's that another thread had at the
// fork. A thread that deletes a state holds the GIL, as a forking thread does; one that makes a state does
// not.
#if PY_VERSION_HEX < 0x030C0000
std::timed_mutex no_fork_meanwhile;
thread_local bool this_fork_has_it = false;

// tracemalloc takes the GIL for each allocation, that of a state as well: the thread that makes one may wait
// for the thread that forks.
void begin_fork() {
  constexpr std::chrono::milliseconds longer_than_it_takes{50};
  this_fork_has_it = no_fork_meanwhile.try_lock_for(longer_than_it_takes);
}

void end_fork() {
  if (std::exchange(this_fork_has_it, false)) no_fork_meanwhile.unlock();
}

// The thread that has the mutex may not be in the child.
void end_fork_in_child() {
  this_fork_has_it = false;
  std::construct_at(&no_fork_meanwhile);
}

// When the library is loaded, as in fork.cpp.
[[maybe_unused]] const int registered = ::pthread_atfork(&begin_fork, &end_fork, &end_fork_in_child);

PyThreadState* make() noexcept {
  const std::lock_guard lock(no_fork_meanwhile);
  return PyThreadState_New(PyInterpreterState_Main());
}
#else
PyThreadState* make() noexcept { return PyThreadState_New(PyInterpreterState_Main()); }
#endif

}  // namespace

bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// From 3.14 on a state that is made when Python has ended ends the process: the thread hangs, as one does
// that asks for the GIL.
PyThreadState* make_thread_state() noexcept {
  while (is_finalizing()) pause();
  PyThreadState* const made = make();
  if (made == nullptr) Py_FatalError("no memory for the state of a thread");
  PyEval_AcquireThread(made);
  return made;
}

// Not by PyGILState_Release(): up to 3.12.3 it clears the state when nobody counts as using it any more. What
// dies there, as the values of a threading.local do, may run code, and the first of it that acquires and
// releases the GIL would delete the state under all the others.
void end_thread_state() noexcept {
  PyThreadState_Clear(PyThreadState_Get());
  PyThreadState_DeleteCurrent();
}

}  // namespace offgil::python
