// process.hpp - what a test wants to know of its own process.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace offgil::testing {

// A sanitizer makes everything several times slower; stress tests then do with fewer rounds.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool address_sanitizer = true;
#else
inline constexpr bool address_sanitizer = false;
#endif

constexpr std::size_t rounds(std::size_t plain) noexcept {
  return thread_sanitizer ? plain / 8 : address_sanitizer ? plain / 4 : plain;
}

// By name, because a sanitizer may have threads of its own. A thread that starts gets its name a little
// later, one that has been joined may still be listed for a moment.
inline std::size_t threads_of_pools(const std::string& called = "offgil") {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name.starts_with(called + '-')) ++count;
  }
  return count;
}

inline std::size_t descriptor_count() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Runs `body` in a forked child. Zero when no expectation failed there.
template <class Body>
int exit_code_of_child(Body body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    body();
    std::fflush(stdout);
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace offgil::testing
