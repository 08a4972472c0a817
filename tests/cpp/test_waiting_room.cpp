// test_waiting_room.cpp - threads that wait for a job to come back.
#include "waiting_room.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "patience.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using end = waiting_room::end;
using testing::eventually;
using testing::patience;

// Sets a flag as a worker does when a job is back.
void set(completion_flag& flag, waiting_room& room) {
  if ((flag.set() & completion_flag::wait) != 0) room.wake(flag);
}

clock::time_point soon() { return clock::now() + 5ms; }
clock::time_point at_last() { return clock::now() + patience; }

TEST(waiting_room, does_not_keep_who_comes_when_the_flag_is_set) {
  waiting_room room(1);
  completion_flag flag;
  set(flag, room);
  EXPECT_EQ(room.wait(flag, true, std::nullopt), end::flag_is_set);
}

TEST(waiting_room, lets_go_when_the_time_is_over) {
  waiting_room room(1);
  completion_flag flag;
  EXPECT_EQ(room.wait(flag, false, soon()), end::out_of_time);
  EXPECT_EQ(room.wait(flag, false, clock::time_point{}), end::out_of_time);
}

TEST(waiting_room, wakes_all_who_wait_for_a_flag_and_nobody_else) {
  waiting_room room(1);
  completion_flag flag;
  completion_flag other;
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] { woken += room.wait(flag, false, at_last()) == end::flag_is_set; });
  std::thread left([&] { EXPECT_EQ(room.wait(other, false, clock::now() + 50ms), end::out_of_time); });
  set(flag, room);
  for (auto& each : threads) each.join();
  left.join();
  EXPECT_EQ(woken, 3);
}

TEST(waiting_room, loses_no_wake_however_close_it_comes) {
  waiting_room room(1);
  for (int round = 0; round < 2'000; ++round) {
    completion_flag flag;
    std::thread setter([&] { set(flag, room); });
    EXPECT_EQ(room.wait(flag, false, at_last()), end::flag_is_set);
    setter.join();
  }
}

TEST(waiting_room, tells_of_a_signal) {
  struct sigaction before {};
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &nothing, &before);
  waiting_room room(1);
  completion_flag flag;
  std::atomic<bool> over{false};
  std::thread waiting([&] {
    EXPECT_EQ(room.wait(flag, false, at_last()), end::interrupted);
    over = true;
  });
  EXPECT_TRUE(eventually([&] {  // again and again: it may come before the wait begins
    if (!over) ::pthread_kill(waiting.native_handle(), SIGUSR1);
    return over.load();
  }));
  waiting.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST(waiting_room, refuses_the_wait_of_the_last_worker) {
  waiting_room room(2);
  completion_flag first;
  completion_flag second;
  std::atomic<bool> inside{false};
  std::thread other([&] {
    const waiting_room::absence absent(room, first);
    EXPECT_FALSE(absent.is_deadlock());
    inside = true;
    room.wait(first, false, at_last());
  });
  ASSERT_TRUE(eventually([&] { return inside.load(); }));
  EXPECT_EQ(room.wait(second, true, std::nullopt), end::deadlock);
  EXPECT_TRUE(waiting_room::absence(room, second).is_deadlock());
  EXPECT_EQ(room.wait(second, true, soon()), end::out_of_time) << "a wait with a limit ends by itself";
  EXPECT_EQ(room.wait(second, false, soon()), end::out_of_time) << "no worker";
  set(first, room);
  other.join();
}

TEST(waiting_room, does_not_count_a_worker_whose_flag_is_set) {
  waiting_room room(2);
  completion_flag first;
  completion_flag second;
  const waiting_room::absence about_to_go_on(room, first);
  first.set();
  std::thread setter([&] { set(second, room); });
  EXPECT_EQ(room.wait(second, true, std::nullopt), end::flag_is_set);
  setter.join();
}

}  // namespace
}  // namespace offgil
