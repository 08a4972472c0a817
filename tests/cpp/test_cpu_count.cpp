// test_cpu_count.cpp - how many CPUs this process may use.
#include "cpu_count.hpp"

#include <gtest/gtest.h>
#include <sched.h>

namespace offgil {
namespace {

TEST(cpu_count, is_at_least_one_and_no_more_than_the_affinity_mask_allows) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
  EXPECT_GE(usable_cpu_count(), 1U);
  EXPECT_LE(usable_cpu_count(), static_cast<unsigned>(CPU_COUNT(&allowed)));
}

TEST(cpu_count, follows_a_mask_of_one_cpu) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cpu_count(), 1U);
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

}  // namespace
}  // namespace offgil
