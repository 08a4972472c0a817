// gil_release.hpp - gives the GIL up for a scope, and may be nested.
#pragma once

#include <Python.h>

namespace offgil {

// Releases the GIL until the end of the scope if this thread holds it; otherwise does nothing. So it may
// stand in a function that is called with the GIL, without it, from another gil_release, or from a thread
// that Python has never seen. (pybind11::gil_scoped_release kills the process in all cases but the first.)
class gil_release {
 public:
  gil_release() noexcept : held_(PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {}
  ~gil_release() {
    if (held_ != nullptr) PyEval_RestoreThread(held_);
  }
  gil_release(const gil_release&) = delete;
  gil_release& operator=(const gil_release&) = delete;

 private:
  PyThreadState* held_;
};

}  // namespace offgil
