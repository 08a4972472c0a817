// instrumentation.hpp - what others have put around the standard executor's submit(), as tracers do.
#pragma once

#include <Python.h>

namespace offgil::python {

// Follows ThreadPoolExecutor.submit of concurrent.futures, and puts around a method of ours what has been put
// around that. Guarded by the GIL. Never destroyed.
class instrumented_method {
 public:
  // `name` is that of a method of offgil._core.Executor.
  explicit constexpr instrumented_method(const char* name) noexcept : name_(name) {}

  // What to call in place of the method, with the executor as its first argument; borrowed. Null where nobody
  // has put anything around the standard one, as a rule: that costs one comparison. Throws what Python
  // raises.
  PyObject* wrapper();

 private:
  void look();

  const char* const name_;
  unsigned seen_version_ = 0;  // of the standard class
  PyObject* seen_ = nullptr;   // its submit
  PyObject* wrapper_ = nullptr;
};

// Once, before the first executor is made.
void find_standard_executor();

}  // namespace offgil::python
