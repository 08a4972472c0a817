// gil_release.hpp - gives the GIL up for a scope, and may be nested.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace offgil {

// Whether the calling thread holds the GIL; any thread may ask. PyGILState_Check() answers yes to all threads
// once the process has made a subinterpreter.
inline bool gil_is_held() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() != nullptr;
#elif PY_VERSION_HEX >= 0x030C0000
  return _PyThreadState_UncheckedGet() != nullptr;
#else
  PyThreadState* const current = _PyThreadState_UncheckedGet();  // in 3.11 of whichever thread holds the GIL
  return current != nullptr && current == PyGILState_GetThisThreadState();
#endif
}

namespace detail {

// Calls a function that takes the GIL. A thread that wants it while Python finalizes never gets it: up
// to 3.13 Python unwinds the thread's stack, which would end the process in the first destructor on the way.
// The thread hangs instead, as Python itself does it from 3.14 on.
//
// A frame of its own, that is not noexcept: in one that is, a compiler leaves the guard out.
template <class Take>
[[gnu::noinline]] void take_gil(const Take& take) {
  struct guard {
    bool passed = false;
    ~guard() {
      while (!passed) pause();
    }
  } against_unwinding;
  take();
  against_unwinding.passed = true;
}

}  // namespace detail

// Releases the GIL until the end of the scope if this thread holds it; otherwise does nothing. So it may
// stand in a function that is called with the GIL, without it, from another gil_release, or from a thread
// that Python has never seen. (pybind11::gil_scoped_release kills the process in all cases but the first,
// except inside the body of a native function: see native_body.hpp.)
class gil_release {
 public:
  gil_release() noexcept : held_(gil_is_held() ? PyEval_SaveThread() : nullptr) {}
  ~gil_release() {
    if (held_ != nullptr) detail::take_gil([this] { PyEval_RestoreThread(held_); });
  }
  gil_release(const gil_release&) = delete;
  gil_release& operator=(const gil_release&) = delete;

 private:
  PyThreadState* held_;
};

}  // namespace offgil
