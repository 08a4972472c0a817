// running_loop.cpp - which event loop runs on this thread.
#include "running_loop.hpp"

#include "names.hpp"

namespace offgil::python {

py::object running_loop() {
  static PyObject* const get =
      py::module_::import("asyncio").attr("get_running_loop").cast<py::object>().release().ptr();
  PyObject* const loop = PyObject_CallNoArgs(get);
  if (loop == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(loop);
}

PyObject* running_loop_token() noexcept {
  PyObject* const of_thread = PyThreadState_GetDict();
  if (of_thread == nullptr) return nullptr;
  PyObject* const token = PyDict_GetItemWithError(of_thread, names::get().running_event_loop);
  if (token == nullptr) PyErr_Clear();
  return token;
}

}  // namespace offgil::python
