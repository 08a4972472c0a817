// test_completion_queue.cpp - finished jobs on their way to one consumer.
#include "completion_queue.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <thread>
#include <vector>

#include "jobs.hpp"
#include "patience.hpp"
#include "wakeup_mechanisms.hpp"

namespace offgil {
namespace {

using testing::patience;
using testing::test_job;

class counting_waker final : public waker {
 public:
  void wake() noexcept override { ++wakes; }
  int wakes = 0;
};

class completion_queue_test : public ::testing::Test {
 protected:
  std::vector<std::ptrdiff_t> taken() {
    std::vector<std::ptrdiff_t> order;
    for (job_list list = queue.take(); !list.empty();) order.push_back(&list.pop_front() - jobs.data());
    return order;
  }

  std::array<job, 4> jobs;
  counting_waker consumer;
  completion_queue queue{consumer};
};

using order = std::vector<std::ptrdiff_t>;

TEST_F(completion_queue_test, wakes_a_sleeping_consumer_once_for_a_batch) {
  for (job& j : jobs) queue.push(j);
  EXPECT_EQ(consumer.wakes, 1);
  EXPECT_EQ(queue.wakeups(), 1U);
}

TEST_F(completion_queue_test, gives_the_oldest_first) {
  for (job& j : jobs) queue.push(j);
  EXPECT_EQ(taken(), (order{0, 1, 2, 3}));
  EXPECT_EQ(taken(), order{});
}

TEST_F(completion_queue_test, is_silent_while_the_consumer_attends) {
  EXPECT_EQ(taken(), order{});
  queue.push(jobs[0]);
  queue.push(jobs[1]);
  EXPECT_EQ(taken(), (order{0, 1}));
  queue.push(jobs[2]);
  EXPECT_EQ(taken(), (order{2}));
  EXPECT_EQ(consumer.wakes, 0);
}

TEST_F(completion_queue_test, lets_the_consumer_sleep_only_when_nothing_has_come) {
  EXPECT_EQ(taken(), order{});
  queue.push(jobs[0]);
  EXPECT_FALSE(queue.fall_asleep());
  EXPECT_EQ(taken(), (order{0}));
  EXPECT_TRUE(queue.fall_asleep());
  queue.push(jobs[1]);
  EXPECT_EQ(consumer.wakes, 1);
}

class completion_queue_stress : public ::testing::TestWithParam<wakeup::mechanism> {};

// Every job counts on the one before it being noticed: a lost wake leaves the consumer asleep for good.
TEST_P(completion_queue_stress, loses_no_wake_and_keeps_the_order_of_each_producer) {
  constexpr std::size_t producers = 4;
  constexpr std::size_t each = 262'144;
  wakeup signal(GetParam());
  completion_queue queue(signal);

  std::vector<std::vector<test_job>> jobs;
  for (std::size_t p = 0; p < producers; ++p) jobs.emplace_back(each);
  std::vector<std::thread> threads;
  for (std::vector<test_job>& mine : jobs)
    threads.emplace_back([&mine, &queue] {
      for (std::size_t i = 0; i < each; ++i) {
        mine[i].id = i;
        mine[i].result = 3 * i;
        queue.push(mine[i]);
        if (i % 64 == 0) std::this_thread::yield();  // lets the consumer fall asleep often
      }
    });

  std::vector<std::size_t> next(producers);
  std::size_t received = 0;
  std::size_t sleeps = 0;
  bool in_time = true;
  while (received < producers * each && in_time) {
    for (job_list arrived = queue.take(); !arrived.empty(); ++received) {
      auto& j = static_cast<test_job&>(arrived.pop_front());
      for (std::size_t p = 0; p < producers; ++p)
        if (&j >= jobs[p].data() && &j < jobs[p].data() + each) {
          EXPECT_EQ(j.id, next[p]++);
        }
      EXPECT_EQ(j.result, 3 * j.id);
    }
    if (received == producers * each || !queue.fall_asleep()) continue;
    ++sleeps;
    pollfd readable{.fd = signal.fd(), .events = POLLIN, .revents = 0};
    in_time = ::poll(&readable, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) == 1;
    signal.clear();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(in_time) << "the consumer was not woken";
  EXPECT_EQ(received, producers * each);
  EXPECT_EQ(next, std::vector<std::size_t>(producers, each));
  EXPECT_GE(queue.wakeups(), sleeps);
  EXPECT_LE(queue.wakeups(), sleeps + 1);  // the queue begins asleep
}

INSTANTIATE_TEST_SUITE_P(on, completion_queue_stress, testing::each_mechanism(),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace offgil
