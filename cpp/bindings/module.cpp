// module.cpp - table of contents of offgil._core.
#include <pybind11/pybind11.h>

#include "cpu_count.hpp"
#include "errors.hpp"
#include "future_style.hpp"
#include "interpreter.hpp"
#include "names.hpp"
#include "native_function.hpp"
#include "pool.hpp"
#include "running_loop.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace offgil::python;
  m.doc() = "The C++ side of offgil. Everything public is in the package offgil.";
  // What the module keeps belongs to one interpreter.
  if (PyInterpreterState_Get() != PyInterpreterState_Main())
    throw pybind11::import_error("offgil can be used in the main interpreter only, not in a subinterpreter");
  intern_names();
  find_running_loop();
  bind_errors(m);
  bind_native_function(m);
  prepare_inline_futures();
  bind_pool(m);
  m.def("usable_cpu_count", &offgil::usable_cpu_count,
        "CPUs that this process may use: affinity and cgroup quota.");
  install_exit_hook();
}
