// test_worker_pool_start.cpp - a pool starts all threads or none.
#include <gtest/gtest.h>

#include <memory>
#include <system_error>

#include "interposed_pthread_create.hpp"
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

INSTANTIATE_TEST_SUITE_P(number, worker_pool_whose_thread_fails, ::testing::Range(1, 5));

TEST(worker_pool_start, brings_up_every_thread_it_promises) {
  const worker_pool pool(with_workers(5));
  EXPECT_EQ(pool.workers(), 5U);
  EXPECT_TRUE(testing::eventually([] { return testing::threads_of_pools() == 5; }));
}

}  // namespace
}  // namespace offgil
