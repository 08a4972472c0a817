// native_function.hpp - the Python type of a native function.
#pragma once

#include <pybind11/pybind11.h>

#include "bridge_job.hpp"
#include "native_job.hpp"

namespace offgil::python {

namespace py = pybind11;

// offgil.NativeFunction: wraps a plugin's capsule. Callable directly, with the GIL released; pickled by its
// qualified name; kept alive by its jobs.
struct native_function_fields {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* capsule;     // owns what `kind` refers to
  PyObject* defaults;    // a tuple: the values that the signature gives as texts
  PyObject* attributes;  // __dict__
  PyObject* weak_references;
};

struct native_function : native_function_fields {
  native_kind kind;

  static bool check(PyObject* object) noexcept;
  static native_function& of(PyObject* object) noexcept {
    return *reinterpret_cast<native_function*>(object);
  }
};

void bind_native_function(py::module_& m);

}  // namespace offgil::python
