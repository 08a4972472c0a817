// compute.hpp - the two articles' computations: plain C++, no Python, shared by every binding of them.
#pragma once

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>

namespace offgil::examples {

// Makes the optimizer take `value` as used and unknown. Without it a compiler may replace a whole loop by its
// closed form, and a function that is meant to keep a CPU busy would return at once whatever `n` is.
inline void keep(std::uint64_t& value) { asm volatile("" : "+r"(value)); }

// The nth Fibonacci number modulo 2^64, by n - 1 additions: its time grows linearly with n.
inline std::uint64_t fibonacci(std::uint64_t n) {
  if (n <= 1) return n;
  std::uint64_t previous = 0;
  std::uint64_t current = 1;
  for (std::uint64_t i = 1; i < n; ++i) {
    std::uint64_t next = previous + current;
    keep(next);
    previous = current;
    current = next;
  }
  return current;
}

// 0 + 1 + ... + (n - 1) modulo 2^64, by n additions. Unsigned, because the article's `int` overflows from
// n = 65537 on, and that is undefined.
inline std::uint64_t cumulative_sum(std::uint64_t n) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    sum += i;
    keep(sum);
  }
  return sum;
}

// Blocks this thread for `seconds`. The bound (31 years) keeps the conversion to nanoseconds in range; NaN is
// refused with the rest.
inline void sleep_for(double seconds) {
  if (!(seconds >= 0.0 && seconds <= 1e9)) throw std::invalid_argument("seconds must be between 0 and 1e9");
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// The first article's job: the sum, then a sleep.
inline std::uint64_t expensive(std::uint64_t n, double seconds) {
  const std::uint64_t sum = cumulative_sum(n);
  sleep_for(seconds);
  return sum;
}

}  // namespace offgil::examples
