// test_histogram.cpp - durations counted by powers of two.
#include "histogram.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace offgil {
namespace {

using std::chrono::nanoseconds;

std::uint64_t total(const histogram::snapshot& seen) {
  return std::accumulate(seen.counts.begin(), seen.counts.end(), std::uint64_t{0});
}

TEST(histogram, puts_a_duration_into_the_first_bucket_whose_bound_is_above_it) {
  for (std::size_t bucket = 0; bucket + 1 < histogram::bucket_count; ++bucket) {
    const nanoseconds bound = histogram::upper_bound(bucket);
    histogram below;
    below.record(bound - nanoseconds(1));
    EXPECT_EQ(below.read().counts[bucket], 1U) << bound.count();
    histogram at;
    at.record(bound);
    EXPECT_EQ(at.read().counts[bucket + 1], 1U) << bound.count();
  }
}

TEST(histogram, keeps_what_is_longer_than_every_bound_in_the_last_bucket) {
  histogram recorded;
  recorded.record(nanoseconds::max());
  recorded.record(std::chrono::hours(1));
  EXPECT_EQ(recorded.read().counts.back(), 2U);
}

TEST(histogram, takes_a_negative_duration_for_none) {
  histogram recorded;
  recorded.record(nanoseconds(-5));
  EXPECT_EQ(recorded.read().counts.front(), 1U);
  EXPECT_EQ(recorded.read().sum, nanoseconds(0));
}

TEST(histogram, sums_exactly_and_snapshots_add_up) {
  histogram one;
  histogram other;
  one.record(nanoseconds(100));
  one.record(nanoseconds(1'000));
  other.record(nanoseconds(100));
  histogram::snapshot both = one.read();
  both += other.read();
  EXPECT_EQ(both.sum, nanoseconds(1'200));
  EXPECT_EQ(both.counts.front(), 2U);
  EXPECT_EQ(total(both), 3U);
}

TEST(histogram, can_be_read_while_it_is_written) {
  constexpr std::uint64_t count = 200'000;
  histogram recorded;
  std::thread writer([&recorded] {
    for (std::uint64_t i = 0; i < count; ++i) recorded.record(nanoseconds(i));
  });
  std::uint64_t seen = 0;
  while (seen < count) {
    const std::uint64_t now = total(recorded.read());
    ASSERT_GE(now, seen);
    seen = now;
  }
  writer.join();
  EXPECT_EQ(recorded.read().sum, nanoseconds(count * (count - 1) / 2));
}

}  // namespace
}  // namespace offgil
