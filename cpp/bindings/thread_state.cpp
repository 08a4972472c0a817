// thread_state.cpp - what Python keeps of a thread of ours.
#include "thread_state.hpp"

#include <pthread.h>

#include <mutex>

namespace offgil::python {
namespace {

// Up to 3.11 a forked child waits for ever for a lock of the interpreter's that another thread had at the
// fork. Whoever deletes a state has the GIL as well, and so does who forks; but not who makes one.
#if PY_VERSION_HEX < 0x030C0000
std::mutex no_fork_meanwhile;

// When the library is loaded, as in fork.cpp.
[[maybe_unused]] const int registered = ::pthread_atfork(
    [] { no_fork_meanwhile.lock(); }, [] { no_fork_meanwhile.unlock(); }, [] { no_fork_meanwhile.unlock(); });

PyThreadState* make() noexcept {
  const std::lock_guard lock(no_fork_meanwhile);
  return PyThreadState_New(PyInterpreterState_Main());
}
#else
PyThreadState* make() noexcept { return PyThreadState_New(PyInterpreterState_Main()); }
#endif

}  // namespace

PyThreadState* make_thread_state() noexcept {
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
