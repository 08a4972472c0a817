// guard_library.cpp - a static library that has its own ideas of the GIL, and has never heard of offgil.
#include "guard_library.hpp"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace library {

int released(int x) {
  const py::gil_scoped_release release;
  return x + 1;
}

int acquired(int x) {
  const py::gil_scoped_release release;
  const py::gil_scoped_acquire acquire;
  return py::cast<int>(py::int_(x) + py::int_(1));
}

int in_the_c_api(int x) {
  Py_BEGIN_ALLOW_THREADS;
  const PyGILState_STATE state = PyGILState_Ensure();
  Py_BEGIN_ALLOW_THREADS;
  ++x;
  Py_END_ALLOW_THREADS;
  PyGILState_Release(state);
  Py_END_ALLOW_THREADS;
  return x;
}

}  // namespace library
