// test_worker_pool_admission.cpp - the bound on jobs that wait, and the line in front of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;
using admission = worker_pool::admission;
constexpr auto wait_in_line = worker_pool::when_full::wait_in_line;

TEST(worker_pool_admission, refuses_a_job_when_as_many_wait_as_may) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 4> jobs;
  for (test_job& j : jobs) j.prepare(quick, back.queue);
  worker_pool pool(with_workers(1, 2));
  EXPECT_EQ(pool.max_pending(), 2U);
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(jobs[0]), admission::accepted);
  EXPECT_EQ(pool.submit(jobs[1]), admission::accepted);
  EXPECT_EQ(pool.submit(jobs[2]), admission::full);
  EXPECT_EQ(pool.stats().rejected, 1U);
  EXPECT_EQ(pool.stats().submitted, 3U);
  EXPECT_TRUE(pool.cancel(jobs[0])) << "makes room";
  EXPECT_EQ(pool.submit(jobs[3]), admission::accepted);
  busy.release();
  ASSERT_TRUE(back.receive(4));
  EXPECT_EQ(jobs[2].runs, 0);
  EXPECT_TRUE(back.has_nothing());
  EXPECT_EQ(pool.submit(jobs[2]), admission::accepted) << "a refused job stays its submitter's";
  ASSERT_TRUE(back.receive(1));
}

TEST(worker_pool_admission, serves_the_line_in_order_and_lets_nobody_overtake) {
  consumer back;
  std::vector<std::size_t> order;
  kind_of note([&order](test_job& j) { order.push_back(j.id); });
  blocker busy(back);
  std::array<test_job, 5> jobs;
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].prepare(note, back.queue).id = i;
  jobs[4].priority = 9;
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(jobs[0], wait_in_line), admission::accepted);
  EXPECT_EQ(pool.submit(jobs[1], wait_in_line), admission::in_line);
  EXPECT_EQ(pool.submit(jobs[2], wait_in_line), admission::in_line);
  EXPECT_EQ(pool.stats().pending, 1U) << "those in line are not submitted yet";
  EXPECT_TRUE(pool.cancel(jobs[0])) << "lets the first in line in";
  EXPECT_EQ(pool.stats().submitted, 3U);
  EXPECT_EQ(pool.submit(jobs[3]), admission::full);
  EXPECT_EQ(pool.submit(jobs[4], wait_in_line), admission::in_line) << "important as it is";
  busy.release();
  ASSERT_TRUE(back.receive(5));
  EXPECT_EQ(order, (std::vector<std::size_t>{1, 2, 4}));
}

TEST(worker_pool_admission, forgets_a_job_that_is_cancelled_in_line) {
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
  EXPECT_TRUE(pool.cancel(jobs[1]));
  busy.release();
  ASSERT_TRUE(back.receive<test_job>(4, [](test_job& j) { ++j.returned; }));
  EXPECT_EQ(jobs[1].returned, 1);
  EXPECT_EQ(jobs[1].runs, 0);
  EXPECT_EQ(jobs[1].refused, refusal::none);
  const pool_stats seen = pool.stats();
  EXPECT_EQ(seen.submitted, 3U);
  EXPECT_EQ(seen.completed, 3U);
  EXPECT_EQ(seen.cancelled, 0U);
  EXPECT_EQ(seen.rejected, 0U);
}

// With one worker, which is inside a job when it asks, nothing moves between the counters that stats() reads.
class worker_pool_bounded_by : public ::testing::TestWithParam<std::size_t> {};

