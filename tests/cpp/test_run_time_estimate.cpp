// test_run_time_estimate.cpp - how long the jobs of one function take.
#include "run_time_estimate.hpp"

#include <gtest/gtest.h>

namespace offgil {
namespace {

using nanoseconds = run_time_estimate::nanoseconds;

TEST(run_time_estimate, knows_nothing_before_the_first_job_has_ended) {
  const run_time_estimate fresh;
  EXPECT_FALSE(fresh.known());
}

TEST(run_time_estimate, believes_the_first_job) {
  run_time_estimate estimate;
  estimate.learn(nanoseconds(1'000));
  EXPECT_TRUE(estimate.known());
  EXPECT_EQ(estimate.value(), nanoseconds(1'000));
}

TEST(run_time_estimate, leaves_alone_what_is_right_within_a_factor_of_two) {
  run_time_estimate estimate;
  estimate.learn(nanoseconds(1'000));
  estimate.learn(nanoseconds(1'900));
  estimate.learn(nanoseconds(600));
  EXPECT_EQ(estimate.value(), nanoseconds(1'000));
}

TEST(run_time_estimate, rises_fast_and_falls_slowly) {
  run_time_estimate estimate;
  estimate.learn(nanoseconds(1'000));
  estimate.learn(nanoseconds(9'000));
  EXPECT_FLOAT_EQ(estimate.value().count(), 5'000);
  estimate.learn(nanoseconds(1'000));
  EXPECT_FLOAT_EQ(estimate.value().count(), 4'600);
}

TEST(run_time_estimate, recovers_from_an_immeasurably_short_job) {
  run_time_estimate estimate;
  estimate.learn(nanoseconds(0));
  EXPECT_TRUE(estimate.known());
  estimate.learn(nanoseconds(1'000));
  EXPECT_GT(estimate.value(), nanoseconds(0));
}

}  // namespace
}  // namespace offgil
