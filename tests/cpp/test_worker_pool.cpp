// test_worker_pool.cpp - the way of a job through the threads.
#include "worker_pool.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <ctime>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::blocker;
using testing::consumer;
using testing::eventually;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;
using admission = worker_pool::admission;

TEST(worker_pool, runs_a_job_once_and_hands_it_back) {
  consumer back;
  kind_of answer([](test_job& j) { j.result = 42; });
  test_job j(answer, back.queue);
  {
    worker_pool pool(with_workers(2));
    EXPECT_EQ(pool.submit(j), admission::accepted);
    EXPECT_EQ(back.receive_one(), &j);
    const pool_stats seen = pool.stats();
    EXPECT_EQ(seen.submitted, 1U);
    EXPECT_EQ(seen.completed, 1U);
  }
  EXPECT_EQ(j.runs, 1);
  EXPECT_EQ(j.result, 42U);
  EXPECT_TRUE(j.succeeded);
  EXPECT_EQ(j.refused, refusal::none);
  EXPECT_EQ(j.state.load(), job_state::done);
  EXPECT_TRUE(back.has_nothing());
}

TEST(worker_pool, counts_a_job_that_fails_as_failed) {
  consumer back;
  kind_of failing([](test_job&) { return false; });
  test_job j(failing, back.queue);
  worker_pool pool(with_workers(1));
  pool.submit(j);
  ASSERT_TRUE(back.receive(1));
  EXPECT_FALSE(j.succeeded);
  EXPECT_EQ(pool.stats().failed, 1U);
  EXPECT_EQ(pool.stats().completed, 0U);
}

TEST(worker_pool, measures_how_long_jobs_wait_and_run) {
  consumer back;
  kind_of slow([](test_job&) { std::this_thread::sleep_for(2ms); });
  test_job first(slow, back.queue);
  test_job second(slow, back.queue);
  worker_pool pool(with_workers(1));
  pool.submit(first);
  pool.submit(second);
  ASSERT_TRUE(back.receive(2));
  const pool_stats seen = pool.stats();
  EXPECT_GE(seen.run_time.sum, 4ms);
  EXPECT_GE(seen.wait_time.sum, 2ms);
  ASSERT_EQ(seen.worker_busy.size(), 1U);
  EXPECT_EQ(seen.worker_busy[0], seen.run_time.sum);
}

TEST(worker_pool, runs_every_one_of_many_jobs_once_and_hands_it_back_where_it_belongs) {
  constexpr std::size_t submitters = 4;
  static constexpr std::size_t queues = 3;
  constexpr std::size_t all = testing::rounds(1'000'000);
  static constexpr std::size_t each = all / submitters;
  kind_of multiply([](test_job& j) { j.result = j.id * 2'654'435'761; });
  std::array<consumer, queues> back;
  std::vector<test_job> jobs(submitters * each);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].prepare(multiply, back[i % queues].queue, static_cast<std::int8_t>(i % 5 == 0));
    jobs[i].id = i;
  }
  worker_pool pool(with_workers(3));
  {
    const testing::stats_watch watch(pool);
    std::vector<std::thread> threads;
    for (std::size_t s = 0; s < submitters; ++s)
      threads.emplace_back([&, s] {
        for (std::size_t i = s * each; i < (s + 1) * each; ++i) {
          const auto wake = i % 3 == 0 ? worker_pool::wake_up::now : worker_pool::wake_up::may_wait;
          EXPECT_EQ(pool.submit(jobs[i], worker_pool::when_full::refuse, wake), admission::accepted);
        }
      });
    for (std::size_t q = 0; q < queues; ++q)
      threads.emplace_back([&, q] {
        const std::size_t own = (jobs.size() - q + queues - 1) / queues;
        EXPECT_TRUE(back[q].receive<test_job>(own, [q](test_job& j) {
          EXPECT_EQ(j.id % queues, q);
          EXPECT_EQ(j.result, j.id * 2'654'435'761);
          ++j.returned;
        }));
      });
    for (std::thread& thread : threads) thread.join();
  }
  for (const test_job& j : jobs) {
    ASSERT_EQ(j.runs, 1) << j.id;
    ASSERT_EQ(j.returned, 1) << j.id;
  }
  for (consumer& one : back) EXPECT_TRUE(one.has_nothing());
  EXPECT_EQ(pool.stats().completed, jobs.size());
}

// Also where some of them take the way in without the mutex, which only the sentinel's presence opens.
TEST(worker_pool, runs_jobs_in_the_order_in_which_they_came) {
  consumer back;
  std::vector<std::size_t> order;  // one worker writes
  kind_of note([&order](test_job& j) { order.push_back(j.id); });
  testing::train(note, testing::very_short);
  worker_pool pool(with_workers(1));
  test_job brings_the_sentinel(note, back.queue);
  pool.submit(brings_the_sentinel);
  ASSERT_TRUE(back.receive(1));
  order.clear();
  blocker worker(back);
  ASSERT_TRUE(worker.occupies_a_worker_of(pool));
  std::array<test_job, 64> jobs;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].id = i;
    const auto wake = i % 4 == 3 ? worker_pool::wake_up::now : worker_pool::wake_up::may_wait;
    pool.submit(jobs[i].prepare(note, back.queue), worker_pool::when_full::refuse, wake);
  }
  worker.release();
  ASSERT_TRUE(back.receive(jobs.size() + 1));
  ASSERT_EQ(order.size(), jobs.size());
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(worker_pool, runs_the_higher_priority_first) {
  consumer back;
  std::vector<int> order;
  kind_of note([&order](test_job& j) { order.push_back(j.priority); });
  blocker busy(back);
  test_job low(note, back.queue, -1);
  test_job high(note, back.queue, 5);
  test_job middle(note, back.queue, 0);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job* j : {&low, &high, &middle}) pool.submit(*j);
  busy.release();
  ASSERT_TRUE(back.receive(4));
  EXPECT_EQ(order, (std::vector{5, 0, -1}));
}

