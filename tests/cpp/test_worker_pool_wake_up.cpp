// test_worker_pool_wake_up.cpp - no job waits while a worker is free.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using namespace std::chrono_literals;
using testing::blocker;
using testing::consumer;
using testing::eventually;
using testing::kind_of;
using testing::test_job;
using testing::train;
using testing::very_short;
using testing::with_workers;
constexpr auto refuse = worker_pool::when_full::refuse;
constexpr auto may_wait = worker_pool::wake_up::may_wait;

// The job before leaves the timer running that must make good on the wake-up; the pauses are of all lengths
// from none to longer than the timer lives.
TEST(worker_pool_wake_up, comes_by_itself_when_it_may_wait_and_is_never_flushed) {
  constexpr std::size_t rounds = 400;
  consumer back;
  kind_of quick([](test_job&) {});
  train(quick, very_short);
  std::chrono::nanoseconds all{0};
  worker_pool pool(with_workers(2));
  for (std::size_t round = 0; round < rounds; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(10 * round));
    test_job before(quick, back.queue);
    test_job after(quick, back.queue);
    pool.submit(before);
    ASSERT_TRUE(back.receive(1));
    const auto begin = clock::now();
    pool.submit(after, refuse, may_wait);
    ASSERT_TRUE(back.receive(1)) << "round " << round;
    all += clock::now() - begin;
  }
  // About a millisecond each; the rest is for a machine that has other things to do.
  EXPECT_LT(all / rounds, 20ms);
}

TEST(worker_pool_wake_up, comes_when_it_is_flushed) {
  consumer back;
  kind_of quick([](test_job&) {});
  worker_pool pool(with_workers(1));
  pool.flush_wake_up();
  for (int round = 0; round < 2'000; ++round) {
    std::array<test_job, 3> jobs;
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue), refuse, may_wait);
    pool.flush_wake_up();
    pool.flush_wake_up();
    ASSERT_TRUE(back.receive(jobs.size())) << "round " << round;
  }
}

// Unless this thread is held up in between, which happens.
TEST(worker_pool_wake_up, that_is_flushed_is_not_left_to_the_timer) {
  constexpr unsigned rounds = 100;
  consumer back;
  kind_of quick([](test_job&) {});
  train(quick, very_short);
  worker_pool pool(with_workers(1));
  const auto is_called_late = [&](bool flushed) {
    const std::uint64_t before = pool.stats().late_calls;
    test_job j(quick, back.queue);
    pool.submit(j, refuse, may_wait);
    if (flushed) pool.flush_wake_up();
    EXPECT_TRUE(back.receive(1));
    return pool.stats().late_calls != before;
  };
  unsigned late = 0;
  for (unsigned round = 0; round < rounds; ++round) late += is_called_late(true) ? 1U : 0U;
  EXPECT_LT(late, rounds / 2);
  EXPECT_TRUE(eventually([&] { return is_called_late(false); }));
}

// A kind that is known to be short, until one of its jobs (id 0) waits at a gate.
class worker_pool_misled : public ::testing::Test {
 protected:
  worker_pool_misled() : kind([this](test_job& j) { return run(j); }) {
    train(kind, very_short);
    for (std::size_t i = 0; i < jobs.size(); ++i)
      jobs[i].prepare(kind, i == 0 ? back_late.queue : back.queue).id = i;
  }
  bool run(test_job& j) {
    if (j.id != 0) return true;
    inside = true;
    return gate.pass();
  }
  bool is_stuck() {
    return eventually([this] { return inside.load(); });
  }

  consumer back;
  consumer back_late;
  testing::gate gate;
  std::atomic<bool> inside{false};
  kind_of<std::function<bool(test_job&)>> kind;
  std::array<test_job, 8> jobs;
};

TEST_F(worker_pool_misled, runs_what_was_claimed_together_with_a_job_that_blocks) {
  blocker busy(back);
  blocker busy_too(back);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(busy_too.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j);
  busy.release();
  ASSERT_TRUE(is_stuck());
  busy_too.release();
  EXPECT_TRUE(back.receive(2 + jobs.size() - 1));
  EXPECT_TRUE(back_late.has_nothing());
  gate.open();
  EXPECT_TRUE(back_late.receive(1));
}

// The other worker always has something to do, and so none is free for the timer.
TEST_F(worker_pool_misled, runs_what_was_claimed_also_while_no_worker_is_idle) {
  consumer back_slow;
  kind_of slow([](test_job&) { std::this_thread::sleep_for(5ms); });
  std::vector<test_job> backlog(60);
  blocker busy(back);
  blocker busy_too(back);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(busy_too.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j);
  for (test_job& j : backlog) pool.submit(j.prepare(slow, back_slow.queue));
  busy.release();
  ASSERT_TRUE(is_stuck());
  busy_too.release();
  EXPECT_TRUE(back.receive(2 + jobs.size() - 1));
  EXPECT_LT(pool.stats().completed, 2 + jobs.size() - 1 + backlog.size()) << "only when all else had ended";
  gate.open();
  EXPECT_TRUE(back_late.receive(1));
  EXPECT_TRUE(back_slow.receive(backlog.size()));
}

