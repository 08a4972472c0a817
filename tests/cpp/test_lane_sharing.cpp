// test_lane_sharing.cpp - whether jobs let others into their lane while they run.
#include "lane_sharing.hpp"

#include <gtest/gtest.h>

namespace offgil {
namespace {

int tries(lane_sharing& sharing, int asked) {
  int found = 0;
  for (int i = 0; i < asked; ++i) found += sharing.is_worth_trying() ? 1 : 0;
  return found;
}

TEST(lane_sharing, is_tried_at_first) {
  lane_sharing sharing;
  EXPECT_TRUE(sharing.is_likely());
  EXPECT_EQ(tries(sharing, 100), 100);
}

TEST(lane_sharing, is_tried_now_and_then_where_it_is_not_likely) {
  lane_sharing sharing;
  sharing.learn(false);
  EXPECT_FALSE(sharing.is_likely());
  const int found = tries(sharing, 1'000);
  EXPECT_GT(found, 0);
  EXPECT_LT(found, 50);
}

TEST(lane_sharing, is_worth_it_again_where_a_worker_was_let_in) {
  lane_sharing sharing;
  sharing.learn(false);
  sharing.learn(true);
  EXPECT_TRUE(sharing.is_likely());
  EXPECT_EQ(tries(sharing, 100), 100);
}

TEST(lane_sharing, is_given_up_where_workers_only_queue) {
  lane_sharing sharing;
  for (int i = 0; i < 1'000; ++i) sharing.learn(true);
  for (int i = 0; i < 10; ++i) sharing.learn(false);
  EXPECT_FALSE(sharing.is_likely());
  EXPECT_LT(tries(sharing, 100), 10);
}

TEST(lane_sharing, is_tried_more_rarely_the_more_often_it_was_in_vain) {
  lane_sharing sharing;
  sharing.learn(false);
  const int at_first = tries(sharing, 10'000);
  for (int i = 0; i < 5; ++i) sharing.learn(false);
  const int later = tries(sharing, 10'000);
  EXPECT_LT(later, at_first / 8);
  for (int i = 0; i < 20; ++i) sharing.learn(false);
  EXPECT_GE(tries(sharing, 10'000), 1) << "but not given up";
}

}  // namespace
}  // namespace offgil
