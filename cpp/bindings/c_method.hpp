// c_method.hpp - methods that take any arguments, without a tuple and a dict made for them.
#pragma once

#include <Python.h>

namespace offgil::python {

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

}  // namespace offgil::python
