// native_body.hpp - lets a native function's body release and take the GIL as if its caller held it.
#pragma once

#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <unwind.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <utility>

#include "offgil/abi.h"
#include "offgil/gil_release.hpp"

namespace offgil {
namespace [[gnu::visibility("hidden")]] sdk {

// While one lives, the thread runs the body of a native function, or destroys the arguments of one. Then, in
// all code of the module, static libraries included, whether it knows of this header or not:
//
// - To release the GIL (pybind11::gil_scoped_release, Py_BEGIN_ALLOW_THREADS) has no effect where the thread
//   does not hold it. It would end the process.
// - Each taking of it (pybind11::gil_scoped_acquire, PyGILState_Ensure, the end of a release) is reported to
//   the host.
// - A thread that wants it while Python finalizes hangs, as with gil_release.
//
// Elsewhere nothing changes: a plain pybind11 function of the module runs as ever.
class native_body {
 public:
  explicit native_body(const offgil_host& host) noexcept
      : host_(host), outer_(std::exchange(innermost, this)) {}
  ~native_body() { innermost = outer_; }
  native_body(const native_body&) = delete;
  native_body& operator=(const native_body&) = delete;

  // That of the calling thread, or null.
  static const native_body* current() noexcept { return innermost; }

  // A host of ABI 1.0 does not count.
  void count_acquisition() const noexcept {
    constexpr std::size_t needed = offsetof(offgil_host, gil_acquired) + sizeof(offgil_host::gil_acquired);
    if (host_.struct_size >= needed) host_.gil_acquired(&host_);
  }

 private:
  static inline constinit thread_local const native_body* innermost = nullptr;

  const offgil_host& host_;
  const native_body* const outer_;
};

// What has no host to report to.
inline constexpr offgil_host no_host{
    .struct_size = offsetof(offgil_host, gil_acquired), .reserved = 0, .gil_acquired = nullptr};

// Python's functions, behind those that the module has in their place.
struct python_calls {
  PyThreadState* (*save_thread)();
  void (*restore_thread)(PyThreadState*);
  void (*acquire_thread)(PyThreadState*);
  PyGILState_STATE (*ensure)();
  int (*check)();

  static const python_calls& get() noexcept {
    static const python_calls found = [] {
      python_calls calls{};
      find(calls.save_thread, "PyEval_SaveThread");
      find(calls.restore_thread, "PyEval_RestoreThread");
      find(calls.acquire_thread, "PyEval_AcquireThread");
      find(calls.ensure, "PyGILState_Ensure");
      find(calls.check, "PyGILState_Check");
      return calls;
    }();
    return found;
  }

 private:
  template <class Function>
  static void find(Function*& function, const char* name) noexcept {
    function = reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
  }
};

// A build with assertions asks PyGILState_Check() before it releases the GIL, and before it changes a
// reference count. In a body without the GIL only the first may hear yes. The two are told apart by where the
// question comes from: the constructor of gil_scoped_release, which is a function of its own in a build that
// is not optimised.
class release_guard {
 public:
  // Before the first body runs. With the GIL, which it keeps.
  static void learn() {
    [[maybe_unused]] static const bool learned = [] {
      const struct scope {
        scope() noexcept { is_learning = true; }
        ~scope() { is_learning = false; }
      } mark;
      construct();
      return true;
    }();
  }

  static bool is_being_learned() noexcept { return is_learning; }

  // Whether the code at that address belongs to it.
  static bool contains(void* code) noexcept {
    if (!is_learning && constructor == nullptr) return false;
    const void* const function = _Unwind_FindEnclosingFunction(code);
    if (is_learning) constructor = function;
    return function == constructor;
  }

 private:
  [[gnu::noinline]] static void construct() { const pybind11::gil_scoped_release learned_by_its_question; }

  static inline constinit thread_local bool is_learning = false;
  static inline const void* constructor = nullptr;
};

}  // namespace sdk
}  // namespace offgil

