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
template <class Predicate>
std::size_t threads_whose_name(Predicate fits) {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (fits(name)) ++count;
  }
  return count;
}

inline std::size_t timer_threads() {
  return threads_whose_name([](const std::string& name) { return name == "offgil-time"; });
}

// Workers, and the timer thread that they share.
inline std::size_t threads_of_pools() {
  return threads_whose_name([](const std::string& name) { return name.starts_with("offgil-"); });
}

// Whether a thread of this process waits for something.
inline bool is_asleep(pid_t thread) {
  std::string stat;
  std::getline(std::ifstream("/proc/self/task/" + std::to_string(thread) + "/stat"), stat);
  const std::size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.compare(name_end, 3, ") S") == 0;
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
