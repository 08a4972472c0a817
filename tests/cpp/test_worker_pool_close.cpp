// test_worker_pool_close.cpp - the end of a pool.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
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
using admission = worker_pool::admission;
constexpr auto wait_in_line = worker_pool::when_full::wait_in_line;

TEST(worker_pool_close, refuses_what_comes_after_it) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool pool(with_workers(2));
  EXPECT_FALSE(pool.is_closed());
  pool.close();
  pool.close();
  EXPECT_TRUE(pool.is_closed());
  EXPECT_EQ(pool.submit(j), admission::closed);
  EXPECT_EQ(pool.submit(j, wait_in_line), admission::closed);
  EXPECT_EQ(pool.stats().rejected, 2U);
  EXPECT_EQ(pool.stats().submitted, 0U);
  EXPECT_TRUE(pool.wait_until_finished(patience));
  EXPECT_TRUE(back.has_nothing());
}

TEST(worker_pool_close, lets_what_was_accepted_end) {
  constexpr std::size_t count = 50;
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::vector<test_job> jobs(count);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  pool.close();
  EXPECT_FALSE(pool.wait_until_finished(1ms)) << "jobs wait and run";
  busy.release();
  EXPECT_TRUE(back.receive(count + 1));
  EXPECT_TRUE(pool.wait_until_finished(patience));
  for (const test_job& j : jobs) EXPECT_EQ(j.runs, 1);
}

TEST(worker_pool_close, hands_back_refused_what_stands_in_line) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 3> jobs;
  for (test_job& j : jobs) j.prepare(quick, back.queue);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(jobs[0], wait_in_line), admission::accepted);
  EXPECT_EQ(pool.submit(jobs[1], wait_in_line), admission::in_line);
  EXPECT_EQ(pool.submit(jobs[2], wait_in_line), admission::in_line);
  pool.close();
  EXPECT_EQ(back.receive_one(), &jobs[1]) << "at once, and in order";
  EXPECT_EQ(back.receive_one(), &jobs[2]);
  EXPECT_EQ(jobs[1].refused, refusal::closed);
  EXPECT_EQ(jobs[2].refused, refusal::closed);
  EXPECT_EQ(pool.stats().rejected, 2U);
  busy.release();
  ASSERT_TRUE(back.receive(2));
  EXPECT_TRUE(pool.wait_until_finished(patience));
  EXPECT_EQ(jobs[0].runs, 1);
  EXPECT_EQ(jobs[0].refused, refusal::none);
  EXPECT_EQ(jobs[1].runs + jobs[2].runs, 0);
}

TEST(worker_pool_close, is_waited_for_only_as_long_as_told) {
  worker_pool pool(with_workers(2));
  EXPECT_FALSE(pool.wait_until_finished(1ms)) << "open pools do not finish";
  pool.close();
  EXPECT_TRUE(pool.wait_until_finished(patience));
  EXPECT_TRUE(pool.wait_until_finished(0ns)) << "and stay finished";
}

TEST(worker_pool_close, ends_the_threads_when_all_that_waited_is_withdrawn) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 10> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  pool.close();
  EXPECT_EQ(pool.cancel_waiting(), jobs.size());
  busy.release();
  EXPECT_TRUE(pool.wait_until_finished(patience));
  EXPECT_TRUE(back.receive(jobs.size() + 1));
}

TEST(worker_pool_close, calls_a_worker_for_jobs_that_nobody_was_called_for) {
  consumer back;
  kind_of quick([](test_job&) {});
  for (int round = 0; round < 100; ++round) {
    test_job first(quick, back.queue);
    test_job second(quick, back.queue);
    worker_pool pool(with_workers(2));
    pool.submit(first);
    ASSERT_TRUE(back.receive(1));
    pool.submit(second, worker_pool::when_full::refuse, worker_pool::wake_up::may_wait);
    pool.close();
    ASSERT_TRUE(pool.wait_until_finished(patience));
    ASSERT_TRUE(back.receive(1));
  }
}

// The threads submit, each to a queue of its own, until the pool is closed at a random moment; some of their
// jobs then wait, run, or stand in line. The parameter is max_pending.
class worker_pool_close_race : public ::testing::TestWithParam<std::size_t> {};

TEST_P(worker_pool_close_race, hands_every_job_back_that_it_took_over) {
  constexpr std::size_t submitters = 3;
  constexpr std::size_t most = 2'000;
  kind_of quick([](test_job&) {});
  std::minstd_rand random(11);
  for (std::size_t round = 0; round < testing::rounds(400); ++round) {
    std::array<consumer, submitters> back;
    std::array<std::vector<test_job>, submitters> jobs;
    std::array<std::size_t, submitters> accepted{};
    std::array<std::size_t, submitters> in_line{};
    {
      worker_pool pool(with_workers(2, GetParam()));
      std::vector<std::thread> threads;
      for (std::size_t s = 0; s < submitters; ++s) {
        jobs[s] = std::vector<test_job>(most);
        threads.emplace_back([&, s] {
          for (std::size_t i = 0; i < most; ++i) {
            const auto policy = i % 4 == 0 ? worker_pool::when_full::refuse : wait_in_line;
            const auto wake = i % 2 == 0 ? worker_pool::wake_up::now : worker_pool::wake_up::may_wait;
            const auto answer = pool.submit(jobs[s][i].prepare(quick, back[s].queue), policy, wake);
            if (answer == admission::closed) break;
            accepted[s] += answer == admission::accepted;
            in_line[s] += answer == admission::in_line;
          }
        });
      }
      for (auto spin = random() % 100'000; spin != 0; --spin)
        std::atomic_signal_fence(std::memory_order_seq_cst);
      pool.close();
      ASSERT_TRUE(pool.wait_until_finished(patience)) << "round " << round;
      for (std::thread& thread : threads) thread.join();
      consumer watching;
      test_job watcher(quick, watching.queue);
      pool.notify_when_idle(watcher);
      ASSERT_TRUE(watching.receive(1)) << "a finished pool is idle; round " << round;
    }
    for (std::size_t s = 0; s < submitters; ++s) {
      std::size_t ran = 0;
      std::size_t refused = 0;
      ASSERT_TRUE(back[s].receive<test_job>(accepted[s] + in_line[s], [&](test_job& j) {
        EXPECT_EQ(j.returned++, 0);
        EXPECT_EQ(j.runs, j.refused != refusal::none ? 0 : 1);
        ++(j.refused != refusal::none ? refused : ran);
      }));
      EXPECT_TRUE(back[s].has_nothing());
      EXPECT_GE(ran, accepted[s]);
      EXPECT_LE(refused, in_line[s]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(bounded_by, worker_pool_close_race, ::testing::Values(0, 2));

}  // namespace
}  // namespace offgil
