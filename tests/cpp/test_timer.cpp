// test_timer.cpp - a timer; all timers of a process share one thread.
#include "timer.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "interposed_allocation.hpp"
#include "interposed_pthread_create.hpp"
#include "patience.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::eventually;
using testing::exit_code_of_child;
using testing::timer_threads;

std::string own_name() {
  std::array<char, 32> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

// Threads that have been joined are listed for a moment longer.
bool no_timer_thread_is_left() {
  return eventually([] { return timer_threads() == 0; });
}

TEST(timer, expires_once_for_each_time_it_is_asked_and_not_too_early) {
  std::atomic<int> expired{0};
  timer asked([&expired] { ++expired; });
  for (int i = 1; i <= 5; ++i) {
    const auto begin = clock::now();
    asked.expire_after(2ms);
    ASSERT_TRUE(eventually([&] { return expired == i; }));
    EXPECT_GE(clock::now() - begin, 2ms);
  }
  asked.stop();
  EXPECT_EQ(expired, 5);
}

TEST(timer, may_be_asked_by_its_own_expiry) {
  constexpr int wanted = 100;
  std::atomic<int> expired{0};
  std::optional<timer> chain;
  chain.emplace([&] {
    if (++expired < wanted) chain->expire_after(10us);
  });
  chain->expire_after(0ms);
  EXPECT_TRUE(eventually([&] { return expired == wanted; }));
}

TEST(timer, expires_in_the_order_of_the_deadlines_whoever_was_asked_first) {
  std::vector<int> order;  // written on the timer thread only
  std::atomic<int> expired{0};
  std::deque<timer> timers;
  for (int i = 0; i < 4; ++i)
    timers.emplace_back([&order, &expired, i] {
      order.push_back(i);
      ++expired;
    });
  timer busy([&] {
    for (int i = 3; i >= 0; --i) timers[static_cast<std::size_t>(i)].expire_after(i * 1ms);
  });
  busy.expire_after(0ms);
  EXPECT_TRUE(eventually([&expired] { return expired == 4; }));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST(timer, runs_on_a_thread_of_its_own_that_hears_of_no_signal) {
  std::atomic<bool> expired{false};
  std::string name;
  bool hears = true;
  bool hears_of_its_faults = false;
  timer asked([&] {
    name = own_name();
    sigset_t blocked;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    hears = ::sigismember(&blocked, SIGTERM) == 0 || ::sigismember(&blocked, SIGALRM) == 0;
    hears_of_its_faults = ::sigismember(&blocked, SIGSEGV) == 0;
    expired = true;
  });
  asked.expire_after(0ms);
  ASSERT_TRUE(eventually([&expired] { return expired.load(); }));
  EXPECT_EQ(name, "offgil-time");
  EXPECT_FALSE(hears);
  EXPECT_TRUE(hears_of_its_faults);
}

TEST(timer, shares_its_thread_and_descriptors_with_all_others_and_the_last_ends_them) {
  ASSERT_TRUE(no_timer_thread_is_left());
  const std::size_t before = testing::descriptor_count();
  std::atomic<int> expired{0};
  std::deque<timer> timers;
  timers.emplace_back([&expired] { ++expired; });
  const std::size_t with_one = testing::descriptor_count();
  EXPECT_LE(with_one, before + 3);
  for (int i = 0; i < 50; ++i) timers.emplace_back([&expired] { ++expired; });
  for (timer& each : timers) each.expire_after(1ms);
  EXPECT_TRUE(eventually([&expired] { return expired == 51; }));
  EXPECT_EQ(timer_threads(), 1U);
  EXPECT_EQ(testing::descriptor_count(), with_one);
  // Stopped is as good as destroyed.
  for (timer& each : timers) each.stop();
  EXPECT_TRUE(no_timer_thread_is_left());
  EXPECT_EQ(testing::descriptor_count(), before);
}

TEST(timer, that_is_stopped_does_not_expire) {
  std::atomic<int> expired{0};
  timer asked([&expired] { ++expired; });
  asked.expire_after(1h);
  asked.stop();
  asked.expire_after(0ms);
  asked.stop();
  timer another([&expired] { ++expired; });
  another.expire_after(1ms);
  EXPECT_TRUE(eventually([&expired] { return expired == 1; }));
  another.stop();
  EXPECT_EQ(expired, 1);
}

TEST(timer, waits_when_stopped_for_the_expiry_that_is_under_way) {
  testing::gate gate;
  std::atomic<bool> inside{false};
  std::atomic<bool> over{false};
  std::atomic<bool> stopped{false};
  timer asked([&] {
    inside = true;
    gate.pass();
    over = true;
  });
  asked.expire_after(0ms);
  ASSERT_TRUE(eventually([&inside] { return inside.load(); }));
  std::thread stopping([&] {
    asked.stop();
    EXPECT_TRUE(over);
    stopped = true;
  });
  const auto until = clock::now() + 50ms;
  while (clock::now() < until) ASSERT_FALSE(stopped);
  gate.open();
  stopping.join();
}

// At any moment of a chain of expiries that would go on for ever.
TEST(timer, can_be_stopped_at_any_moment) {
  std::minstd_rand random(11);
  timer keeps_the_thread([] {});
  for (std::size_t round = 0; round < testing::rounds(2'000); ++round) {
    std::atomic<int> expired{0};
    std::optional<timer> chain;
    chain.emplace([&] {
      ++expired;
      chain->expire_after(0ms);
    });
    chain->expire_after(0ms);
    const auto until = clock::now() + std::chrono::microseconds(random() % 200);
    while (clock::now() < until) {
    }
    chain->stop();
    const int seen = expired;
    chain.reset();
    ASSERT_EQ(expired, seen);
  }
}

// The thread ends with the last of them, while another thread makes the first of the next.
TEST(timer, can_be_made_while_the_last_one_ends) {
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&failed] {
      for (std::size_t round = 0; round < testing::rounds(400); ++round) {
        std::atomic<bool> expired{false};
        timer asked([&expired] { expired = true; });
        asked.expire_after(0ms);
        if (!eventually([&expired] { return expired.load(); })) ++failed;
      }
    });
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(failed, 0);
  EXPECT_TRUE(no_timer_thread_is_left());
}

TEST(timer, needs_no_memory_to_be_armed_however_many_are) {
  std::atomic<int> expired{0};
  std::deque<timer> timers;
  for (int i = 0; i < 100; ++i) timers.emplace_back([&expired] { ++expired; });
  {
    const testing::without_memory from_here_on;
    for (timer& each : timers) each.expire_after(20ms);
  }
  EXPECT_TRUE(eventually([&expired] { return expired == 100; }));
}

// ---- what may be missing ----

TEST(timer, is_an_exception_where_its_thread_cannot_start) {
  ASSERT_TRUE(no_timer_thread_is_left());
  const std::size_t descriptors = testing::descriptor_count();
  int error = 0;
  testing::failing_pthread_create = 1;
  try {
    const timer refused([] {});
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  EXPECT_EQ(error, EAGAIN);
  EXPECT_EQ(testing::descriptor_count(), descriptors);
  std::atomic<bool> expired{false};
  timer next([&expired] { expired = true; });
  next.expire_after(0ms);
  EXPECT_TRUE(eventually([&expired] { return expired.load(); }));
}

TEST(timer, is_an_exception_where_no_descriptor_can_be_had_unless_others_have_them) {
  ASSERT_TRUE(no_timer_thread_is_left());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  int error = 0;
  std::string text;
  try {
    const timer refused([] {});
  } catch (const std::system_error& e) {
    error = e.code().value();
    text = e.what();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(error, EMFILE);
  EXPECT_NE(text.find("timers"), std::string::npos) << text;

  const timer has_them([] {});
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_NO_THROW(timer([] {}));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

// ---- fork ----

TEST(timer, works_in_a_forked_child_and_goes_on_in_the_parent) {
  if (testing::thread_sanitizer) GTEST_SKIP() << "no threads in a child that forked beside threads";
  if (testing::address_sanitizer)
    GTEST_SKIP() << "its allocator's locks may be held by threads of the parent";
  std::atomic<int> expired{0};
  timer before([&expired] { ++expired; });
  before.expire_after(1ms);
  EXPECT_EQ(exit_code_of_child([] {
              {
                std::atomic<bool> expired{false};
                timer own([&expired] { expired = true; });
                own.expire_after(1ms);
                EXPECT_TRUE(eventually([&expired] { return expired.load(); }));
                EXPECT_EQ(timer_threads(), 1U);
              }
              EXPECT_TRUE(no_timer_thread_is_left());
            }),
            0);
  EXPECT_TRUE(eventually([&expired] { return expired == 1; }));
  before.expire_after(1ms);
  EXPECT_TRUE(eventually([&expired] { return expired == 2; }));
}

// The child is born while other threads make the first timer and stop the last: whatever they hold, it needs
// not.
TEST(timer, can_be_made_in_a_child_that_forked_at_any_moment) {
  if (testing::thread_sanitizer) GTEST_SKIP() << "no threads in a child that forked beside threads";
  if (testing::address_sanitizer)
    GTEST_SKIP() << "its allocator's locks may be held by threads of the parent";
  std::atomic<bool> enough{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&enough] {
      while (!enough) const timer brief([] {});
    });
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(exit_code_of_child([] {
                std::atomic<bool> expired{false};
                timer own([&expired] { expired = true; });
                own.expire_after(0ms);
                if (!eventually([&expired] { return expired.load(); })) ::_exit(2);
              }),
              0);
  enough = true;
  for (std::thread& each : threads) each.join();
}

}  // namespace
}  // namespace offgil
