// instrumentation.cpp - what others have put around the standard executor's submit(), as tracers do.
#include "instrumentation.hpp"

#include <pybind11/pybind11.h>

#include <utility>

namespace offgil::python {

namespace py = pybind11;

namespace {

PyTypeObject* standard = nullptr;  // concurrent.futures.ThreadPoolExecutor

}  // namespace

void find_standard_executor() {
  const py::object type = py::module_::import("concurrent.futures").attr("ThreadPoolExecutor");
  standard = reinterpret_cast<PyTypeObject*>(py::object(type).release().ptr());
}

// A class has another version number after each change, and none until somebody looks into it.
PyObject* instrumented_method::wrapper() {
  if (seen_version_ == 0 || standard->tp_version_tag != seen_version_) look();
  return wrapper_;
}

// Runs Python code, meanwhile another thread may look, and the class change: then the next one looks again.
void instrumented_method::look() {
  static PyObject* const submit = PyUnicode_InternFromString("submit");
  PyObject* const found = _PyType_Lookup(standard, submit);  // as it is in the class, and not bound
  const unsigned version = standard->tp_version_tag;
  if (found != nullptr && found != seen_) {
    const auto held = py::reinterpret_borrow<py::object>(found);
    const auto ours = py::module_::import("offgil._core").attr("Executor").attr(name_);
    const py::object made = py::module_::import("offgil._instrumentation").attr("put_around")(held, ours);
    if (standard->tp_version_tag != version) return;
    Py_XDECREF(std::exchange(wrapper_, made.is_none() ? nullptr : Py_NewRef(made.ptr())));
    Py_XDECREF(std::exchange(seen_, Py_NewRef(found)));
  }
  seen_version_ = version;
}

}  // namespace offgil::python
