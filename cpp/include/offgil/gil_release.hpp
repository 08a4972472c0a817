// gil_release.hpp - gives the GIL up for a scope, and may be nested.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace offgil {

// Releases the GIL until the end of the scope if this thread holds it; otherwise does nothing. So it may
// stand in a function that is called with the GIL, without it, from another gil_release, or from a thread
// that Python has never seen. (pybind11::gil_scoped_release kills the process in all cases but the first.)
//
// A thread that wants the GIL back while Python finalizes never gets it: up to 3.13 Python unwinds its stack,
// which would end the process here, in a destructor. It hangs instead, as Python itself does it from 3.14 on.
class gil_release {
 public:
  gil_release() noexcept : held_(PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {}
  ~gil_release() {
    if (held_ != nullptr) restore(held_);
  }
  gil_release(const gil_release&) = delete;
  gil_release& operator=(const gil_release&) = delete;

 private:
  // A frame of its own, that is not noexcept: in one that is, a compiler leaves the guard out.
  [[gnu::noinline]] static void restore(PyThreadState* held) {
    struct guard {
      bool passed = false;
      ~guard() {
        while (!passed) pause();
      }
    } against_unwinding;
    PyEval_RestoreThread(held);
    against_unwinding.passed = true;
  }

  PyThreadState* held_;
};

}  // namespace offgil