// Each job waits for all the others to be inside too.
class worker_pool_with_jobs_taken_for : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(worker_pool_with_jobs_taken_for, nanoseconds_runs_long_ones_on_all_workers_at_once) {
  constexpr int count = 4;
  consumer back;
  std::atomic<int> inside{0};
  kind_of meeting([&inside](test_job&) {
    ++inside;
    return eventually([&inside] { return inside == count; });
  });
  if (GetParam() >= 0) testing::train(meeting, std::chrono::nanoseconds(GetParam()));
  std::array<test_job, count> jobs;
  worker_pool pool(with_workers(count));
  for (test_job& j : jobs) pool.submit(j.prepare(meeting, back.queue));
  ASSERT_TRUE(back.receive(count));
  for (const test_job& j : jobs) EXPECT_TRUE(j.succeeded);
}

// Unknown, far too short, right.
INSTANTIATE_TEST_SUITE_P(estimated, worker_pool_with_jobs_taken_for, ::testing::Values(-1, 100, 10'000'000),
                         [](const auto& estimate) {
                           return estimate.param < 0 ? std::string("unknown")
                                                     : std::to_string(estimate.param);
                         });

TEST(worker_pool, names_its_threads_by_number) {
  constexpr int count = 3;
  consumer back;
  std::atomic<int> inside{0};
  std::array<std::array<char, 16>, count> names{};
  kind_of meeting([&](test_job& j) {
    ::pthread_getname_np(::pthread_self(), names[j.id].data(), names[j.id].size());
    ++inside;
    return eventually([&inside] { return inside == count; });
  });
  std::array<test_job, count> jobs;
  worker_pool::options options = with_workers(count);
  options.name = "probe";
  worker_pool pool(options);
  for (std::size_t i = 0; i < count; ++i) {
    jobs[i].id = i;
    pool.submit(jobs[i].prepare(meeting, back.queue));
  }
  ASSERT_TRUE(back.receive(count));
  const std::set<std::string> seen{names[0].data(), names[1].data(), names[2].data()};
  EXPECT_EQ(seen, (std::set<std::string>{"probe-0", "probe-1", "probe-2"}));
}

