// test_worker_pool_start.cpp - a pool starts threads as jobs need them.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <memory>
#include <system_error>
#include <vector>

#include "interposed_pthread_create.hpp"
#include "lanes.hpp"
#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using testing::consumer;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;

// Enough for a pool to want a timer, and one more that makes it.
constexpr std::size_t many = 65;

TEST(worker_pool_start, is_an_exception_of_the_first_job_where_its_thread_cannot_start) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool pool(with_workers(4));
  int error = 0;
  testing::failing_pthread_create = 1;
  try {
    pool.submit(j);
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  EXPECT_EQ(error, EAGAIN);
  EXPECT_EQ(testing::threads_of_pools(), 0U);
  EXPECT_EQ(pool.stats().submitted, 0U);
  pool.submit(j);
  EXPECT_TRUE(back.receive(1));
}

TEST(worker_pool_start, goes_on_with_fewer_threads_where_another_cannot_start) {
  consumer back;
  testing::blocker first(back);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(first.occupies_a_worker_of(pool));
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  testing::failing_pthread_create = 1;
  pool.submit(j);
  EXPECT_EQ(testing::failing_pthread_create, 0);
  first.release();
  EXPECT_TRUE(back.receive(2));
}

TEST(worker_pool_start, goes_on_without_a_timer_where_no_descriptor_can_be_had) {
  ASSERT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 0; }));
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(2 * many);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  {
    worker_pool pool(with_workers(2));
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_TRUE(back.receive(jobs.size()));
    EXPECT_EQ(testing::timer_threads(), 0U);
  }
  EXPECT_EQ(testing::threads_of_pools(), 0U);
}

TEST(worker_pool_start, brings_up_as_many_threads_as_there_are_jobs_at_once) {
  consumer back;
  worker_pool pool(with_workers(5));
  EXPECT_EQ(pool.workers(), 5U);
  EXPECT_EQ(testing::threads_of_pools(), 0U);
  testing::blocker first(back);
  testing::blocker second(back);
  EXPECT_TRUE(first.occupies_a_worker_of(pool));
  EXPECT_TRUE(second.occupies_a_worker_of(pool));
  EXPECT_EQ(testing::threads_of_pools(), 2U);
  first.release();
  second.release();
}

TEST(worker_pool_start, shares_one_timer_thread_and_its_descriptors_with_every_other_pool) {
  constexpr std::size_t count = 60;
  const std::size_t descriptors = testing::descriptor_count();
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(count * many);
  std::deque<worker_pool> pools;
  for (std::size_t i = 0; i < count; ++i) pools.emplace_back(with_workers(1));
  for (std::size_t i = 0; i < jobs.size(); ++i) pools[i % count].submit(jobs[i].prepare(quick, back.queue));
  ASSERT_TRUE(back.receive(jobs.size()));
  EXPECT_TRUE(testing::eventually([] { return testing::timer_threads() == 1; }));
  EXPECT_LE(testing::descriptor_count(), descriptors + 3);

  // None is destroyed yet, but no job will come any more.
  for (worker_pool& each : pools) each.close();
  for (worker_pool& each : pools) EXPECT_TRUE(each.wait_until_finished(testing::patience));
  EXPECT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 0; }));
  EXPECT_EQ(testing::descriptor_count(), descriptors);
}

TEST(worker_pool_start, has_each_worker_called_in_its_lane_before_its_first_job) {
  struct numbered final : testing::private_lane {
    std::atomic<int> inside{0};
    std::atomic<unsigned> numbers{0};  // a bit for each
    void enter(unsigned worker) noexcept override {
      ++inside;
      numbers |= 1U << worker;
    }
    bool leave() noexcept override { return --inside != 0; }
    void retire() noexcept override {}
  } each_in;
  std::atomic<int> begun{0};
  std::atomic<int> started{0};
  thread_local bool has_begun = false;
  thread_local bool is_started = false;
  consumer back;
  std::atomic<int> here{0};
  kind_of ask([&here](test_job&) {
    ++here;
    return is_started && testing::eventually([&here] { return here == 3; });
  });
  std::vector<test_job> jobs(3);
  auto options = with_workers(3);
  options.on_thread_start = [&] {
    ++begun;
    has_begun = true;
  };
  options.start_in = &each_in;
  options.on_start = [&] {
    started += has_begun && each_in.inside > 0 ? 1 : 0;
    is_started = true;
  };
  worker_pool pool(options);
  for (test_job& j : jobs) pool.submit(j.prepare(ask, back.queue));
  ASSERT_TRUE(back.receive(jobs.size()));
  EXPECT_EQ(pool.stats().completed, jobs.size());
  EXPECT_TRUE(testing::eventually([&] { return started == 3 && each_in.inside == 0; }));
  EXPECT_EQ(each_in.numbers, 0b111U);
  EXPECT_EQ(begun, 3);
}

TEST(worker_pool_start, has_each_thread_called_before_its_first_job_also_without_a_lane) {
  thread_local bool has_begun = false;
  consumer back;
  std::atomic<int> here{0};
  kind_of ask([&here](test_job&) {
    ++here;
    return has_begun && testing::eventually([&here] { return here == 3; });
  });
  std::vector<test_job> jobs(3);
  auto options = with_workers(3);
  options.on_thread_start = [] { has_begun = true; };
  worker_pool pool(options);
  for (test_job& j : jobs) pool.submit(j.prepare(ask, back.queue));
  ASSERT_TRUE(back.receive(jobs.size()));
  EXPECT_EQ(pool.stats().completed, jobs.size());
}

}  // namespace
}  // namespace offgil
