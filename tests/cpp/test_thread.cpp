// test_thread.cpp - a thread as the pool needs it.
#include "thread.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <csignal>
#include <set>
#include <string>
#include <system_error>

#include "interposed_pthread_create.hpp"
#include "process.hpp"

namespace offgil {
namespace {

std::string own_name() {
  std::array<char, 32> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

TEST(thread, runs_its_body_and_joins_when_destroyed) {
  bool ran = false;
  {
    const thread started("t", {}, [&ran] { ran = true; });
  }
  EXPECT_TRUE(ran);
}

TEST(thread, can_be_joined_twice) {
  thread started("t", {}, [] {});
  started.join();
  started.join();
}

TEST(thread, carries_its_name_cut_to_the_kernels_limit) {
  std::string short_name;
  std::string long_name;
  std::string numbered_name;
  {
    const thread started("offgil-3", {}, [&] { short_name = own_name(); });
  }
  {
    const thread started("0123456789abcdefghij", {}, [&] { long_name = own_name(); });
  }
  {
    const thread started("0123456789abcdefghij-17", {}, [&] { numbered_name = own_name(); });
  }
  EXPECT_EQ(short_name, "offgil-3");
  EXPECT_EQ(long_name, "0123456789abcde");
  EXPECT_EQ(numbered_name, "0123456789ab-17");
}

constexpr std::size_t mebibyte = std::size_t{1024} * 1024;

// Sizes must lie far apart: glibc keeps a stack for the next thread whose is not much smaller.
//
// Of a thread that is started with `with`, where the system's default is `by_default`.
std::size_t stack_size(thread::attributes with, std::size_t by_default) {
  pthread_attr_t before;
  ::pthread_getattr_default_np(&before);
  pthread_attr_t other = before;
  ::pthread_attr_setstacksize(&other, by_default);
  ::pthread_setattr_default_np(&other);
  std::size_t size = 0;
  {
    const thread started("t", with, [&size] {
      pthread_attr_t attributes;
      ::pthread_getattr_np(::pthread_self(), &attributes);
      ::pthread_attr_getstacksize(&attributes, &size);
      ::pthread_attr_destroy(&attributes);
    });
  }
  ::pthread_setattr_default_np(&before);
  ::pthread_attr_destroy(&before);
  return size;
}

TEST(thread, has_a_stack_of_the_size_that_is_asked_for) {
  EXPECT_EQ(stack_size({.stack_size = 64 * mebibyte}, 8 * mebibyte), 64 * mebibyte);
  EXPECT_LT(stack_size({.stack_size = mebibyte / 4}, 8 * mebibyte), mebibyte);  // sanitizers need some more
}

TEST(thread, has_a_stack_of_the_systems_default_or_of_one_mebibyte) {
  EXPECT_EQ(stack_size({}, 12 * mebibyte), 12 * mebibyte);
  EXPECT_EQ(stack_size({}, mebibyte / 8), mebibyte);
}

// The creator's mask for the time of a test: one signal blocked, all others not.
class mask_with_one_signal {
 public:
  mask_with_one_signal() {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR2);
    ::pthread_sigmask(SIG_SETMASK, &one, &before_);
  }
  ~mask_with_one_signal() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  mask_with_one_signal(const mask_with_one_signal&) = delete;
  mask_with_one_signal& operator=(const mask_with_one_signal&) = delete;

  bool is_in_force() const {
    sigset_t now;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &now);
    for (int signal = 1; signal <= SIGRTMAX; ++signal)
      if ((sigismember(&now, signal) == 1) != (signal == SIGUSR2)) return false;
    return true;
  }

 private:
  sigset_t before_{};
};

TEST(thread, has_every_signal_blocked_but_its_own_faults_and_leaves_its_creators_mask_alone) {
  const std::set<int> faults{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  const mask_with_one_signal creators;
  sigset_t inside;
  {
    const thread started("t", {}, [&inside] { ::pthread_sigmask(SIG_SETMASK, nullptr, &inside); });
  }
  EXPECT_TRUE(creators.is_in_force());
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    const bool is_the_librarys_own = signal > SIGSYS && signal < SIGRTMIN;
    if (signal == SIGKILL || signal == SIGSTOP || is_the_librarys_own) continue;
    EXPECT_EQ(sigismember(&inside, signal), faults.contains(signal) ? 0 : 1) << signal;
  }
}

TEST(thread, adds_its_niceness_to_its_creators) {
  const int creator = ::getpriority(PRIO_PROCESS, 0);
  int inside = 0;
  {
    const thread started("t", {.nice = 3}, [&inside] { inside = ::getpriority(PRIO_PROCESS, 0); });
  }
  EXPECT_EQ(inside, creator + 3);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), creator);
}

TEST(thread, that_cannot_start_is_an_exception_and_its_body_never_runs) {
  const mask_with_one_signal creators;
  bool ran = false;
  int error = 0;
  testing::failing_pthread_create = 1;
  try {
    const thread started("offgil-0", {}, [&ran] { ran = true; });
  } catch (const std::system_error& e) {
    error = e.code().value();
    EXPECT_NE(std::string(e.what()).find("offgil-0"), std::string::npos);
  }
  EXPECT_EQ(error, EAGAIN);
  EXPECT_FALSE(ran);
  EXPECT_TRUE(creators.is_in_force());
}

}  // namespace
}  // namespace offgil
