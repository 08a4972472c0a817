// module.cpp - table of contents of offgil._core.
#include <pybind11/pybind11.h>

#include "concurrent_future.hpp"
#include "cpu_count.hpp"
#include "errors.hpp"
#include "executor.hpp"
#include "exit_hook.hpp"
#include "future_style.hpp"
#include "loop_channel.hpp"
#include "names.hpp"
#include "native_function.hpp"
#include "partial_call.hpp"
#include "pool.hpp"
#include "running_loop.hpp"

// What Python finds is the function at the end.
#undef PYBIND11_EXPORT
#define PYBIND11_EXPORT

namespace {

PyObject* usable_cpu_count(PyObject*, PyObject*) noexcept {
  return PyLong_FromUnsignedLong(offgil::usable_cpu_count());
}

PyMethodDef functions[] = {
    {"usable_cpu_count", &usable_cpu_count, METH_NOARGS,
     "usable_cpu_count()\n--\n\nCPUs that this process may use: affinity and cgroup quota."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

PYBIND11_MODULE(_core_in_main_interpreter, m) {
  using namespace offgil::python;
  m.doc() = "The C++ side of offgil. Everything public is in the package offgil.";
  intern_names();
  find_running_loop();
  bind_errors(m);
  bind_partial_call();
  bind_native_function(m);
  prepare_loop_channels();
  prepare_inline_futures();
  bind_concurrent_future(m);
  bind_pool(m);
  bind_executor(m);
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw pybind11::error_already_set();
  install_exit_hook();
}

// What the module keeps belongs to one interpreter. This comes before pybind11 has a part in it, which hangs
// in a subinterpreter of Python 3.11.
PyMODINIT_FUNC PyInit__core() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "offgil works in the main interpreter only, not in a subinterpreter");
    return nullptr;
  }
  return PyInit__core_in_main_interpreter();
}
