// test_worker_pool_memory.cpp - what a pool does when there is no memory left.
#include <gtest/gtest.h>

#include <array>
#include <new>
#include <thread>

#include "interposed_allocation.hpp"
#include "pools.hpp"

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;
using testing::without_memory;
using admission = worker_pool::admission;
constexpr auto wait_in_line = worker_pool::when_full::wait_in_line;

TEST(worker_pool_memory, is_not_needed_to_submit_cancel_wake_and_close) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 5> jobs;
  for (test_job& j : jobs) j.prepare(quick, back.queue);
  test_job watcher(quick, back.queue);
  worker_pool pool(with_workers(2, 2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  {
    const without_memory from_here_on;
    for (test_job& j : jobs) pool.submit(j, wait_in_line, worker_pool::wake_up::may_wait);
    pool.flush_wake_up();
    pool.cancel(jobs[4]);
    pool.notify_when_idle(watcher);
    pool.cancel_waiting();
    pool.close();
  }
  busy.release();
  EXPECT_TRUE(back.receive(jobs.size() + 2));
}

// Only the first job of a priority needs some.
TEST(worker_pool_memory, that_is_missing_refuses_a_job_and_changes_nothing) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job waiting(quick, back.queue);
  test_job important(quick, back.queue, 7);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  {
    const without_memory for_now;
    EXPECT_THROW(pool.submit(important), std::bad_alloc);
  }
  EXPECT_EQ(pool.stats().pending, 0U);
  EXPECT_EQ(pool.submit(waiting), admission::accepted);
  {
    const without_memory for_now;
    EXPECT_THROW(pool.submit(important, wait_in_line), std::bad_alloc);
  }
  EXPECT_EQ(pool.submit(important, wait_in_line), admission::in_line);
  busy.release();
  EXPECT_TRUE(back.receive(3));
  EXPECT_EQ(pool.stats().submitted, 3U);
}

// The job in line is let in where nobody could catch an exception.
TEST(worker_pool_memory, is_not_needed_to_let_a_job_of_a_new_priority_in_from_the_line) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job waiting(quick, back.queue);
  test_job important(quick, back.queue, 7);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(waiting), admission::accepted);
  EXPECT_EQ(pool.submit(important, wait_in_line), admission::in_line);
  {
    const without_memory from_here_on;
    EXPECT_TRUE(pool.cancel(waiting));
  }
  EXPECT_EQ(pool.stats().pending, 1U);
  busy.release();
  EXPECT_TRUE(back.receive(3));
}

}  // namespace
}  // namespace offgil
