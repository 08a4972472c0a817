// test_worker_pool_cancel.cpp - jobs that nobody wants any more.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "pools.hpp"
#include "process.hpp"

namespace offgil {
namespace {

using testing::blocker;
using testing::consumer;
using testing::eventually;
using testing::kind_of;
using testing::test_job;
using testing::train;
using testing::very_short;
using testing::with_workers;
using admission = worker_pool::admission;

TEST(worker_pool_cancel, withdraws_a_job_that_waits_and_it_never_runs) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job j(quick, back.queue);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  pool.submit(j);
  EXPECT_TRUE(pool.cancel(j));
  EXPECT_FALSE(pool.cancel(j)) << "withdrawn twice";
  EXPECT_EQ(pool.stats().cancelled, 1U);
  EXPECT_EQ(pool.stats().pending, 0U);
  busy.release();
  ASSERT_TRUE(back.receive(2));
  EXPECT_EQ(j.runs, 0);
  EXPECT_EQ(j.refused, refusal::none);
  EXPECT_EQ(j.state.load(), job_state::cancelled);
  EXPECT_EQ(pool.stats().cancelled, 1U);
  EXPECT_EQ(pool.stats().completed, 1U);
}

TEST(worker_pool_cancel, does_not_let_withdrawn_jobs_pile_up_behind_a_long_one) {
  constexpr std::size_t many = 10'000;
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::vector<test_job> jobs(many);
  test_job kept(quick, back.queue);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  pool.submit(kept);
  for (test_job& j : jobs) {
    pool.submit(j.prepare(quick, back.queue));
    EXPECT_TRUE(pool.cancel(j));
  }
  EXPECT_TRUE(back.receive(many / 2)) << "while the worker is busy";
  EXPECT_EQ(pool.stats().pending, 1U);
  EXPECT_EQ(pool.stats().cancelled, many);
  busy.release();
  ASSERT_TRUE(back.receive(many / 2 + 2));
  EXPECT_TRUE(back.has_nothing());
  EXPECT_EQ(kept.runs, 1);
  for (const test_job& j : jobs) EXPECT_EQ(j.runs, 0);
  EXPECT_EQ(pool.stats().completed, 2U);
}

TEST(worker_pool_cancel, does_not_let_those_pile_up_that_gave_up_in_line_or_waiting_for_the_end) {
  constexpr std::size_t many = 5'000;
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job fills(quick, back.queue);
  std::vector<test_job> in_line(many);
  std::vector<test_job> watchers(many);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  ASSERT_EQ(pool.submit(fills), admission::accepted);
  for (test_job& j : in_line) {
    ASSERT_EQ(pool.submit(j.prepare(quick, back.queue), worker_pool::when_full::wait_in_line),
              admission::in_line);
    EXPECT_TRUE(pool.cancel(j));
  }
  EXPECT_TRUE(back.receive(many / 2)) << "of the line";
  for (test_job& j : watchers) {
    pool.notify_when_idle(j.prepare(quick, back.queue));
    EXPECT_TRUE(pool.cancel(j));
  }
  EXPECT_TRUE(back.receive(many)) << "of the watchers, too";
  EXPECT_EQ(pool.stats().cancelled, 0U);
  busy.release();
  ASSERT_TRUE(back.receive(many / 2 + 2));
  EXPECT_TRUE(back.has_nothing());
}

// Where nobody else is left to see that the pool is idle.
TEST(worker_pool_cancel, tells_who_waits_for_the_end_when_the_last_jobs_are_swept_out) {
  constexpr std::size_t many = 3'000;
  consumer back;
  consumer told;
  kind_of quick([](test_job&) {});
  for (int round = 0; round < 20; ++round) {
    std::vector<test_job> jobs(many);
    test_job watcher(quick, told.queue);
    worker_pool pool(with_workers(2));
    for (test_job& j : jobs)
      pool.submit(j.prepare(quick, back.queue), worker_pool::when_full::refuse,
                  worker_pool::wake_up::may_wait);
    pool.notify_when_idle(watcher);
    for (test_job& j : jobs) pool.cancel(j);
    EXPECT_TRUE(told.receive(1));
    EXPECT_TRUE(back.receive(many));
    pool.close();
  }
}

TEST(worker_pool_cancel, lets_a_running_job_end_and_counts_it_as_cancelled) {
  consumer back;
  blocker busy(back);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_FALSE(pool.cancel(busy.its_job()));
  EXPECT_EQ(pool.stats().running, 1U);
  EXPECT_EQ(pool.stats().cancelled, 0U);
  busy.release();
  ASSERT_TRUE(back.receive(1));
  EXPECT_EQ(busy.its_job().state.load(), job_state::done);
  EXPECT_EQ(pool.stats().cancelled, 1U);
  EXPECT_EQ(pool.stats().completed, 0U);
}

TEST(worker_pool_cancel, comes_too_late_for_a_job_that_is_done) {
  consumer back;
  kind_of quick([](test_job&) {});
  test_job j(quick, back.queue);
  worker_pool pool(with_workers(1));
  pool.submit(j);
  ASSERT_TRUE(back.receive(1));
  EXPECT_FALSE(pool.cancel(j));
  EXPECT_EQ(pool.stats().cancelled, 0U);
  EXPECT_EQ(pool.stats().completed, 1U);
}

// The parameter is max_pending; a bound brings jobs in line into play.
class worker_pool_cancel_race : public ::testing::TestWithParam<std::size_t> {};

TEST_P(worker_pool_cancel_race, at_any_moment_either_prevents_the_run_or_does_not_and_the_counters_add_up) {
  constexpr std::size_t at_once = 8;
  constexpr std::size_t rounds = testing::rounds(12'000);
  consumer back;
  kind_of quick([](test_job&) {});
  std::size_t prevented_and_counted = 0;
  std::size_t left_without_trace = 0;
  std::minstd_rand random(7);
  worker_pool pool(with_workers(2, GetParam()));
  {
    const testing::stats_watch watch(pool);
    for (std::size_t round = 0; round < rounds; ++round) {
      std::array<test_job, at_once> jobs;
      std::array<bool, at_once> withdrawn{};
      for (test_job& j : jobs) {
        const auto answer =
            pool.submit(j.prepare(quick, back.queue), worker_pool::when_full::wait_in_line,
                        round % 2 == 0 ? worker_pool::wake_up::now : worker_pool::wake_up::may_wait);
        ASSERT_TRUE(answer == admission::accepted || answer == admission::in_line);
      }
      for (auto spin = random() % 2'000; spin != 0; --spin)
        std::atomic_signal_fence(std::memory_order_seq_cst);
      for (std::size_t n = random() % at_once; n != 0; --n) {
        const std::size_t which = random() % at_once;
        if (pool.cancel(jobs[which])) withdrawn[which] = true;
      }
      ASSERT_TRUE(back.receive<test_job>(at_once, [](test_job& j) { ++j.returned; })) << "round " << round;
      for (std::size_t i = 0; i < at_once; ++i) {
        ASSERT_EQ(jobs[i].returned, 1);
        ASSERT_EQ(jobs[i].runs, withdrawn[i] ? 0 : 1);
        if (withdrawn[i]) ++(jobs[i].accepted ? prevented_and_counted : left_without_trace);
      }
    }
  }
  const pool_stats seen = pool.stats();
  EXPECT_EQ(seen.submitted, rounds * at_once - left_without_trace);
  EXPECT_EQ(seen.completed + seen.cancelled, seen.submitted);
  EXPECT_GE(seen.cancelled, prevented_and_counted);
  EXPECT_EQ(seen.pending, 0U);
  EXPECT_EQ(seen.running, 0U);
  EXPECT_GT(prevented_and_counted, 0U);
  EXPECT_GT(seen.completed, 0U);
}

INSTANTIATE_TEST_SUITE_P(bounded_by, worker_pool_cancel_race, ::testing::Values(0, 3));

// ---- all that wait ----

TEST(worker_pool_cancel, withdraws_all_that_wait_but_not_what_runs) {
  constexpr std::size_t count = 100;
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::vector<test_job> jobs(count);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (std::size_t i = 0; i < count; ++i)
    pool.submit(jobs[i].prepare(quick, back.queue, static_cast<std::int8_t>(i % 3)));
  EXPECT_TRUE(pool.cancel(jobs[50]));
  EXPECT_EQ(pool.cancel_waiting(), count - 1) << "one had been withdrawn before";
  EXPECT_TRUE(back.receive<test_job>(count, [](test_job& j) {
    EXPECT_EQ(j.runs, 0);
    EXPECT_EQ(j.state.load(), job_state::cancelled);
  })) << "they come back at once";
  EXPECT_EQ(pool.stats().cancelled, count);
  EXPECT_EQ(pool.stats().pending, 0U);
  EXPECT_EQ(pool.cancel_waiting(), 0U);
  busy.release();
  ASSERT_TRUE(back.receive(1));
  EXPECT_EQ(pool.stats().completed, 1U);
}

TEST(worker_pool_cancel, withdraws_what_waits_for_one_destination_and_leaves_the_others_their_order) {
  constexpr std::size_t count = 60;
  consumer back;
  consumer elsewhere;
  std::vector<std::size_t> order;
  kind_of note([&order](test_job& j) { order.push_back(j.id); });
  blocker busy(back);
  std::vector<test_job> jobs(count);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (std::size_t i = 0; i < count; ++i)
    pool.submit(jobs[i].prepare(note, i % 3 == 0 ? elsewhere.queue : back.queue)), jobs[i].id = i;
  EXPECT_EQ(pool.cancel_unclaimed(&elsewhere.queue), count / 3);
  ASSERT_TRUE(elsewhere.receive<test_job>(count / 3, [](test_job& j) { EXPECT_EQ(j.runs, 0); }));
  EXPECT_EQ(pool.cancel_unclaimed(&elsewhere.queue), 0U);
  busy.release();
  ASSERT_TRUE(back.receive(1 + count - count / 3));
  EXPECT_EQ(order.size(), count - count / 3);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(worker_pool_cancel, of_what_no_worker_has_claimed_spares_what_one_was_called_for) {
  constexpr std::size_t count = 10;
  consumer back;
  kind_of quick([](test_job&) {});
  for (int round = 0; round < 200; ++round) {
    std::vector<test_job> jobs(count);
    worker_pool pool(with_workers(3));
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
    const std::size_t withdrawn = pool.cancel_unclaimed(nullptr);
    EXPECT_LT(withdrawn, count) << "the first submit has called a worker";
    std::size_t runs = 0;
    ASSERT_TRUE(
        back.receive<test_job>(count, [&runs](test_job& j) { runs += static_cast<std::size_t>(j.runs); }));
    EXPECT_EQ(runs, count - withdrawn);
  }
}

TEST(worker_pool_cancel, of_a_job_that_runs_can_leave_it_alone) {
  consumer back;
  blocker busy(back);
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_FALSE(pool.cancel(busy.its_job(), false));
  busy.release();
  ASSERT_TRUE(back.receive(1));
  EXPECT_EQ(pool.stats().completed, 1U);
  EXPECT_EQ(pool.stats().cancelled, 0U);
}

TEST(worker_pool_cancel, by_a_breakdown_is_a_refusal_and_closes_the_pool) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  std::array<test_job, 3> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  EXPECT_TRUE(pool.cancel(jobs[0]));
  pool.break_down();
  ASSERT_TRUE(back.receive(3));
  EXPECT_EQ(jobs[0].refused, refusal::none) << "its consumer was the first";
  EXPECT_EQ(jobs[1].refused, refusal::broken);
  EXPECT_EQ(jobs[2].runs, 0);
  test_job late(quick, back.queue);
  EXPECT_EQ(pool.submit(late), worker_pool::admission::closed);
  busy.release();
  ASSERT_TRUE(back.receive(1)) << "what runs goes on to its end";
  EXPECT_TRUE(pool.wait_until_finished(testing::patience));
}

TEST(worker_pool_cancel, withdraws_what_a_worker_has_claimed_and_not_begun) {
  consumer back;
  testing::gate gate;
  std::atomic<bool> inside{false};
  kind_of taken_for_short([&](test_job& j) {
    if (j.id != 0) return true;
    inside = true;
    return gate.pass();
  });
  train(taken_for_short, very_short);
  blocker busy(back);
  std::array<test_job, 4> jobs;
  worker_pool pool(with_workers(1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].id = i;
    pool.submit(jobs[i].prepare(taken_for_short, back.queue));
  }
  busy.release();
  ASSERT_TRUE(eventually([&inside] { return inside.load(); }));
  ASSERT_TRUE(back.receive(1));
  EXPECT_EQ(pool.cancel_waiting(), 3U);
  EXPECT_TRUE(back.receive<test_job>(3, [](test_job& j) { EXPECT_EQ(j.runs, 0); }));
  gate.open();
  ASSERT_TRUE(back.receive(1));
  EXPECT_EQ(jobs[0].runs, 1);
}

// Between claiming a portion and beginning with it there is a moment at which the jobs are nowhere to be
// found.
TEST(worker_pool_cancel, of_all_that_wait_leaves_none_to_begin_but_the_one_that_a_worker_is_at) {
  constexpr std::size_t at_once = 64;
  constexpr std::size_t rounds = testing::rounds(20'000);
  consumer back;
  std::atomic<std::size_t> begun{0};
  kind_of quick([&begun](test_job&) { ++begun; });
  std::minstd_rand random(11);
  worker_pool pool(with_workers(1));
  for (std::size_t round = 0; round < rounds; ++round) {
    train(quick, very_short);
    std::array<test_job, at_once> jobs;
    for (test_job& j : jobs)
      pool.submit(j.prepare(quick, back.queue), worker_pool::when_full::refuse,
                  worker_pool::wake_up::may_wait);
    pool.flush_wake_up();
    for (auto spin = random() % 20'000; spin != 0; --spin)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    pool.cancel_waiting();
    const std::size_t begun_before = begun;
    ASSERT_TRUE(back.receive(at_once)) << "round " << round;
    ASSERT_LE(begun - begun_before, 1U) << "round " << round;
  }
}

TEST(worker_pool_cancel, of_all_that_wait_makes_room_for_the_line) {
  consumer back;
  kind_of quick([](test_job&) {});
  blocker busy(back);
  test_job waiting(quick, back.queue);
  test_job in_line(quick, back.queue);
  worker_pool pool(with_workers(1, 1));
  ASSERT_TRUE(busy.occupies_a_worker_of(pool));
  EXPECT_EQ(pool.submit(waiting), admission::accepted);
  EXPECT_EQ(pool.submit(in_line, worker_pool::when_full::wait_in_line), admission::in_line);
  EXPECT_EQ(pool.cancel_waiting(), 1U);
  EXPECT_EQ(back.receive_one(), &waiting);
  EXPECT_EQ(pool.stats().pending, 1U);
  busy.release();
  ASSERT_TRUE(back.receive(2));
  EXPECT_EQ(in_line.runs, 1);
}

// Jobs may be withdrawn while every worker is parked: then nobody else would ever tell the watcher.
TEST(worker_pool_cancel, of_all_that_wait_tells_those_who_watch_for_idleness) {
  consumer back;
  kind_of quick([](test_job&) {});
  train(quick, very_short);
  worker_pool pool(with_workers(2));
  std::size_t withdrawn = 0;
  const auto deadline = clock::now() + testing::patience;
  while (withdrawn < 100 && clock::now() < deadline) {
    test_job j(quick, back.queue);
    test_job watcher(quick, back.queue);
    pool.submit(j, worker_pool::when_full::refuse, worker_pool::wake_up::may_wait);
    pool.notify_when_idle(watcher);
    withdrawn += pool.cancel_waiting();
    ASSERT_EQ(back.receive_one(), &j);
    ASSERT_EQ(back.receive_one(), &watcher);
  }
  EXPECT_EQ(withdrawn, 100U);
}

// One submits, one withdraws; the watcher's queue is the jobs' queue, so that it shows who came first.
TEST(worker_pool_cancel, of_all_that_wait_hands_them_back_before_the_pool_counts_as_idle) {
  constexpr std::size_t at_once = 16;
  constexpr std::size_t rounds = testing::rounds(8'000);
  consumer back;
  kind_of quick([](test_job&) {});
  std::atomic<bool> enough{false};
  worker_pool pool(with_workers(2));
  const testing::stats_watch watch(pool);
  std::thread withdrawing([&] {
    while (!enough) pool.cancel_waiting();
  });
  for (std::size_t round = 0; round < rounds && !::testing::Test::HasFailure(); ++round) {
    std::array<test_job, at_once> jobs;
    test_job watcher(quick, back.queue);
    for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
    pool.notify_when_idle(watcher);
    std::size_t before_watcher = 0;
    bool told = false;
    EXPECT_TRUE(back.receive<test_job>(at_once + 1, [&](test_job& j) {
      if (&j == &watcher)
        told = true;
      else if (!told)
        ++before_watcher;
    }));
    EXPECT_EQ(before_watcher, at_once) << "round " << round;
  }
  enough = true;
  withdrawing.join();
}

}  // namespace
}  // namespace offgil
