// partial_call.cpp - what a functools.partial calls in the end.
#include "partial_call.hpp"

#include <cstring>

#include "names.hpp"

namespace offgil::python {
namespace {

PyTypeObject* partial_type = nullptr;  // functools.partial itself: what a subclass does is its own business

// A member that the partial goes on holding; null where it is of another type.
PyObject* member(PyObject* partial, PyObject* name, PyTypeObject* type) noexcept {
  PyObject* const value = PyObject_GetAttr(partial, name);
  if (value == nullptr) return PyErr_Clear(), nullptr;
  Py_DECREF(value);
  return type == nullptr || Py_TYPE(value) == type ? value : nullptr;
}

bool is_run_of_a_context(PyObject* function) noexcept {
  return PyCFunction_CheckExact(function) && PyCFunction_GET_SELF(function) != nullptr &&
         PyContext_CheckExact(PyCFunction_GET_SELF(function)) &&
         std::strcmp(reinterpret_cast<PyCFunctionObject*>(function)->m_ml->ml_name, "run") == 0;
}

}  // namespace

std::optional<partial_call> partial_call_of(PyObject* callable) noexcept {
  if (Py_TYPE(callable) != partial_type) return std::nullopt;
  PyObject* const function = member(callable, names::get().func, nullptr);
  PyObject* const args = member(callable, names::get().args, &PyTuple_Type);
  PyObject* const keywords = member(callable, names::get().keywords, &PyDict_Type);
  if (function == nullptr || args == nullptr || keywords == nullptr) return std::nullopt;
  partial_call call{function, &PyTuple_GET_ITEM(args, 0), static_cast<std::size_t>(PyTuple_GET_SIZE(args)),
                    PyDict_GET_SIZE(keywords) != 0};
  if (is_run_of_a_context(function) && call.nargs != 0) {
    call.function = *call.args++;
    --call.nargs;
  }
  return call;
}

void bind_partial_call() {
  const py::object partial = py::module_::import("functools").attr("partial");
  partial_type = reinterpret_cast<PyTypeObject*>(py::object(partial).release().ptr());
}

}  // namespace offgil::python
