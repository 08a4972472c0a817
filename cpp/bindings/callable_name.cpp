// callable_name.cpp - what to call a callable.
#include "callable_name.hpp"

namespace offgil::python {

std::string callable_name(const py::object& callable) noexcept {
  if (!callable) return "a job";
  for (const char* attribute : {"__qualname__", "__name__"}) {
    PyObject* const name = PyObject_GetAttrString(callable.ptr(), attribute);
    const char* const text = name != nullptr && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : nullptr;
    const std::string found = text == nullptr ? "" : text;
    PyErr_Clear();
    Py_XDECREF(name);
    if (!found.empty()) return found;
  }
  return Py_TYPE(callable.ptr())->tp_name;
}

}  // namespace offgil::python
