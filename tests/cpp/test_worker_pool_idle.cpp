// test_worker_pool_idle.cpp - who watches for idleness is told.
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::kind_of;
using testing::patience;
using testing::test_job;
using testing::with_workers;

TEST(worker_pool_idle, is_told_at_once_when_nothing_waits_or_runs) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job watcher(quick, back.queue);
  worker_pool pool(with_workers(2));
  pool.notify_when_idle(watcher);
  EXPECT_EQ(back.receive_one(), &watcher);
  EXPECT_EQ(watcher.runs, 0);
  EXPECT_EQ(pool.stats().submitted, 0U) << "a watcher is no job";
}

TEST(worker_pool_idle, is_told_to_every_watcher_once_and_not_before_the_last_job_ended) {
  consumer back;
  consumer watching;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  blocker busy_too(back);
  std::array<test_job, 3> watchers;
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(busy_too.occupies_a_worker_of(pool));
  for (test_job& watcher : watchers) pool.notify_when_idle(watcher.prepare(quick, watching.queue));
  EXPECT_TRUE(watching.has_nothing());
  busy.release();
  ASSERT_TRUE(back.receive(1));
  EXPECT_TRUE(watching.has_nothing());
  busy_too.release();
  EXPECT_TRUE(watching.receive<test_job>(watchers.size(), [](test_job& watcher) { ++watcher.returned; }));
  ASSERT_TRUE(back.receive(1));
  for (const test_job& watcher : watchers) EXPECT_EQ(watcher.returned, 1);
  EXPECT_TRUE(watching.has_nothing());
}

TEST(worker_pool_idle, is_told_by_a_closed_pool_too) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job early(quick, back.queue);
  test_job late(quick, back.queue);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  pool.close();
  pool.notify_when_idle(early);
  busy.release();
  EXPECT_EQ(back.receive_one(), &busy.its_job());
  EXPECT_EQ(back.receive_one(), &early);
  ASSERT_TRUE(pool.wait_until_finished(patience));
  pool.notify_when_idle(late);
  EXPECT_EQ(back.receive_one(), &late);
}

TEST(worker_pool_idle, is_told_though_a_worker_would_look_for_work_for_long) {
  consumer back;
  kind_of quick([](test_job&) {});
  worker_pool::options options = with_workers(1);
  options.spin = 10 * patience;
  worker_pool pool(options);
  for (int round = 0; round < 100; ++round) {
    test_job j(quick, back.queue);
    test_job watcher(quick, back.queue);
    pool.submit(j);
    ASSERT_EQ(back.receive_one(), &j);
    pool.notify_when_idle(watcher);
    ASSERT_EQ(back.receive_one(), &watcher);
  }
}

// The watcher comes through the jobs' own queue, so it must be the last of it. The parameter is the time for
// which workers look for work before they park.
class worker_pool_idle_race : public ::testing::TestWithParam<std::chrono::microseconds> {};

TEST_P(worker_pool_idle_race, is_told_after_the_last_job_came_back_and_never_lost) {
  constexpr std::size_t rounds = testing::rounds(30'000);
  consumer back;
  kind_of quick([](test_job&) {});
  std::minstd_rand random(5);
  worker_pool::options options = with_workers(2);
  options.spin = GetParam();
  worker_pool pool(options);
  for (std::size_t round = 0; round < rounds; ++round) {
    std::array<test_job, 8> jobs;
    const std::size_t count = random() % (jobs.size() + 1);
    const auto wake = round % 2 == 0 ? worker_pool::wake_up::now : worker_pool::wake_up::may_wait;
    for (std::size_t i = 0; i < count; ++i)
      pool.submit(jobs[i].prepare(quick, back.queue), worker_pool::when_full::refuse, wake);
    pool.flush_wake_up();
    test_job watcher(quick, back.queue);
    pool.notify_when_idle(watcher);
    for (std::size_t i = 0; i < count; ++i) {
      const job* const j = back.receive_one();
      ASSERT_NE(j, nullptr) << "round " << round;
      ASSERT_NE(j, &watcher) << "round " << round;
    }
    ASSERT_EQ(back.receive_one(), &watcher) << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(spinning, worker_pool_idle_race,
                         ::testing::Values(std::chrono::microseconds(0), std::chrono::microseconds(20)),
                         [](const auto& spin) { return std::to_string(spin.param.count()) + "us"; });

// Others keep the pool busy meanwhile: idleness is rare, and short.
TEST(worker_pool_idle, is_told_among_other_traffic) {
  constexpr std::size_t rounds = testing::rounds(20'000);
  kind_of quick([](test_job&) {});
  worker_pool pool(with_workers(2));
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      consumer back;
      for (std::size_t round = 0; round < rounds; ++round) {
        test_job j(quick, back.queue);
        test_job watcher(quick, back.queue);
        pool.submit(j);
        pool.notify_when_idle(watcher);
        if (back.receive_one() != &j || back.receive_one() != &watcher) FAIL() << "round " << round;
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace offgil
