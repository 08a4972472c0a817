// object_type.hpp - Python types whose instances hold a C++ object.
//
// They are plain types, as any that is written in C. pybind11's have a metaclass of its own, which keeps ABCs
// and Protocols out of their subclasses, and methods that take the memory of an object that was never made
// for an object.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "errors.hpp"

namespace offgil::python {

namespace py = pybind11;

template <class T>
struct instance_of {
  PyObject_HEAD T* made;  // owned; null until __init__ has run
};

// The C++ object in an instance; null before __init__ has run.
template <class T>
T*& constructed_object(PyObject* self) noexcept {
  return reinterpret_cast<instance_of<T>*>(self)->made;
}

// The C++ object of a method's `self`. Throws TypeError where there is none.
template <class T>
T& this_object(PyObject* self) {
  T* const made = constructed_object<T>(self);
  if (made == nullptr)
    throw py::type_error(std::string(Py_TYPE(self)->tp_name) +
                         ".__init__() has not been called, or has failed");
  return *made;
}

// ---- methods ----

template <class T, class Result, class... Rest>
T object_of(Result (*)(T&, Rest...));

// Calls body(object, rest...), for Python.
template <auto body, class... Rest>
PyObject* answer(PyObject* self, Rest... rest) noexcept {
  using object = decltype(object_of(body));
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    auto& of = this_object<object>(self);
    if constexpr (std::is_void_v<decltype(body(of, rest...))>) {
      body(of, rest...);
      Py_RETURN_NONE;
    } else {
      return py::object(py::detail::object_or_cast(body(of, rest...))).release().ptr();
    }
  });
}

template <auto body>
PyObject* method(PyObject* self, PyObject*) noexcept {  // METH_NOARGS
  return answer<body>(self);
}

template <auto body>
PyObject* method_of_one(PyObject* self, PyObject* argument) noexcept {  // METH_O, METH_VARARGS
  return answer<body>(self, argument);
}

template <auto body>
PyObject* property(PyObject* self, void*) noexcept {
  return answer<body>(self);
}

// __reduce__(). Without it the oldest protocols would pickle an instance as one that was never made.
inline PyObject* refuse_to_reduce(PyObject* self, PyObject*) noexcept {
  PyErr_Format(PyExc_TypeError, "cannot pickle '%.200s' object", Py_TYPE(self)->tp_name);
  return nullptr;
}

// ---- slots ----

// tp_init. An object is never replaced: other threads may be inside a call on it that has released the GIL.
template <class T, std::unique_ptr<T> (*make)(PyObject* args, PyObject* kwargs)>
int initialise(PyObject* self, PyObject* args, PyObject* kwargs) noexcept {
  return guarded(-1, [&] {
    const auto check_not_made = [self] {
      if (constructed_object<T>(self) != nullptr)
        raise(PyExc_RuntimeError,
              std::string(Py_TYPE(self)->tp_name) + ".__init__() has been called already");
    };
    check_not_made();
    auto made = make(args, kwargs);
    check_not_made();  // making it may release the GIL
    constructed_object<T>(self) = made.release();
    return 0;
  });
}

// tp_dealloc.
template <class T>
void deallocate(PyObject* self) noexcept {
  PyObject_GC_UnTrack(self);
  {
    const py::error_scope kept;  // an exception may be on its way, and what dies may run Python code
    std::unique_ptr<T>(std::exchange(constructed_object<T>(self), nullptr)).reset();
  }
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

// tp_traverse and tp_clear, of what holds an initializer.
template <class T>
int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (const auto* const made = constructed_object<T>(self)) Py_VISIT(made->initializer().ptr());
  return 0;
}

template <class T>
int clear(PyObject* self) {
  if (auto* const made = constructed_object<T>(self)) made->drop_initializer();
  return 0;
}

template <class Function>
void* as_slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

// Makes the type of instance_of<T>, and puts it into the module. Kept for ever.
template <class T>
PyTypeObject* add_object_type(py::module_& m, const char* name, const char* full_name, PyType_Slot* slots) {
  PyType_Spec spec{full_name, sizeof(instance_of<T>), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyObject* const type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  m.add_object(name, type);
  return reinterpret_cast<PyTypeObject*>(type);
}

}  // namespace offgil::python
