// partial_call.cpp - what a functools.partial calls in the end.
#include "partial_call.hpp"

#include <cstring>

#include "names.hpp"

namespace offgil::python {
namespace {

PyTypeObject* partial_type = nullptr;  // functools.partial itself: what a subclass does is its own business

// Null where it is of another type.
py::object member(PyObject* partial, PyObject* name, PyTypeObject* type) noexcept {
  auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(partial, name));
  if (!value) PyErr_Clear();
  return value && (type == nullptr || Py_TYPE(value.ptr()) == type) ? value : py::object();
}

bool is_run_of_a_context(PyObject* function) noexcept {
  return PyCFunction_CheckExact(function) && PyCFunction_GET_SELF(function) != nullptr &&
         PyContext_CheckExact(PyCFunction_GET_SELF(function)) &&
         std::strcmp(reinterpret_cast<PyCFunctionObject*>(function)->m_ml->ml_name, "run") == 0;
}

}  // namespace

std::optional<partial_call> partial_call_of(PyObject* callable) noexcept {
  if (Py_TYPE(callable) != partial_type) return std::nullopt;
  partial_call call{member(callable, names::get().func, nullptr),
                    member(callable, names::get().args, &PyTuple_Type)};
  const py::object keywords = member(callable, names::get().keywords, &PyDict_Type);
  if (!call.function || !call.arguments || !keywords) return std::nullopt;
  call.args = &PyTuple_GET_ITEM(call.arguments.ptr(), 0);
  call.nargs = static_cast<std::size_t>(PyTuple_GET_SIZE(call.arguments.ptr()));
  call.has_keywords = PyDict_GET_SIZE(keywords.ptr()) != 0;
  if (is_run_of_a_context(call.function.ptr()) && call.nargs != 0) {
    call.function = py::reinterpret_borrow<py::object>(*call.args++);
    --call.nargs;
  }
  return call;
}

void bind_partial_call() {
  const py::object partial = py::module_::import("functools").attr("partial");
  partial_type = reinterpret_cast<PyTypeObject*>(py::object(partial).release().ptr());
}

}  // namespace offgil::python
