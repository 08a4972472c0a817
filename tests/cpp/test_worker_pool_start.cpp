// test_worker_pool_start.cpp - a pool starts all threads or none.
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

class worker_pool_whose_thread_fails : public ::testing::TestWithParam<int> {};

TEST_P(worker_pool_whose_thread_fails, to_start_is_an_exception_and_leaves_no_other_thread) {
  const std::size_t descriptors = testing::descriptor_count();
  int error = 0;
  testing::failing_pthread_create = GetParam();
  try {
    const worker_pool pool(with_workers(4));
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  EXPECT_EQ(error, EAGAIN);
  EXPECT_EQ(testing::failing_pthread_create, 0) << "threads were tried after the one that failed";
  EXPECT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 0; }));
  EXPECT_EQ(testing::descriptor_count(), descriptors);

  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool next(with_workers(4));
  next.submit(j);
  EXPECT_TRUE(back.receive(1));
}

// The timer thread is the first, where no other pool has it.
INSTANTIATE_TEST_SUITE_P(number, worker_pool_whose_thread_fails, ::testing::Range(1, 6));

TEST(worker_pool_start, is_an_exception_where_no_descriptor_can_be_had_unless_another_pool_has_them) {
  ASSERT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 0; }));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  int error = 0;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  try {
    const worker_pool refused(with_workers(2));
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(error, EMFILE);
  EXPECT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 0; }));

  const worker_pool has_them(with_workers(1));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_NO_THROW(worker_pool(with_workers(2)));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(worker_pool_start, brings_up_every_thread_it_promises) {
  const worker_pool pool(with_workers(5));
  EXPECT_EQ(pool.workers(), 5U);
  EXPECT_TRUE(
      testing::eventually([] { return testing::threads_of_pools() == 5 + testing::timer_threads(); }));
}

TEST(worker_pool_start, shares_one_timer_thread_and_its_descriptors_with_every_other_pool) {
  constexpr std::size_t count = 60;
  const std::size_t descriptors = testing::descriptor_count();
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(count);
  std::deque<worker_pool> pools;
  for (test_job& j : jobs) pools.emplace_back(with_workers(1)).submit(j.prepare(quick, back.queue));
  ASSERT_TRUE(back.receive(count));
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
  kind_of ask([](test_job&) { return is_started; });
  std::vector<test_job> jobs(100);
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
  kind_of ask([](test_job&) { return has_begun; });
  std::vector<test_job> jobs(100);
  auto options = with_workers(3);
  options.on_thread_start = [] { has_begun = true; };
  worker_pool pool(options);
  for (test_job& j : jobs) pool.submit(j.prepare(ask, back.queue));
  ASSERT_TRUE(back.receive(jobs.size()));
  EXPECT_EQ(pool.stats().completed, jobs.size());
}

}  // namespace
}  // namespace offgil