TEST(worker_pool, knows_its_own_threads) {
  consumer back;
  worker_pool one(with_workers(1));
  worker_pool other(with_workers(1));
  bool on_own = false;
  bool on_other = true;
  kind_of ask([&](test_job&) {
    on_own = one.is_on_own_thread();
    on_other = other.is_on_own_thread();
  });
  test_job j(ask, back.queue);
  one.submit(j);
  ASSERT_TRUE(back.receive(1));
  EXPECT_TRUE(on_own);
  EXPECT_FALSE(on_other);
  EXPECT_FALSE(one.is_on_own_thread());
}

TEST(worker_pool, lists_the_jobs_that_run) {
  consumer back;
  blocker busy(back);
  worker_pool pool(with_workers(2));
  EXPECT_TRUE(pool.running().empty());
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.running(), std::vector<const job*>{&busy.its_job()});
  EXPECT_EQ(pool.stats().running, 1U);
  busy.release();
  ASSERT_TRUE(back.receive(1));
  EXPECT_TRUE(pool.running().empty());
  EXPECT_EQ(pool.stats().running, 0U);
}

TEST(worker_pool, lets_accepted_jobs_end_before_it_is_gone) {
  constexpr std::size_t count = 1'000;
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(count);
  {
    worker_pool pool(with_workers(2));
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  }
  EXPECT_TRUE(back.receive<test_job>(count, [](test_job& j) { EXPECT_EQ(j.runs, 1); }));
  EXPECT_TRUE(back.has_nothing());
}

TEST(worker_pool, leaves_no_thread_and_no_descriptor_behind) {
  const std::size_t descriptors = testing::descriptor_count();
  consumer back;
  kind_of quick([](test_job&) {});
  for (std::size_t i = 0; i < 500; ++i) {
    std::array<test_job, 3> jobs;
    worker_pool pool(with_workers(1 + i % 4));
    for (std::size_t n = 0; n < i % 4; ++n) pool.submit(jobs[n].prepare(quick, back.queue));
    ASSERT_TRUE(back.receive(i % 4));
  }
  EXPECT_TRUE(eventually([] { return testing::threads_of_pools() == 0; }));
  EXPECT_EQ(testing::descriptor_count(), descriptors);
}

// ---- spinning ----

worker_pool::options spinning_for(std::chrono::nanoseconds spin) {
  worker_pool::options options = with_workers(1);
  options.spin = spin;
  return options;
}

TEST(worker_pool, that_spins_runs_jobs_that_come_one_by_one) {
  consumer back;
  kind_of quick([](test_job&) {});
  worker_pool pool(spinning_for(50us));
  for (int i = 0; i < 2'000; ++i) {
    test_job j(quick, back.queue);
    ASSERT_EQ(pool.submit(j), admission::accepted);
    ASSERT_EQ(back.receive_one(), &j);
    ASSERT_EQ(j.runs, 1);
  }
}

std::chrono::nanoseconds cpu_time_of_process() {
  timespec spent{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return std::chrono::seconds(spent.tv_sec) + std::chrono::nanoseconds(spent.tv_nsec);
}

// The worker parks before the watcher comes back; from then on there is nothing to do for anybody.
class idle_worker_pool : public ::testing::TestWithParam<std::chrono::microseconds> {};

TEST_P(idle_worker_pool, uses_no_cpu) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  test_job watcher(quick, back.queue);
  worker_pool pool(spinning_for(GetParam()));
  pool.submit(j);
  pool.notify_when_idle(watcher);
  ASSERT_TRUE(back.receive(2));
  std::this_thread::sleep_for(20ms);  // the sentinel makes its last rounds
  const auto before = cpu_time_of_process();
  std::this_thread::sleep_for(100ms);
  EXPECT_LT(cpu_time_of_process() - before, 10ms);
}

INSTANTIATE_TEST_SUITE_P(that_spins_for, idle_worker_pool, ::testing::Values(0us, 5'000us),
                         [](const auto& spin) { return std::to_string(spin.param.count()) + "us"; });

TEST(worker_pool, stops_spinning_when_it_is_closed) {
  if (usable_cpu_count() < 2) GTEST_SKIP() << "a pool does not spin on its only CPU";
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool pool(spinning_for(2 * testing::patience));
  pool.submit(j);
  ASSERT_TRUE(back.receive(1));
  pool.close();
  EXPECT_TRUE(pool.wait_until_finished(testing::patience));
}

}  // namespace
}  // namespace offgil
