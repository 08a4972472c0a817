// test_io_threads.cpp - the threads of a pool, inside Boost.Asio's io_context::run().
#include "io_threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "interposed_pthread_create.hpp"
#include "patience.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::eventually;
using testing::patience;

// Counts. A gate holds calls up, when it is wanted.
class counting_guest final : public io_threads::guest {
 public:
  void on_thread_start(unsigned index) noexcept override {
    const std::lock_guard lock(mutex_);
    indices_.insert(index);
  }
  void on_call() noexcept override {
    ++calls;
    if (calls_wait) gate.pass();
    ++calls_ended;
  }
  void on_tick() noexcept override { ++ticks; }
  void on_thread_end() noexcept override { ++ends; }

  std::set<unsigned> indices() {
    const std::lock_guard lock(mutex_);
    return indices_;
  }

  std::atomic<int> calls{0};
  std::atomic<int> calls_ended{0};
  std::atomic<int> ticks{0};
  std::atomic<int> ends{0};
  bool calls_wait = false;
  testing::gate gate;

 private:
  std::mutex mutex_;
  std::set<unsigned> indices_;  // guarded by mutex_
};

TEST(io_threads, start_each_with_an_index_of_its_own_and_end_each_once) {
  counting_guest guest;
  io_threads threads(3, "offgil", 0, guest);
  EXPECT_TRUE(eventually([&guest] { return guest.indices() == std::set<unsigned>{0, 1, 2}; }));
  EXPECT_FALSE(threads.wait_until_ended(1ms));
  EXPECT_EQ(guest.ends, 0);
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.ends, 3);
}

TEST(io_threads, answer_each_call_on_a_thread_that_is_free) {
  counting_guest guest;
  guest.calls_wait = true;
  io_threads threads(3, "offgil", 0, guest);
  for (int i = 0; i < 3; ++i) threads.call();
  EXPECT_TRUE(eventually([&guest] { return guest.calls == 3; }));
  EXPECT_EQ(guest.calls_ended, 0);
  guest.gate.open();
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, 3);
}

TEST(io_threads, tick_once_for_each_time_they_are_asked_and_not_too_early) {
  counting_guest guest;
  io_threads threads(2, "offgil", 0, guest);
  for (int i = 1; i <= 5; ++i) {
    const auto begin = clock::now();
    threads.tick_after(2ms);
    ASSERT_TRUE(eventually([&guest, i] { return guest.ticks == i; }));
    EXPECT_GE(clock::now() - begin, 2ms);
  }
  threads.let_end();
}

TEST(io_threads, do_what_they_were_asked_before_they_end) {
  counting_guest guest;
  io_threads threads(1, "offgil", 0, guest);
  threads.tick_after(1ms);
  threads.call();
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, 1);
  EXPECT_EQ(guest.ticks, 1);
}

TEST(io_threads, start_all_or_none) {
  counting_guest guest;
  testing::failing_pthread_create = 3;
  EXPECT_THROW(io_threads(4, "offgil", 0, guest), std::system_error);
  EXPECT_TRUE(eventually([] { return testing::threads_of_pools() == 0; }));
}

}  // namespace
}  // namespace offgil
