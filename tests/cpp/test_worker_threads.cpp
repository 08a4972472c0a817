// test_worker_threads.cpp - the threads of a pool, asleep until they are called.
#include "worker_threads.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "interposed_pthread_create.hpp"
#include "patience.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::eventually;
using testing::patience;

// Counts. A gate holds calls up, when it is wanted.
class counting_guest final : public worker_threads::guest {
 public:
  void on_thread_start(unsigned index) noexcept override {
    const std::lock_guard lock(mutex_);
    indices_.insert(index);
    threads_.push_back(::gettid());
  }
  void on_call() noexcept override {
    last_called = ::gettid();
    ++calls;
    if (calls_wait) gate.pass();
    ++calls_ended;
  }
  void on_thread_end() noexcept override { ++ends; }

  std::set<unsigned> indices() {
    const std::lock_guard lock(mutex_);
    return indices_;
  }

  // Whether all `count` sleep.
  bool are_asleep(std::size_t count) {
    const std::lock_guard lock(mutex_);
    return threads_.size() == count && std::all_of(threads_.begin(), threads_.end(), &testing::is_asleep);
  }

  std::atomic<int> calls{0};
  std::atomic<pid_t> last_called{0};
  std::atomic<int> calls_ended{0};
  std::atomic<int> ends{0};
  bool calls_wait = false;
  testing::gate gate;

 private:
  std::mutex mutex_;
  // Guarded by mutex_:
  std::set<unsigned> indices_;
  std::vector<pid_t> threads_;
};

TEST(worker_threads, start_each_with_an_index_of_its_own_and_end_each_once) {
  counting_guest guest;
  worker_threads threads(3, "offgil", 0, guest);
  EXPECT_TRUE(eventually([&guest] { return guest.indices() == std::set<unsigned>{0, 1, 2}; }));
  EXPECT_FALSE(threads.wait_until_ended(1ms));
  EXPECT_EQ(guest.ends, 0);
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.ends, 3);
}

TEST(worker_threads, answer_each_call_on_a_thread_that_is_free) {
  counting_guest guest;
  guest.calls_wait = true;
  worker_threads threads(3, "offgil", 0, guest);
  for (int i = 0; i < 3; ++i) threads.call();
  EXPECT_TRUE(eventually([&guest] { return guest.calls == 3; }));
  EXPECT_EQ(guest.calls_ended, 0);
  guest.gate.open();
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, 3);
}

TEST(worker_threads, are_called_last_asleep_first) {
  constexpr std::size_t count = 3;
  counting_guest guest;
  worker_threads threads(count, "offgil", 0, guest);
  std::set<pid_t> called;
  for (int i = 1; i <= 20; ++i) {
    ASSERT_TRUE(eventually([&guest] { return guest.are_asleep(count); }));
    threads.call();
    ASSERT_TRUE(eventually([&guest, i] { return guest.calls_ended == i; }));
    called.insert(guest.last_called);
  }
  EXPECT_EQ(called.size(), 1U);
  threads.let_end();
}

TEST(worker_threads, answer_every_call_whoever_is_awake) {
  constexpr int rounds = static_cast<int>(testing::rounds(20'000));
  counting_guest guest;
  worker_threads threads(3, "offgil", 0, guest);
  for (int i = 1; i <= rounds; ++i) {
    for (int n = 0; n < i % 3; ++n) threads.call();
    threads.call();
    if (i % 4 == 0) std::this_thread::yield();
  }
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, guest.calls);
  int wanted = 0;
  for (int i = 1; i <= rounds; ++i) wanted += 1 + i % 3;
  EXPECT_EQ(guest.calls_ended, wanted);
}

TEST(worker_threads, have_ended_for_everybody_who_waited) {
  counting_guest guest;
  worker_threads threads(2, "offgil", 0, guest);
  EXPECT_FALSE(threads.have_ended());
  threads.let_end();
  std::thread waits_too([&threads] { EXPECT_TRUE(threads.wait_until_ended(patience)); });
  EXPECT_TRUE(threads.wait_until_ended(patience));
  waits_too.join();
  EXPECT_TRUE(threads.have_ended());
  EXPECT_TRUE(eventually([] { return testing::threads_of_pools() == 0; }));
}

TEST(worker_threads, do_what_they_were_asked_before_they_end) {
  counting_guest guest;
  worker_threads threads(1, "offgil", 0, guest);
  threads.call();
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, 1);
}

TEST(worker_threads, need_no_descriptor) {
  const std::size_t before = testing::descriptor_count();
  counting_guest guest;
  worker_threads threads(2, "offgil", 0, guest);
  threads.call();
  ASSERT_TRUE(eventually([&guest] { return guest.calls_ended == 1; }));
  EXPECT_EQ(testing::descriptor_count(), before);
  threads.let_end();
}

TEST(worker_threads, start_all_or_none) {
  counting_guest guest;
  testing::failing_pthread_create = 3;
  EXPECT_THROW(worker_threads(4, "offgil", 0, guest), std::system_error);
  EXPECT_TRUE(eventually([] { return testing::threads_of_pools() == 0; }));
}

}  // namespace
}  // namespace offgil
