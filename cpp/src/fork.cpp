// fork.cpp - whether this process was forked from another one since.
#include "fork.hpp"

#include <pthread.h>

#include <atomic>

namespace offgil {
namespace {

std::atomic<std::uint64_t> generation{0};

void count_fork() { generation.fetch_add(1, std::memory_order_relaxed); }

// When the library is loaded: a fork that has begun before the handler was registered does not call it.
[[maybe_unused]] const int registered = ::pthread_atfork(nullptr, nullptr, &count_fork);

}  // namespace

process_generation::process_generation() noexcept : born_in_(generation.load(std::memory_order_relaxed)) {}

bool process_generation::is_over() const noexcept {
  return born_in_ != generation.load(std::memory_order_relaxed);
}

}  // namespace offgil
