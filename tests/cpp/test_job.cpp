// test_job.cpp - the states of a job.
#include "job.hpp"

#include <gtest/gtest.h>

namespace offgil {
namespace {

TEST(job, that_waits_is_withdrawn_by_cancel) {
  job j;
  EXPECT_TRUE(j.cancel());
  EXPECT_EQ(j.state.load(), job_state::cancelled);
}

TEST(job, that_runs_is_only_marked_by_cancel) {
  job j;
  j.state = job_state::running;
  EXPECT_FALSE(j.cancel());
  EXPECT_EQ(j.state.load(), job_state::abandoned);
}

TEST(job, that_runs_is_left_alone_by_withdraw) {
  job j;
  j.state = job_state::running;
  EXPECT_FALSE(j.withdraw());
  EXPECT_EQ(j.state.load(), job_state::running);
}

TEST(job, is_withdrawn_by_one_of_two_cancels) {
  job j;
  EXPECT_TRUE(j.cancel());
  EXPECT_FALSE(j.cancel());
}

TEST(job, that_is_done_or_abandoned_stays_so) {
  for (const job_state ended : {job_state::done, job_state::abandoned}) {
    job j;
    j.state = ended;
    EXPECT_FALSE(j.cancel());
    EXPECT_EQ(j.state.load(), ended);
  }
}

}  // namespace
}  // namespace offgil
