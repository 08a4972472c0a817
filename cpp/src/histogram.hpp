// histogram.hpp - durations counted by powers of two.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace offgil {

// One thread records, any thread reads. Bucket i holds the durations below 2^(i+7) ns that fit no smaller
// bucket; the last one (over 2^37 ns, 137 s) has no upper bound.
class histogram {
 public:
  static constexpr std::size_t bucket_count = 32;
  static constexpr int first_exponent = 7;

  struct snapshot {
    std::array<std::uint64_t, bucket_count> counts{};
    std::chrono::nanoseconds sum{0};

    snapshot& operator+=(const snapshot& other) noexcept {
      for (std::size_t i = 0; i < bucket_count; ++i) counts[i] += other.counts[i];
      sum += other.sum;
      return *this;
    }
  };

  static constexpr std::chrono::nanoseconds upper_bound(std::size_t bucket) noexcept {
    return std::chrono::nanoseconds(std::int64_t{1} << (bucket + first_exponent));
  }

  void record(std::chrono::nanoseconds duration) noexcept {
    const auto ns = static_cast<std::uint64_t>(duration.count() < 0 ? 0 : duration.count());
    const auto exponent = static_cast<int>(std::bit_width(ns));
    const auto bucket = static_cast<std::size_t>(exponent <= first_exponent ? 0 : exponent - first_exponent);
    add(counts_[bucket < bucket_count ? bucket : bucket_count - 1], 1);
    add(sum_, ns);
  }

  snapshot read() const noexcept {
    snapshot seen;
    for (std::size_t i = 0; i < bucket_count; ++i)
      seen.counts[i] = counts_[i].load(std::memory_order_relaxed);
    seen.sum = std::chrono::nanoseconds(static_cast<std::int64_t>(sum_.load(std::memory_order_relaxed)));
    return seen;
  }

 private:
  // With one writer a load and a store are enough, and cheaper than a locked addition.
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  std::array<std::atomic<std::uint64_t>, bucket_count> counts_{};
  std::atomic<std::uint64_t> sum_{0};
};

}  // namespace offgil
