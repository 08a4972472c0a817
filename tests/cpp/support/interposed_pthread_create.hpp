// interposed_pthread_create.hpp - makes the engine's threads fail to start. For one source file of a program.
#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

namespace offgil::testing {

// Which of the next calls fails, counted from one. Zero: none.
inline std::atomic<int> failing_pthread_create{0};

}  // namespace offgil::testing

// Stands before the C library's (or a sanitizer's) function of the same name when the engine is linked.
extern "C" int pthread_create(pthread_t* handle, const pthread_attr_t* attributes, void* (*body)(void*),
                              void* argument) noexcept {
  using function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto next = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "pthread_create"));
  auto& failing = offgil::testing::failing_pthread_create;
  if (failing.load() > 0 && failing.fetch_sub(1) == 1) return EAGAIN;
  return next(handle, attributes, body, argument);
}
