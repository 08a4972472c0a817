// running_loop.cpp - which event loop runs on this thread.
#include "running_loop.hpp"

#include <cstdint>

#include "names.hpp"

namespace offgil::python {
namespace {

PyObject* get_running_loop = nullptr;  // kept for ever

PyObject* look_up(PyObject* of_thread) noexcept {
  PyObject* const token = PyDict_GetItemWithError(of_thread, names::get().running_event_loop);
  if (token == nullptr) PyErr_Clear();
  return token;
}

#if PY_VERSION_HEX < 0x030E0000
std::uint64_t version_of(PyObject* dict) noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // since 3.12; gone in 3.14
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#pragma GCC diagnostic pop
}
#endif

}  // namespace

void find_running_loop() {
  get_running_loop =
      py::module_::import("asyncio").attr("get_running_loop").cast<py::object>().release().ptr();
}

py::object running_loop() {
  PyObject* const loop = PyObject_CallNoArgs(get_running_loop);
  if (loop == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(loop);
}

PyObject* running_loop_token() noexcept {
  PyObject* const of_thread = PyThreadState_GetDict();
  if (of_thread == nullptr) return nullptr;
#if PY_VERSION_HEX < 0x030E0000
  // No two states of any dicts have the same version (PEP 509).
  struct answer {
    std::uint64_t version = 0;
    PyObject* token = nullptr;
  };
  thread_local answer last;
  const std::uint64_t version = version_of(of_thread);
  if (version == last.version) return last.token;
  last = {version, look_up(of_thread)};
  return last.token;
#else
  return look_up(of_thread);
#endif
}

}  // namespace offgil::python
