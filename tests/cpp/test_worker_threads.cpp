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
  void before_thread_start() override {}
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
  void on_end() noexcept override { ends_before_end = ends.load(); }

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
  std::atomic<int> ends_before_end{-1};  // or -1 before that
  bool calls_wait = false;
  testing::gate gate;

 private:
  std::mutex mutex_;
  // Guarded by mutex_:
  std::set<unsigned> indices_;
  std::vector<pid_t> threads_;
};

// Each call needs a thread of its own while the others wait.
void start_all(worker_threads& threads, counting_guest& guest, int count) {
  guest.calls_wait = true;
  threads.start_first();
  for (int i = 0; i < count; ++i) threads.call();
  EXPECT_TRUE(eventually([&] { return guest.calls == count; }));
  guest.gate.open();
  EXPECT_TRUE(eventually([&] { return guest.calls_ended == count; }));
}

TEST(worker_threads, start_each_with_an_index_of_its_own_and_end_each_once) {
  counting_guest guest;
  worker_threads threads(3, "offgil", 0, {}, guest);
  start_all(threads, guest, 3);
  EXPECT_EQ(guest.indices(), (std::set<unsigned>{0, 1, 2}));
  EXPECT_FALSE(threads.wait_until_ended(1ms));
  EXPECT_EQ(guest.ends, 0);
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.ends, 3);
  EXPECT_EQ(guest.ends_before_end, 3);
}

TEST(worker_threads, are_none_before_they_are_needed) {
  counting_guest guest;
  worker_threads threads(3, "offgil", 0, {}, guest);
  EXPECT_EQ(testing::threads_of_pools(), 0U);
  EXPECT_FALSE(threads.has_started());
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.ends_before_end, 0);
}

TEST(worker_threads, are_not_more_than_there_are_calls_at_once) {
  counting_guest guest;
  worker_threads threads(3, "offgil", 0, {}, guest);
  threads.start_first();
  for (int i = 1; i <= 20; ++i) {
    threads.call();  // the first one perhaps before its thread is there
    ASSERT_TRUE(eventually([&] { return guest.calls_ended == i && guest.are_asleep(1); }));
  }
  threads.let_end();
}

TEST(worker_threads, answer_each_call_on_a_thread_that_is_free) {
  counting_guest guest;
  guest.calls_wait = true;
  worker_threads threads(3, "offgil", 0, {}, guest);
  threads.start_first();
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
  worker_threads threads(count, "offgil", 0, {}, guest);
  start_all(threads, guest, count);
  std::set<pid_t> called;
  for (int i = count + 1; i <= 20; ++i) {
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
  worker_threads threads(3, "offgil", 0, {}, guest);
  threads.start_first();
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
  worker_threads threads(2, "offgil", 0, {}, guest);
  start_all(threads, guest, 2);
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
  worker_threads threads(1, "offgil", 0, {}, guest);
  threads.start_first();
  threads.call();
  threads.let_end();
  EXPECT_TRUE(threads.wait_until_ended(patience));
  EXPECT_EQ(guest.calls_ended, 1);
}

TEST(worker_threads, need_no_descriptor) {
  const std::size_t before = testing::descriptor_count();
  counting_guest guest;
  worker_threads threads(2, "offgil", 0, {}, guest);
  threads.start_first();
  threads.call();
  ASSERT_TRUE(eventually([&guest] { return guest.calls_ended == 1; }));
  EXPECT_EQ(testing::descriptor_count(), before);
  threads.let_end();
}

TEST(worker_threads, are_an_exception_where_the_first_cannot_start) {
  counting_guest guest;
  worker_threads threads(4, "offgil", 0, {}, guest);
  testing::failing_pthread_create = 1;
  EXPECT_THROW(threads.start_first(), std::system_error);
  EXPECT_FALSE(threads.has_started());
  threads.start_first();  // tried again
  threads.call();
  EXPECT_TRUE(eventually([&guest] { return guest.calls_ended == 1; }));
  threads.let_end();
}

TEST(worker_threads, do_the_work_of_those_that_cannot_start) {
  counting_guest guest;
  guest.calls_wait = true;
  worker_threads threads(4, "offgil", 0, {}, guest);
  threads.start_first();
  threads.call();
  ASSERT_TRUE(eventually([&guest] { return guest.calls == 1; }));
  testing::failing_pthread_create = 1;
  threads.call();
  EXPECT_EQ(testing::failing_pthread_create, 0);
  threads.call();  // of this one there is a thread, which takes both
  EXPECT_TRUE(eventually([&guest] { return guest.calls == 2; }));
  guest.gate.open();
  EXPECT_TRUE(eventually([&guest] { return guest.calls_ended == 3; }));
  threads.let_end();
}

}  // namespace
}  // namespace offgil
