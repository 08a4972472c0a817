// test_run_queue.cpp - jobs that wait for a worker.
#include "run_queue.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "jobs.hpp"
#include "lanes.hpp"

namespace offgil {
namespace {

using testing::test_job;
using testing::train;
using nanoseconds = run_time_estimate::nanoseconds;
using ids = std::vector<std::size_t>;

class null_lane final : public testing::private_lane {
 public:
  void enter(unsigned) noexcept override {}
  bool leave() noexcept override { return true; }
  void retire() noexcept override {}
};

class idle_kind final : public job_kind {
 public:
  using job_kind::job_kind;
  bool run(job&) noexcept override { return true; }
};

class run_queue_test : public ::testing::Test {
 protected:
  run_queue_test() : taking_5us(), in_lane(&gil), long_in_lane(&gil) {
    train(taking_5us, nanoseconds(5'000));
    train(taking_1us, nanoseconds(1'000));
    train(taking_1ms, nanoseconds(1'000'000));
    train(in_lane, nanoseconds(20'000));
    train(long_in_lane, nanoseconds(1'000'000));
  }

  // Jobs are numbered in the order in which they are made.
  test_job& make(job_kind& kind, std::int8_t priority = 0) {
    test_job& made = jobs.emplace_back();
    made.kind = &kind;
    made.priority = priority;
    made.id = jobs.size() - 1;
    return made;
  }
  void push(job_kind& kind, std::size_t count = 1, std::int8_t priority = 0) {
    while (count-- != 0) queue.push(make(kind, priority));
  }

  static ids emptied(job_list list) {
    ids order;
    while (!list.empty()) order.push_back(static_cast<test_job&>(list.pop_front()).id);
    return order;
  }
  ids take() { return emptied(queue.take().jobs); }

  null_lane gil;
  idle_kind unknown;
  idle_kind taking_5us;
  idle_kind taking_1us;
  idle_kind taking_1ms;
  idle_kind in_lane;
  idle_kind long_in_lane;
  std::deque<test_job> jobs;
  run_queue queue;
};

TEST_F(run_queue_test, is_first_in_first_out_within_one_priority) {
  push(unknown, 3);
  EXPECT_EQ(take(), (ids{0}));
  push(unknown);
  EXPECT_EQ(take(), (ids{1}));
  EXPECT_EQ(take(), (ids{2}));
  EXPECT_EQ(take(), (ids{3}));
  EXPECT_TRUE(queue.empty());
}

TEST_F(run_queue_test, serves_the_higher_priority_first) {
  push(unknown, 1, -3);
  push(unknown, 1, 0);
  push(unknown, 1, 7);
  push(unknown, 1, 7);
  EXPECT_EQ(take(), (ids{2}));
  EXPECT_EQ(take(), (ids{3}));
  EXPECT_EQ(take(), (ids{1}));
  EXPECT_EQ(take(), (ids{0}));
}

TEST_F(run_queue_test, begins_every_sixteenth_claim_at_the_lowest_priority) {
  push(unknown, 40, 1);
  push(unknown, 2, 0);
  push(unknown, 2, -1);
  ids claims_of_others;
  for (std::size_t claim = 1; claim <= 32; ++claim)
    if (const ids taken = take(); jobs[taken.at(0)].priority != 1) {
      claims_of_others.push_back(claim);
      EXPECT_EQ(jobs[taken.at(0)].priority, -1);
    }
  EXPECT_EQ(claims_of_others, (ids{16, 32}));
}

TEST_F(run_queue_test, gives_nothing_when_empty) {
  const run_queue::claim nothing = queue.take();
  EXPECT_TRUE(nothing.jobs.empty());
  EXPECT_TRUE(queue.take_all().empty());
  EXPECT_EQ(queue.size(), 0U);
}

TEST_F(run_queue_test, sends_a_job_of_unknown_length_alone) {
  push(taking_5us);
  push(unknown, 2);
  push(taking_5us);
  EXPECT_EQ(take(), (ids{0}));
  const run_queue::claim alone = queue.take();
  EXPECT_EQ(alone.jobs.size(), 1U);
  EXPECT_FALSE(alone.is_short);
  EXPECT_EQ(take(), (ids{2}));
  EXPECT_EQ(take(), (ids{3}));
}

TEST_F(run_queue_test, sends_a_long_job_alone_and_says_so) {
  push(taking_1ms, 2);
  const run_queue::claim alone = queue.take();
  EXPECT_EQ(alone.jobs.size(), 1U);
  EXPECT_FALSE(alone.is_short);
  EXPECT_EQ(alone.estimate, nanoseconds(1'000'000));
}

// With what a lane adds, which is allowed more, it counted as short: nobody else was called for what follows.
TEST_F(run_queue_test, sends_a_long_job_alone_also_before_jobs_in_a_lane) {
  idle_kind taking_100us;
  train(taking_100us, nanoseconds(100'000));
  push(taking_100us);
  push(in_lane, 2);
  const run_queue::claim alone = queue.take();
  EXPECT_EQ(alone.jobs.size(), 1U);
  EXPECT_FALSE(alone.is_short);
  EXPECT_EQ(take(), (ids{1, 2}));
}

TEST_F(run_queue_test, fills_a_portion_with_short_jobs_up_to_its_bound) {
  push(taking_5us, 10);
  const run_queue::claim portion = queue.take();
  EXPECT_EQ(portion.jobs.size(), 4U);
  EXPECT_TRUE(portion.is_short);
  EXPECT_LE(portion.estimate, run_queue::portion);
  EXPECT_EQ(queue.size(), 6U);
}

TEST_F(run_queue_test, fills_a_portion_across_priorities) {
  push(taking_5us, 1, 0);
  push(taking_5us, 2, 1);
  EXPECT_EQ(take(), (ids{1, 2, 0}));
}

TEST_F(run_queue_test, fills_a_larger_portion_with_jobs_in_a_lane) {
  push(in_lane, 20);
  const run_queue::claim portion = queue.take();
  EXPECT_EQ(portion.jobs.size(), 10U);
  EXPECT_TRUE(portion.is_short);
  EXPECT_LE(portion.estimate, run_queue::lane_portion);
}

// It may be a wait for a job that stands behind it.
TEST_F(run_queue_test, sends_a_job_in_a_lane_alone_that_is_longer_than_other_portions) {
  idle_kind waiting(&gil);
  train(waiting, nanoseconds(60'000));
  push(waiting);
  push(in_lane);
  const run_queue::claim alone = queue.take();
  EXPECT_EQ(alone.jobs.size(), 1U);
  EXPECT_FALSE(alone.is_short);
}

TEST_F(run_queue_test, stops_a_portion_of_short_jobs_before_a_long_one) {
  push(taking_5us, 2);
  push(taking_1ms);
  const run_queue::claim portion = queue.take();
  EXPECT_EQ(portion.jobs.size(), 2U);
  EXPECT_TRUE(portion.is_short);
}

TEST_F(run_queue_test, puts_a_portion_back_in_its_old_place) {
  push(taking_5us, 6);
  job_list claimed = queue.take().jobs;
  queue.push_front(std::move(claimed));
  EXPECT_EQ(queue.size(), 6U);
  EXPECT_EQ(emptied(queue.take_all()), (ids{0, 1, 2, 3, 4, 5}));
}

// Two workers give back what they have claimed, the one with the younger jobs last.
TEST_F(run_queue_test, puts_portions_back_in_the_order_of_their_age) {
  push(taking_1ms, 3);
  const auto begin = clock::now();
  job_list claimed[] = {queue.take().jobs, queue.take().jobs, queue.take().jobs};
  for (int i = 0; i < 3; ++i) claimed[i].front()->submitted_at = begin + std::chrono::seconds(i);
  for (const int i : {0, 2, 1}) queue.push_front(std::move(claimed[i]));
  EXPECT_TRUE(queue.has_from(begin));
  EXPECT_EQ(emptied(queue.take_all()), (ids{0, 1, 2}));
}

TEST_F(run_queue_test, puts_a_portion_of_many_priorities_back_each_into_its_own) {
  push(taking_1us, 2, 0);
  push(taking_1us, 2, 1);
  push(taking_1us, 2, 2);
  job_list claimed = queue.take().jobs;
  EXPECT_EQ(claimed.size(), 6U);
  push(taking_1us, 1, 0);
  push(taking_1us, 1, 2);
  queue.push_front(std::move(claimed));
  EXPECT_EQ(queue.size(), 8U);
  EXPECT_EQ(emptied(queue.take_all()), (ids{4, 5, 7, 2, 3, 0, 1, 6}));
}

// A claim that begins at the lowest priority may come back to it after a higher one. Put back run by run, the
// later job would stand before the earlier one.
TEST_F(run_queue_test, puts_back_in_order_a_portion_that_began_at_the_lowest_priority) {
  for (int i = 0; i < 15; ++i) static_cast<void>(queue.take());
  push(taking_1us, 2, 0);
  push(taking_1us, 1, 1);
  job_list claimed = queue.take().jobs;
  EXPECT_EQ(static_cast<test_job*>(claimed.front())->id, 0U);
  EXPECT_EQ(claimed.size(), 3U);
  queue.push_front(std::move(claimed));
  EXPECT_EQ(emptied(queue.take_all()), (ids{2, 0, 1}));
}

TEST_F(run_queue_test, gives_everything_up_highest_priority_first) {
  push(taking_1ms, 1, 0);
  push(unknown, 1, 5);
  push(taking_5us, 1, 0);
  EXPECT_EQ(emptied(queue.take_all()), (ids{1, 0, 2}));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.size(), 0U);
}

TEST_F(run_queue_test, is_worth_another_worker_when_more_waits_than_waking_him_costs) {
  EXPECT_FALSE(queue.is_worth_another_worker());
  push(taking_5us, 10);
  EXPECT_FALSE(queue.is_worth_another_worker());
  push(taking_5us);
  EXPECT_TRUE(queue.is_worth_another_worker());
}

TEST_F(run_queue_test, is_worth_another_worker_for_one_job_that_is_long_or_unknown) {
  push(taking_1ms);
  EXPECT_TRUE(queue.is_worth_another_worker());
  static_cast<void>(queue.take_all());
  push(unknown);
  EXPECT_TRUE(queue.is_worth_another_worker());
}

TEST_F(run_queue_test, is_not_worth_another_worker_for_short_jobs_that_would_only_queue_for_their_lane) {
  push(in_lane, 100);
  in_lane.sharing.learn(false);
  EXPECT_FALSE(queue.is_worth_another_worker());
  static_cast<void>(queue.take_all());
  push(long_in_lane);
  EXPECT_TRUE(queue.is_worth_another_worker());
}

TEST_F(run_queue_test, is_worth_another_worker_for_short_jobs_that_let_others_into_their_lane) {
  push(in_lane, 100);
  EXPECT_TRUE(queue.is_worth_another_worker());
  in_lane.sharing.learn(false);
  EXPECT_FALSE(queue.is_worth_another_worker());
}

}  // namespace
}  // namespace offgil
