// test_worker_pool_lane.cpp - jobs that a worker may run only inside a lane.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "lanes.hpp"
#include "pools.hpp"

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::eventually;
using testing::kind_of;
using testing::private_lane;
using testing::test_job;
using testing::train;
using testing::very_short;
using testing::with_workers;

thread_local const lane* inside = nullptr;

// Exclusive, as the GIL is, and watchful.
class watched_lane final : public private_lane {
 public:
  void enter(unsigned) noexcept override {
    EXPECT_EQ(inside, nullptr) << "a worker enters a lane while it is in one";
    held_.lock();
    inside = this;
    ++enters;
    const std::lock_guard lock(mutex_);
    entered_by_.insert(std::this_thread::get_id());
  }
  bool leave() noexcept override {
    EXPECT_EQ(inside, this);
    inside = nullptr;
    ++leaves;
    held_.unlock();
    return true;
  }
  void retire() noexcept override {
    EXPECT_EQ(inside, nullptr) << "a worker retires from a lane while it is in one";
    const std::lock_guard lock(mutex_);
    retired_.insert(std::this_thread::get_id());
  }

  // Once there is no pool any more.
  bool was_retired_once_by_each_that_entered() const {
    return retired_ == std::multiset<std::thread::id>(entered_by_.begin(), entered_by_.end());
  }
  std::size_t visitors() const { return entered_by_.size(); }

  std::atomic<int> enters{0};
  std::atomic<int> leaves{0};

 private:
  std::mutex held_;
  std::mutex mutex_;
  std::set<std::thread::id> entered_by_;    // guarded by mutex_
  std::multiset<std::thread::id> retired_;  // guarded by mutex_
};

TEST(worker_pool_lane, is_entered_once_for_a_run_of_short_jobs) {
  constexpr int count = 10;
  consumer back;
  watched_lane gil;
  kind_of in_lane([&gil](test_job&) { return inside == &gil; }, &gil);
  train(in_lane, very_short);
  blocker busy(back);
  std::array<test_job, count> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(in_lane, back.queue));
  const auto begin = clock::now();
  busy.release();
  ASSERT_TRUE(back.receive(count + 1));
  const auto gaps = (clock::now() - begin) / lane_gate::period;  // none, unless the machine is very slow
  for (const test_job& j : jobs) EXPECT_TRUE(j.succeeded) << "ran outside of its lane";
  EXPECT_LE(gil.enters, 1 + gaps);
}

// Of ten portions of four jobs each: between them, too, the clock decides whether to leave the lane.
TEST(worker_pool_lane, is_kept_from_one_portion_to_the_next) {
  constexpr int count = 40;
  consumer back;
  watched_lane gil;
  kind_of in_lane([](test_job&) {}, &gil);
  train(in_lane, run_queue::lane_portion / 4);
  blocker busy(back);
  std::array<test_job, count> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(in_lane, back.queue));
  const auto begin = clock::now();
  busy.release();
  ASSERT_TRUE(back.receive(count + 1));
  const auto gaps = (clock::now() - begin) / lane_gate::period;
  EXPECT_LE(gil.enters, 1 + gaps);
}

// They were quick before: all of them are claimed in one portion.
TEST(worker_pool_lane, is_left_after_each_job_that_outlives_the_stay) {
  constexpr int count = 10;
  consumer back;
  watched_lane gil;
  kind_of longer_than_known(
      [](test_job&) {
        const auto end = clock::now() + lane_gate::period;
        while (clock::now() < end) continue;
      },
      &gil);
  train(longer_than_known, very_short);
  blocker busy(back);
  std::array<test_job, count> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(longer_than_known, back.queue));
  busy.release();
  ASSERT_TRUE(back.receive(count + 1));
  EXPECT_EQ(gil.enters, count);
}

class lane_that_interferes final : public private_lane {
 public:
  void enter(unsigned) noexcept override {}
  bool leave() noexcept override {
    if (!std::exchange(has_interfered_, true)) interfere();
    return true;
  }
  void retire() noexcept override {}

  std::function<void()> interfere;

 private:
  bool has_interfered_ = false;
};

// Neither in the queue nor laid out for others, but in the worker's hand, when all that waits is cancelled.
TEST(worker_pool_lane, that_is_left_in_the_middle_of_a_portion_loses_no_cancellation) {
  constexpr int count = 5;
  consumer back;
  lane_that_interferes gil;
  kind_of longer_than_known(
      [](test_job&) {
        const auto end = cpu_time_of_this_thread() + lane_gate::period;
        while (cpu_time_of_this_thread() < end) continue;
      },
      &gil);
  train(longer_than_known, very_short);
  blocker busy(back);
  std::array<test_job, count> jobs;
  worker_pool pool(with_workers(1));
  gil.interfere = [&pool] { pool.cancel_waiting(); };
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(longer_than_known, back.queue));
  busy.release();
  ASSERT_TRUE(back.receive(count + 1));
  EXPECT_EQ(jobs.front().runs, 1);
  for (std::size_t i = 1; i < jobs.size(); ++i) EXPECT_EQ(jobs[i].runs, 0) << i;
  const auto seen = pool.stats();
  EXPECT_EQ(seen.cancelled, count - 1U);
  EXPECT_TRUE(testing::is_consistent(seen, 0, 1));
}