// ---- the module's own functions ----
//
// They have the names of Python's, which are found when the module is loaded; what the module has itself the
// linker prefers, any linker, without an option that one might forget. They are hidden, so that no other
// module finds them. Not in an executable, where one that contains Python would hide it from all its modules:
// there a release without the GIL ends the process, as ever.
#if defined(__ELF__) && defined(__PIC__) && !defined(__PIE__)

#define OFFGIL_IN_PLACE_OF(function) __asm__(function) __attribute__((visibility("hidden"), weak, used))

extern "C" {

PyThreadState* offgil_save_thread() OFFGIL_IN_PLACE_OF("PyEval_SaveThread");
void offgil_restore_thread(PyThreadState*) OFFGIL_IN_PLACE_OF("PyEval_RestoreThread");
void offgil_acquire_thread(PyThreadState*) OFFGIL_IN_PLACE_OF("PyEval_AcquireThread");
PyGILState_STATE offgil_ensure() OFFGIL_IN_PLACE_OF("PyGILState_Ensure");
int offgil_check() OFFGIL_IN_PLACE_OF("PyGILState_Check");
[[noreturn]] void offgil_assert_fail(const char*, const char*, unsigned, const char*) noexcept
    OFFGIL_IN_PLACE_OF("__assert_fail");

PyThreadState* offgil_save_thread() {
  using namespace offgil::sdk;
  if (release_guard::is_being_learned()) return nullptr;
  if (native_body::current() != nullptr && !offgil::gil_is_held()) return nullptr;
  return python_calls::get().save_thread();
}

void offgil_restore_thread(PyThreadState* state) {
  using namespace offgil::sdk;
  const auto* const body = native_body::current();
  if (state == nullptr && (body != nullptr || release_guard::is_being_learned())) return;
  if (body == nullptr) return python_calls::get().restore_thread(state);
  offgil::detail::take_gil([&] { python_calls::get().restore_thread(state); });
  body->count_acquisition();
}

void offgil_acquire_thread(PyThreadState* state) {
  using namespace offgil::sdk;
  const auto* const body = native_body::current();
  if (body == nullptr) return python_calls::get().acquire_thread(state);
  offgil::detail::take_gil([&] { python_calls::get().acquire_thread(state); });
  body->count_acquisition();
}

PyGILState_STATE offgil_ensure() {
  using namespace offgil::sdk;
  const auto* const body = native_body::current();
  if (body == nullptr || offgil::gil_is_held()) return python_calls::get().ensure();
  PyGILState_STATE before{};
  offgil::detail::take_gil([&] { before = python_calls::get().ensure(); });
  body->count_acquisition();
  return before;
}

int offgil_check() {
  using namespace offgil::sdk;
  const bool may_be_told_so = native_body::current() != nullptr || release_guard::is_being_learned();
  if (may_be_told_so && release_guard::contains(__builtin_extract_return_addr(__builtin_return_address(0))))
    return 1;
  return python_calls::get().check();
}

// Where the two questions cannot be told apart, the process says what to do before it dies.
void offgil_assert_fail(const char* assertion, const char* file, unsigned line,
                        const char* function) noexcept {
  if (offgil::sdk::native_body::current() != nullptr && function != nullptr &&
      std::strstr(function, "gil_scoped_release") != nullptr)
    std::fputs(
        "offgil: pybind11::gil_scoped_release in a native function needs a build with NDEBUG defined, "
        "or without optimisation; offgil::gil_release works in any.\n",
        stderr);
  using assert_fail = void(const char*, const char*, unsigned, const char*);
  reinterpret_cast<assert_fail*>(::dlsym(RTLD_DEFAULT, "__assert_fail"))(assertion, file, line, function);
  __builtin_trap();
}

}  // extern "C"

#undef OFFGIL_IN_PLACE_OF

#endif
