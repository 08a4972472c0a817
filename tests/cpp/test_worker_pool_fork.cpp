// test_worker_pool_fork.cpp - a pool in a process that forks.
#include <gtest/gtest.h>

#include <array>
#include <atomic>

#include "fork.hpp"
#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using testing::consumer;
using testing::exit_code_of_child;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;

TEST(process_generation, is_over_in_a_forked_child_and_only_there) {
  const process_generation generation;
  EXPECT_EQ(exit_code_of_child([&generation] { EXPECT_TRUE(generation.is_over()); }), 0);
  EXPECT_FALSE(generation.is_over());
}

TEST(process_generation, that_begins_in_a_child_is_not_over_there) {
  const process_generation generation;
  EXPECT_EQ(exit_code_of_child([] { EXPECT_FALSE(process_generation().is_over()); }), 0);
}

TEST(worker_pool_fork, leaves_the_pool_behind_in_the_child_and_whole_in_the_parent) {
  consumer back;
  kind_of quick([](test_job&) {});
  worker_pool pool(with_workers(2));
  test_job first(quick, back.queue);
  pool.submit(first);
  EXPECT_TRUE(back.receive(1));
  EXPECT_FALSE(pool.was_left_behind_by_fork());
  EXPECT_EQ(exit_code_of_child([&pool] { EXPECT_TRUE(pool.was_left_behind_by_fork()); }), 0);
  EXPECT_FALSE(pool.was_left_behind_by_fork());
  test_job j(quick, back.queue);
  pool.submit(j);
  EXPECT_TRUE(back.receive(1));
}

TEST(worker_pool_fork, takes_a_pool_along_that_has_no_thread_yet) {
  consumer back;
  kind_of quick([](test_job&) {});
  worker_pool pool(with_workers(2));
  EXPECT_EQ(exit_code_of_child([&] {
              test_job j(quick, back.queue);
              pool.submit(j);
              EXPECT_TRUE(back.receive(1));
              EXPECT_FALSE(pool.was_left_behind_by_fork());
              EXPECT_EQ(exit_code_of_child([&pool] { EXPECT_TRUE(pool.was_left_behind_by_fork()); }), 0);
            }),
            0);
}

// The child is born at any moment of the pool's life, also while its mutex is held.
TEST(worker_pool_fork, can_happen_under_load) {
  consumer back;
  std::atomic<bool> enough{false};
  kind_of quick([](test_job&) {});
  std::array<test_job, 64> jobs;
  worker_pool pool(with_workers(2));
  test_job first(quick, back.queue);
  pool.submit(first);
  ASSERT_TRUE(back.receive(1));
  std::thread load([&] {
    while (!enough) {
      for (test_job& j : jobs) {
        j.state = job_state::waiting;
        j.accepted = false;
        pool.submit(j.prepare(quick, back.queue));
      }
      ASSERT_TRUE(back.receive(jobs.size()));
    }
  });
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(exit_code_of_child([&pool] {
                if (!pool.was_left_behind_by_fork()) ::_exit(2);
              }),
              0);
  enough = true;
  load.join();
  EXPECT_FALSE(pool.was_left_behind_by_fork());
}

}  // namespace
}  // namespace offgil
