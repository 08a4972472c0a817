// c_method.hpp - methods of pybind11 classes that are too hot for pybind11's dispatch.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace offgil::python {

namespace py = pybind11;

using fast_function = PyObject* (*)(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                                    PyObject* kwnames) noexcept;

inline PyMethodDef c_method(const char* name, fast_function function, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function)),
          METH_FASTCALL | METH_KEYWORDS, doc};
}

// Whether a call of such a method gives one argument at most, by position or by this name.
inline bool gives_at_most(const char* name, Py_ssize_t nargs, PyObject* kwnames) noexcept {
  const Py_ssize_t named = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  return nargs + named <= 1 &&
         (named == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), name) == 0);
}

// The definition must live for ever.
inline void add_c_method(const py::object& type, PyMethodDef& definition) {
  PyObject* const method = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &definition);
  if (method == nullptr) throw py::error_already_set();
  type.attr(definition.ml_name) = py::reinterpret_steal<py::object>(method);
}

// The C++ object in an instance; null before __init__ has run. pybind11 keeps the pointer at the front where,
// as with our classes, there is only one: casting would look the type up on every call, and make room for an
// object where there is none. A collection may come even before the instance has a layout, where
// py::detail::is_holder_constructed() reads through a null pointer.
template <class T>
T* constructed_object(PyObject* self) noexcept {
  const auto* const instance = reinterpret_cast<const py::detail::instance*>(self);
  if (!instance->simple_layout || !instance->simple_holder_constructed) return nullptr;
  return static_cast<T*>(instance->simple_value_holder[0]);
}

// The C++ object of such a method's `self`. Throws TypeError where a subclass has yet to call __init__.
template <class T>
T& this_object(PyObject* self) {
  T* const made = constructed_object<T>(self);
  if (made == nullptr)
    throw py::type_error(std::string(Py_TYPE(self)->tp_name) + ".__init__() has not been called");
  return *made;
}

}  // namespace offgil::python
