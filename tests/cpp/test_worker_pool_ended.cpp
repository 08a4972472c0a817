// test_worker_pool_ended.cpp - waiting for the jobs that were submitted until now.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::blocker;
using testing::consumer;
using testing::kind_of;
using testing::patience;
using testing::test_job;
using testing::with_workers;

TEST(worker_pool_ended, is_true_at_once_of_an_idle_pool) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool pool(with_workers(2));
  EXPECT_TRUE(pool.wait_until_ended(clock::now(), 0ns));
  pool.submit(j);
  EXPECT_TRUE(pool.wait_until_ended(clock::now(), patience));
  EXPECT_FALSE(back.has_nothing()) << "it has ended, and has not been handed back";
  EXPECT_TRUE(pool.wait_until_ended(clock::now(), 0ns));
}

TEST(worker_pool_ended, counts_what_runs_and_what_waits_but_nothing_later) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker running(back);
  blocker later(back);
  test_job waiting(quick, back.queue);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(running.occupies_a_worker_of(pool));
  const auto now = clock::now();
  std::this_thread::sleep_for(1us);  // so that no later job has the same time
  EXPECT_FALSE(pool.wait_until_ended(now, 1ms)) << "a job runs";
  ASSERT_TRUE(later.occupies_a_worker_of(pool));
  running.release();
  EXPECT_TRUE(pool.wait_until_ended(now, patience)) << "only a later one runs";

  blocker again(back);
  ASSERT_TRUE(again.occupies_a_worker_of(pool));
  pool.submit(waiting);
  const auto then = clock::now();
  again.release();
  later.release();
  EXPECT_TRUE(pool.wait_until_ended(then, patience));
  EXPECT_EQ(waiting.runs, 1);
}

// One worker runs longer than estimated; what it had claimed behind that job goes to another worker.
TEST(worker_pool_ended, follows_a_job_from_worker_to_worker) {
  consumer back;
  testing::gate first_may_end;
  testing::gate second_may_end;
  std::atomic<bool> first_runs{false};
  std::atomic<bool> second_runs{false};
  kind_of first([&](test_job&) {
    first_runs = true;
    return first_may_end.pass();
  });
  kind_of second([&](test_job&) {
    second_runs = true;
    return second_may_end.pass();
  });
  testing::train(first, testing::very_short);
  testing::train(second, testing::very_short);
  blocker busy(back);
  blocker other(back);
  std::array<test_job, 2> jobs{test_job(first, back.queue), test_job(second, back.queue)};
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(other.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j);
  const auto now = clock::now();
  EXPECT_FALSE(pool.wait_until_ended(now, 1ms));
  busy.release();  // its worker claims both
  ASSERT_TRUE(testing::eventually([&] { return first_runs.load(); }));
  other.release();  // and this one takes the second over
  ASSERT_TRUE(testing::eventually([&] { return second_runs.load(); }));
  first_may_end.open();
  EXPECT_FALSE(pool.wait_until_ended(now, 20ms)) << "the second one runs";
  second_may_end.open();
  EXPECT_TRUE(pool.wait_until_ended(now, patience));
  for (const test_job& j : jobs) EXPECT_EQ(j.runs, 1);
}

TEST(worker_pool_ended, does_not_wait_for_what_is_withdrawn) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::vector<test_job> jobs(10);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  const auto now = clock::now();
  EXPECT_FALSE(pool.wait_until_ended(now, 1ms));
  EXPECT_EQ(pool.cancel_waiting(), jobs.size());
  busy.release();
  EXPECT_TRUE(pool.wait_until_ended(now, patience));
  for (const test_job& j : jobs) EXPECT_EQ(j.runs, 0);
}

// Others submit all the time, by either way in: the pool is hardly ever idle.
TEST(worker_pool_ended, is_found_among_other_traffic) {
  constexpr std::size_t rounds = testing::rounds(300);
  kind_of quick([](test_job&) {});
  testing::train(quick, testing::very_short);
  worker_pool pool(with_workers(2));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const auto wake : {worker_pool::wake_up::now, worker_pool::wake_up::may_wait})
    threads.emplace_back([&, wake] {
      consumer back;
      while (!stop) {
        std::vector<test_job> jobs(64);
        for (test_job& j : jobs)
          pool.submit(j.prepare(quick, back.queue), worker_pool::when_full::refuse, wake);
        if (!back.receive(jobs.size())) FAIL();
      }
    });
  consumer back;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::array<test_job, 8> jobs;
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
    ASSERT_TRUE(pool.wait_until_ended(clock::now(), patience)) << "round " << round;
    for (const test_job& j : jobs) ASSERT_EQ(j.state.load(), job_state::done) << "round " << round;
    ASSERT_TRUE(back.receive(jobs.size()));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace offgil
