// instrumentation.cpp - what others have put around the standard executor's submit(), as tracers do.
#include "instrumentation.hpp"

#include <pybind11/pybind11.h>

#include <utility>

namespace offgil::python {

namespace py = pybind11;

namespace {

PyTypeObject* standard_executor() {
  static auto* const type = reinterpret_cast<PyTypeObject*>(py::module_::import("concurrent.futures")
                                                                .attr("ThreadPoolExecutor")
                                                                .cast<py::object>()
                                                                .release()
                                                                .ptr());
  return type;
}

}  // namespace

// A class has another version number after each change, and none until somebody looks into it.
PyObject* instrumented_method::wrapper() {
  static const PyTypeObject* const standard = standard_executor();
  if (seen_version_ == 0 || standard->tp_version_tag != seen_version_) look();
  return wrapper_;
}

void instrumented_method::look() {
  static PyObject* const submit = PyUnicode_InternFromString("submit");
  PyTypeObject* const standard = standard_executor();
  PyObject* const found = _PyType_Lookup(standard, submit);  // as it is in the class, and not bound
  seen_version_ = standard->tp_version_tag;
  if (found == nullptr || found == seen_) return;
  const auto held = py::reinterpret_borrow<py::object>(found);
  const auto ours = py::module_::import("offgil._core").attr("Executor").attr(name_);
  const py::object made = py::module_::import("offgil._instrumentation").attr("put_around")(held, ours);
  Py_XDECREF(std::exchange(seen_, Py_NewRef(found)));
  Py_XDECREF(std::exchange(wrapper_, made.is_none() ? nullptr : Py_NewRef(made.ptr())));
}

}  // namespace offgil::python
