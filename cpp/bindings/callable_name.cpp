// callable_name.cpp - what to call a callable.
#include "callable_name.hpp"

#include "partial_call.hpp"

namespace offgil::python {

std::string callable_name(const py::object& callable) noexcept {
  if (!callable) return "a job";
  const auto inner = partial_call_of(callable.ptr());
  const py::handle named = inner ? inner->function.ptr() : callable.ptr();
  for (const char* attribute : {"__qualname__", "__name__"}) {
    PyObject* const name = PyObject_GetAttrString(named.ptr(), attribute);
    const char* const text = name != nullptr && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : nullptr;
    const std::string found = text == nullptr ? "" : text;
    PyErr_Clear();
    Py_XDECREF(name);
    if (!found.empty()) return found;
  }
  return Py_TYPE(named.ptr())->tp_name;
}

}  // namespace offgil::python
