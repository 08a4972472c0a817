// test_wakeup.cpp - a file descriptor that becomes readable when somebody wakes it.
#include "wakeup.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>

#include <system_error>
#include <thread>
#include <vector>

#include "patience.hpp"
#include "process.hpp"
#include "wakeup_mechanisms.hpp"

namespace offgil {
namespace {

bool is_readable(const wakeup& signal, std::chrono::milliseconds within = std::chrono::milliseconds(0)) {
  pollfd readable{.fd = signal.fd(), .events = POLLIN, .revents = 0};
  return ::poll(&readable, 1, static_cast<int>(within.count())) == 1;
}

class wakeup_by : public ::testing::TestWithParam<wakeup::mechanism> {};

TEST_P(wakeup_by, is_readable_from_a_wake_until_it_is_cleared) {
  wakeup signal(GetParam());
  EXPECT_FALSE(is_readable(signal));
  signal.wake();
  EXPECT_TRUE(is_readable(signal));
  EXPECT_TRUE(is_readable(signal));
  signal.clear();
  EXPECT_FALSE(is_readable(signal));
  signal.wake();
  EXPECT_TRUE(is_readable(signal));
}

TEST_P(wakeup_by, is_cleared_at_once_however_often_it_was_woken) {
  wakeup signal(GetParam());
  for (const int times : {63, 64, 65, 200, 1'000}) {
    for (int i = 0; i < times; ++i) signal.wake();
    signal.clear();
    EXPECT_FALSE(is_readable(signal)) << times;
  }
}

TEST_P(wakeup_by, does_not_block_when_cleared_without_a_wake) {
  wakeup signal(GetParam());
  signal.clear();
  EXPECT_FALSE(is_readable(signal));
}

// A pipe holds 64 KiB, which is 8192 wakes; an eventfd counts them.
TEST_P(wakeup_by, does_not_block_when_nobody_clears) {
  wakeup signal(GetParam());
  for (int i = 0; i < 20'000; ++i) signal.wake();
  EXPECT_TRUE(is_readable(signal));
  signal.clear();
  EXPECT_FALSE(is_readable(signal));
  signal.wake();
  EXPECT_TRUE(is_readable(signal));
}

TEST_P(wakeup_by, wakes_a_thread_that_sleeps) {
  wakeup signal(GetParam());
  std::thread other([&signal] { signal.wake(); });
  EXPECT_TRUE(is_readable(signal, testing::patience));
  other.join();
}

TEST_P(wakeup_by, is_non_blocking_and_closed_on_exec) {
  const wakeup signal(GetParam());
  EXPECT_NE(::fcntl(signal.fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(signal.fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_P(wakeup_by, closes_what_it_opened) {
  const std::size_t before = testing::descriptor_count();
  {
    const wakeup signal(GetParam());
    EXPECT_GT(testing::descriptor_count(), before);
  }
  EXPECT_EQ(testing::descriptor_count(), before);
}

TEST_P(wakeup_by, is_an_exception_when_the_process_has_no_descriptor_left) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  int error = 0;
  try {
    const wakeup signal(GetParam());
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(error, EMFILE);
}

INSTANTIATE_TEST_SUITE_P(means_of, wakeup_by, testing::each_mechanism(), ::testing::PrintToStringParamName());

}  // namespace
}  // namespace offgil