TEST_F(worker_pool_misled, runs_what_is_submitted_after_a_job_that_blocks) {
  worker_pool pool(with_workers(2));
  pool.submit(jobs[0]);
  ASSERT_TRUE(is_stuck());
  for (std::size_t i = 1; i < jobs.size(); ++i) {
    pool.submit(jobs[i], refuse, i % 2 == 0 ? may_wait : worker_pool::wake_up::now);
    ASSERT_TRUE(back.receive(1)) << i;
  }
  gate.open();
  EXPECT_TRUE(back_late.receive(1));
}

TEST_F(worker_pool_misled, runs_the_line_behind_a_job_that_blocks) {
  worker_pool pool(with_workers(2, 1));
  pool.submit(jobs[0]);
  ASSERT_TRUE(is_stuck());
  for (std::size_t i = 1; i < jobs.size(); ++i)
    pool.submit(jobs[i], worker_pool::when_full::wait_in_line, may_wait);
  EXPECT_TRUE(back.receive(jobs.size() - 1));
  gate.open();
  EXPECT_TRUE(back_late.receive(1));
}

TEST_F(worker_pool_misled, keeps_the_order_of_what_it_had_claimed) {
  std::vector<std::size_t> order;
  kind_of<std::function<bool(test_job&)>> noting([&order](test_job& j) {
    order.push_back(j.id);
    return true;
  });
  train(noting, very_short);
  blocker busy(back);
  blocker busy_too(back);
  worker_pool pool(with_workers(2));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_TRUE(busy_too.occupies_a_worker_of(pool));
  pool.submit(jobs[0]);
  for (std::size_t i = 1; i < jobs.size(); ++i) pool.submit(jobs[i].prepare(noting, back.queue));
  busy.release();
  ASSERT_TRUE(is_stuck());
  busy_too.release();
  EXPECT_TRUE(back.receive(2 + jobs.size() - 1));
  gate.open();
  EXPECT_TRUE(back_late.receive(1));
  EXPECT_EQ(order, (std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7}));
}

// The first of two jobs waits for the second, which stands behind it; both stand behind one that runs for
// about as long as the timer waits. So a tick may fall between submit and claim, and there must be two more.
TEST(worker_pool_wake_up, comes_whenever_a_job_turns_out_to_block) {
  constexpr std::size_t rounds = testing::rounds(800);
  consumer back;
  std::minstd_rand random(17);
  worker_pool pool(with_workers(2));
  for (std::size_t round = 0; round < rounds; ++round) {
    const std::chrono::microseconds duration(200 + random() % 1'200);
    std::atomic<bool> inside{false};
    kind_of slow([&](test_job&) {
      inside = true;
      std::this_thread::sleep_for(duration);
    });
    testing::gate gate;
    kind_of kind([&gate](test_job& j) {
      if (j.id == 0) return gate.pass();
      gate.open();
      return true;
    });
    train(slow, very_short);
    train(kind, very_short);
    test_job before(slow, back.queue);
    std::array<test_job, 2> jobs;
    pool.submit(before);
    ASSERT_TRUE(eventually([&inside] { return inside.load(); }));
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      jobs[i].id = i;
      pool.submit(jobs[i].prepare(kind, back.queue));
    }
    ASSERT_TRUE(back.receive<test_job>(3, [](test_job& j) { EXPECT_TRUE(j.succeeded); }))
        << "round " << round;
  }
}

// Several jobs of one kind block, and the one worker that is left runs everything else.
TEST(worker_pool_wake_up, finds_the_last_free_worker) {
  constexpr std::size_t stuck = 3;
  constexpr std::size_t rest = 200;
  consumer back;
  consumer back_late;
  testing::gate gate;
  kind_of kind([&gate](test_job& j) { return j.id < stuck ? gate.pass() : true; });
  train(kind, very_short);
  std::vector<test_job> jobs(stuck + rest);
  worker_pool pool(with_workers(stuck + 1));
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].prepare(kind, i < stuck ? back_late.queue : back.queue).id = i;
    pool.submit(jobs[i], refuse, i % 2 == 0 ? may_wait : worker_pool::wake_up::now);
  }
  EXPECT_TRUE(back.receive(rest));
  gate.open();
  EXPECT_TRUE(back_late.receive(stuck));
}

}  // namespace
}  // namespace offgil