TEST_P(worker_pool_bounded_by, never_lets_more_jobs_wait_and_keeps_the_order_of_each_submitter) {
  constexpr std::size_t submitters = 3;
  constexpr std::size_t each = testing::rounds(60'000);
  consumer back;
  const worker_pool* asked = nullptr;
  std::size_t most = 0;
  std::array<std::size_t, submitters> next{};
  std::size_t out_of_order = 0;
  kind_of check([&](test_job& j) {
    most = std::max(most, static_cast<std::size_t>(asked->stats().pending));
    if (next[j.id % submitters]++ != j.id / submitters) ++out_of_order;
  });
  std::vector<test_job> jobs(submitters * each);
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].prepare(check, back.queue).id = i;
  worker_pool pool(with_workers(1, GetParam()));
  asked = &pool;
  std::vector<std::thread> threads;
  for (std::size_t s = 0; s < submitters; ++s)
    threads.emplace_back([&, s] {
      for (std::size_t i = 0; i < each; ++i) pool.submit(jobs[i * submitters + s], wait_in_line);
    });
  EXPECT_TRUE(back.receive<test_job>(jobs.size(), [](test_job& j) { ++j.returned; }));
  for (std::thread& thread : threads) thread.join();
  for (const test_job& j : jobs) ASSERT_EQ(j.runs + j.returned, 2) << j.id;
  EXPECT_LE(most, GetParam());
  EXPECT_EQ(out_of_order, 0U);
  EXPECT_EQ(pool.stats().rejected, 0U);
}

INSTANTIATE_TEST_SUITE_P(jobs, worker_pool_bounded_by, ::testing::Values(1, 2, 5));

// Workers start jobs without the mutex, and must yet see a line that forms at that moment. Whoever submits
// stops at one job ahead, so that the pool runs empty again and again and a line that is overlooked stays.
TEST(worker_pool_admission, leaves_nobody_standing_in_line) {
  constexpr std::size_t submitters = 2;
  constexpr std::size_t each = testing::rounds(60'000);
  kind_of quick([](test_job&) {});
  std::array<consumer, submitters> back;
  worker_pool pool(with_workers(2, 1));
  const testing::stats_watch watch(pool);
  std::vector<std::thread> threads;
  for (consumer& own : back)
    threads.emplace_back([&] {
      std::minstd_rand random(3);
      for (std::size_t i = 0; i < each; ++i) {
        std::array<test_job, 3> jobs;
        for (test_job& j : jobs) pool.submit(j.prepare(quick, own.queue), wait_in_line);
        if (random() % 4 == 0) pool.cancel(jobs[random() % 3]);
        if (!own.receive(jobs.size())) FAIL() << "stuck in round " << i;
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(worker_pool_admission, lets_a_thread_wait_until_its_job_has_left_the_line) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 4> jobs;
  for (test_job& j : jobs) j.prepare(quick, back.queue);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(jobs[0]), admission::accepted);
  for (std::size_t i = 1; i < jobs.size(); ++i)
    EXPECT_EQ(pool.submit(jobs[i], wait_in_line), admission::in_line);
  EXPECT_FALSE(pool.wait_until_admitted(jobs[1], std::chrono::milliseconds(5)));
  EXPECT_TRUE(pool.cancel(jobs[2]));
  EXPECT_TRUE(pool.wait_until_admitted(jobs[2], testing::patience)) << "it has given up";
  std::thread waiting([&] { EXPECT_TRUE(pool.wait_until_admitted(jobs[1], testing::patience)); });
  busy.release();
  waiting.join();
  ASSERT_TRUE(back.receive(5));
  EXPECT_EQ(jobs[1].runs, 1);
}

TEST(worker_pool_admission, ends_the_wait_for_room_when_the_pool_closes) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 2> jobs;
  for (test_job& j : jobs) j.prepare(quick, back.queue);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  pool.submit(jobs[0]);
  ASSERT_EQ(pool.submit(jobs[1], wait_in_line), admission::in_line);
  std::thread waiting([&] { EXPECT_TRUE(pool.wait_until_admitted(jobs[1], testing::patience)); });
  pool.close();
  waiting.join();
  EXPECT_EQ(jobs[1].refused, refusal::closed);
  busy.release();
  ASSERT_TRUE(back.receive(3));
}

}  // namespace
}  // namespace offgil