TEST(worker_pool_lane, has_been_left_when_the_pool_is_idle) {
  consumer back;
  watched_lane gil;
  kind_of in_lane([](test_job&) {}, &gil);
  worker_pool pool(with_workers(2));
  for (int i = 0; i < 200; ++i) {
    test_job j(in_lane, back.queue);
    test_job watcher(in_lane, back.queue);
    pool.submit(j);
    pool.notify_when_idle(watcher);
    ASSERT_TRUE(back.receive(2));
    ASSERT_EQ(gil.enters, gil.leaves);
    ASSERT_EQ(gil.enters, i + 1);
  }
}

TEST(worker_pool_lane, holds_exactly_those_jobs_that_are_of_it) {
  constexpr std::size_t count = 3'000;
  consumer back;
  watched_lane one;
  watched_lane other;
  kind_of in_one([&one](test_job&) { return inside == &one; }, &one);
  kind_of in_other([&other](test_job&) { return inside == &other; }, &other);
  kind_of native([](test_job&) { return inside == nullptr; });
  const std::array<job_kind*, 3> kinds{&in_one, &native, &in_other};
  std::vector<test_job> jobs(count);
  {
    worker_pool pool(with_workers(2));
    for (std::size_t i = 0; i < count; ++i) pool.submit(jobs[i].prepare(*kinds[i * i % 7 % 3], back.queue));
    ASSERT_TRUE(back.receive<test_job>(count, [](test_job& j) { EXPECT_TRUE(j.succeeded); }));
  }
  EXPECT_EQ(one.enters, one.leaves);
  EXPECT_EQ(other.enters, other.leaves);
  EXPECT_TRUE(one.was_retired_once_by_each_that_entered());
  EXPECT_TRUE(other.was_retired_once_by_each_that_entered());
}

// Waits for its jobs outside of the lane, or only one worker could be in it.
class shared_lane final : public private_lane {
 public:
  void enter(unsigned) noexcept override { inside = this; }
  bool leave() noexcept override {
    inside = nullptr;
    return true;
  }
  void retire() noexcept override {
    const std::lock_guard lock(mutex_);
    retired.insert(std::this_thread::get_id());
  }
  std::multiset<std::thread::id> retired;  // guarded by mutex_

 private:
  std::mutex mutex_;
};

TEST(worker_pool_lane, is_retired_from_once_by_each_thread_that_entered_however_often_it_did) {
  constexpr int count = 3;
  consumer back;
  shared_lane gil;
  std::atomic<int> arrived{0};
  kind_of meeting(
      [&arrived](test_job&) {
        const int all = (arrived++ / count + 1) * count;
        return eventually([&arrived, all] { return arrived >= all; });
      },
      &gil);
  {
    worker_pool pool(with_workers(count));
    for (int round = 0; round < 5; ++round) {
      std::array<test_job, count> jobs;
      for (test_job& j : jobs) pool.submit(j.prepare(meeting, back.queue));
      ASSERT_TRUE(back.receive(count));
    }
    EXPECT_TRUE(gil.retired.empty());
  }
  const std::set<std::thread::id> threads(gil.retired.begin(), gil.retired.end());
  EXPECT_EQ(threads.size(), 3U);
  EXPECT_EQ(gil.retired.size(), 3U);
}

TEST(worker_pool_lane, is_not_touched_by_jobs_without_one) {
  consumer back;
  watched_lane gil;
  const kind_of unused([](test_job&) {}, &gil);
  kind_of native([](test_job&) { return inside == nullptr; });
  {
    std::array<test_job, 10> jobs;
    worker_pool pool(with_workers(2));
    for (test_job& j : jobs) pool.submit(j.prepare(native, back.queue));
    ASSERT_TRUE(back.receive(jobs.size()));
  }
  EXPECT_EQ(gil.enters, 0);
  EXPECT_EQ(gil.visitors(), 0U);
  EXPECT_TRUE(gil.was_retired_once_by_each_that_entered());
}

class gated_lane final : public private_lane {
 public:
  void enter(unsigned) noexcept override {
    waiting = true;
    entrance.pass();
  }
  bool leave() noexcept override { return true; }
  void retire() noexcept override {}

  testing::gate entrance;
  std::atomic<bool> waiting{false};
};

// The GIL may be held by others for as long as they like.
TEST(worker_pool_lane, that_is_hard_to_enter_holds_no_native_job_back) {
  consumer back;
  consumer back_from_lane;
  gated_lane gil;
  kind_of in_lane([](test_job&) {}, &gil);
  kind_of native([](test_job&) {});
  train(in_lane, very_short);
  train(native, very_short);
  blocker busy(back);
  blocker busy_too(back);
  test_job first(in_lane, back_from_lane.queue);
  test_job behind(native, back.queue);
  test_job later(native, back.queue);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(busy_too.occupies_a_worker_of(pool));
  pool.submit(first);
  pool.submit(behind);
  busy.release();
  ASSERT_TRUE(eventually([&gil] { return gil.waiting.load(); }));
  busy_too.release();
  EXPECT_TRUE(back.receive(3)) << "what stood behind in the same portion";
  pool.submit(later);
  EXPECT_TRUE(back.receive(1)) << "what came later";
  gil.entrance.open();
  EXPECT_TRUE(back_from_lane.receive(1));
}

}  // namespace
}  // namespace offgil
