// test_worker_pool_memory.cpp - what a pool does when there is no memory left.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <new>
#include <thread>

#include "pools.hpp"

namespace {

// Of the calling thread only.
thread_local bool memory_is_gone = false;

}  // namespace

void* operator new(std::size_t size) {
  void* const memory = memory_is_gone ? nullptr : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// Not inline, or GCC takes a plain free() for the mismatch of an operator new.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// What Asio uses where a handler brings no memory of its own.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* memory = nullptr;
  if (memory_is_gone || ::posix_memalign(&memory, alignment, size) != 0) return nullptr;
  return memory;
}

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;
using admission = worker_pool::admission;
constexpr auto wait_in_line = worker_pool::when_full::wait_in_line;

class without_memory {
 public:
  without_memory() { memory_is_gone = true; }
  ~without_memory() { memory_is_gone = false; }
  without_memory(const without_memory&) = delete;
  without_memory& operator=(const without_memory&) = delete;
};

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
