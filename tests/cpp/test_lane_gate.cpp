// test_lane_gate.cpp - workers take turns in a lane, and regularly leave it to everybody else.
#include "lane_gate.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "patience.hpp"

namespace offgil {
namespace {

using testing::eventually;
using visitor = lane_gate::visitor;

constexpr auto at_once = [] {};

void compute_until(clock::time_point end) {
  while (clock::now() < end) continue;
}

// A visitor inside, at a job, and one that comes.
struct one_inside {
  one_inside() {
    gate.enter(inside, at_once);
    gate.begin_job(inside, &kind);
  }
  lane_gate gate;
  visitor inside;
  visitor beside;
  lane_sharing kind;
};

TEST(lane_gate, lets_one_visitor_at_a_time_have_the_turn) {
  lane_gate gate;
  visitor self;
  EXPECT_FALSE(self.has_turn());
  gate.enter(self, at_once);
  EXPECT_TRUE(self.has_turn());
  gate.leave(self, true);
  EXPECT_FALSE(self.has_turn());
}

TEST(lane_gate, gives_the_turn_away_where_its_job_waits_for_something) {
  lane_gate gate;
  visitor waiting;
  visitor next;
  lane_sharing kind;
  kind.learn(false);
  gate.enter(waiting, at_once);
  gate.begin_job(waiting, &kind);
  std::thread([&] {
    gate.enter(next, at_once);
    EXPECT_TRUE(next.has_turn());
    EXPECT_FALSE(waiting.has_turn());
  }).join();
  gate.leave(next, true);
  gate.leave(waiting, true);
}

TEST(lane_gate, gives_the_turn_away_where_its_job_computes_for_too_long) {
  lane_gate gate;
  visitor computing;
  visitor next;
  lane_sharing kind;
  kind.learn(false);
  std::atomic<bool> is_inside{false};
  gate.enter(computing, at_once);
  gate.begin_job(computing, &kind);
  std::thread other([&] {
    gate.enter(next, at_once);
    is_inside = true;
  });
  const auto deadline = clock::now() + testing::patience;
  while (!is_inside && clock::now() < deadline) continue;  // without a yield, which would give the CPU away
  EXPECT_TRUE(is_inside);
  other.join();
  EXPECT_FALSE(computing.has_turn());
  gate.leave(computing, true);
  EXPECT_TRUE(next.has_turn());
  gate.leave(next, true);
}

TEST(lane_gate, lets_the_next_one_in_when_a_visitor_gives_its_turn_up) {
  lane_gate gate;
  visitor waiting;
  visitor next;
  gate.enter(waiting, at_once);
  gate.give_up_turn(waiting);
  EXPECT_FALSE(waiting.has_turn());
  gate.enter(next, at_once);  // on the same thread: without a look at what it does
  EXPECT_TRUE(next.has_turn());
  gate.leave(waiting, true);
  EXPECT_TRUE(next.has_turn());
  gate.leave(next, true);
}

TEST(lane_gate, lets_others_in_beside_jobs_that_are_known_to_share) {
  lane_gate gate;
  visitor sharing;
  visitor beside;
  lane_sharing kind;
  gate.enter(sharing, at_once);
  gate.begin_job(sharing, &kind);
  gate.enter(beside, at_once);  // on the same thread: whose CPU time is not looked at
  EXPECT_TRUE(sharing.has_turn());
  EXPECT_FALSE(beside.has_turn());
  gate.leave(sharing, true);
  gate.leave(beside, true);
}

// Whether the job inside has computed is told by its CPU time: again where the machine has not let it run.
TEST(lane_gate, learns_that_jobs_do_not_share_from_a_visitor_that_has_to_wait) {
  EXPECT_TRUE(eventually([] {
    one_inside at;
    auto& [gate, inside, beside, kind] = at;
    gate.enter(beside, [] { compute_until(clock::now() + std::chrono::milliseconds(2)); });
    gate.leave(inside, true);
    gate.leave(beside, true);
    return !kind.is_likely();
  }));
}

TEST(lane_gate, learns_that_jobs_do_not_share_when_a_visitor_gets_in_only_behind_them) {
  EXPECT_TRUE(eventually([] {
    one_inside at;
    auto& [gate, inside, beside, kind] = at;
    gate.enter(beside, [&] {
      compute_until(clock::now() + std::chrono::milliseconds(2));
      at.gate.leave(at.inside, true);
    });
    gate.leave(beside, true);
    return !kind.is_likely();
  }));
}

TEST(lane_gate, learns_nothing_from_a_visitor_that_somebody_else_keeps_waiting) {
  one_inside at;
  auto& [gate, inside, beside, kind] = at;
  gate.enter(beside, [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
  EXPECT_TRUE(kind.is_likely()) << "the job inside has used no CPU time";
  gate.leave(inside, true);
  gate.leave(beside, true);
}

// The job inside computes outside of the lane while the other one is in it.
TEST(lane_gate, learns_that_jobs_share_from_a_visit_during_which_the_job_inside_computes) {
  lane_gate gate;
  visitor inside;
  visitor beside;
  lane_sharing kind;
  std::atomic<bool> has_begun{false};
  std::atomic<bool> enough{false};
  std::thread computing([&] {
    gate.enter(inside, at_once);
    gate.begin_job(inside, &kind);
    has_begun = true;
    while (!enough) continue;
    gate.leave(inside, true);
  });
  EXPECT_TRUE(eventually([&] { return has_begun.load(); }));
  // Once for each time that it is forgotten; again where the machine has not let the other thread run.
  EXPECT_TRUE(eventually([&] {
    gate.enter(beside, at_once);
    compute_until(clock::now() + std::chrono::milliseconds(1));
    gate.leave(beside, true);
    kind.learn(false);
    const bool has_learned = kind.is_likely();
    if (!has_learned) kind.learn(true);
    return has_learned;
  }));
  enough = true;
  computing.join();
}

TEST(lane_gate, has_a_gap_due_after_a_period_in_the_lane) {
  lane_gate gate;
  visitor self;
  const auto before = clock::now();
  gate.enter(self, at_once);
  const auto after = clock::now();
  EXPECT_FALSE(gate.is_gap_due(before + lane_gate::period - std::chrono::nanoseconds(1)));
  EXPECT_TRUE(gate.is_gap_due(after + lane_gate::period));
  gate.leave(self, true);
}

TEST(lane_gate, has_no_gap_due_while_others_have_the_lane) {
  lane_gate gate;
  visitor self;
  gate.enter(self, at_once);
  const auto begin = clock::now();
  EXPECT_FALSE(gate.is_stay_over(self, begin + 30 * lane_gate::period));
  const auto computed = cpu_time_of_this_thread() + lane_gate::period;
  while (cpu_time_of_this_thread() < computed) continue;
  EXPECT_TRUE(gate.is_stay_over(self, begin + 32 * lane_gate::period));
  gate.leave(self, false);
}

TEST(lane_gate, lets_a_visitor_without_the_turn_stay_while_others_have_the_lane) {
  one_inside scene;
  scene.gate.give_up_turn(scene.inside);
  const auto begin = clock::now();
  EXPECT_TRUE(scene.gate.is_stay_over(scene.inside, begin));
  EXPECT_FALSE(scene.gate.is_stay_over(scene.inside, begin + 30 * lane_gate::period));
  const auto computed = cpu_time_of_this_thread() + lane_gate::period;
  while (cpu_time_of_this_thread() < computed) continue;
  EXPECT_TRUE(scene.gate.is_stay_over(scene.inside, begin + 32 * lane_gate::period));
  scene.gate.leave(scene.inside, false);
}

TEST(lane_gate, keeps_everybody_out_for_a_gap_that_is_due) {
  lane_gate gate;
  visitor self;
  gate.enter(self, at_once);
  compute_until(clock::now() + lane_gate::period);
  const auto left = clock::now();
  gate.leave(self, true);
  gate.enter(self, at_once);
  EXPECT_GE(clock::now() - left, lane_gate::gap);
  EXPECT_FALSE(gate.is_gap_due(left + lane_gate::period)) << "the next one is due a period later";
  gate.leave(self, true);
}

TEST(lane_gate, keeps_everybody_out_when_a_visitor_leaves_another_one_inside) {
  one_inside at;
  auto& [gate, inside, beside, kind] = at;
  gate.enter(beside, at_once);
  compute_until(clock::now() + lane_gate::period);
  const auto left = clock::now();
  gate.leave(beside, true);
  gate.enter(beside, at_once);
  EXPECT_GE(clock::now() - left, lane_gate::gap);
  gate.leave(beside, true);
  gate.leave(inside, true);
}

TEST(lane_gate, keeps_nobody_out_where_nobody_waits) {
  const bool was_let_in = eventually([] {  // mostly at once, unless the machine interrupts it
    lane_gate gate;
    visitor self;
    gate.enter(self, at_once);
    compute_until(clock::now() + lane_gate::period);
    const auto left = clock::now();
    gate.leave(self, false);
    gate.enter(self, at_once);
    const auto absence = clock::now() - left;
    EXPECT_FALSE(gate.is_gap_due(left + lane_gate::period));
    gate.leave(self, false);
    return absence < lane_gate::gap;
  });
  EXPECT_TRUE(was_let_in);
}

TEST(lane_gate, keeps_everybody_out_now_and_then_in_any_case) {
  lane_gate gate;
  visitor self;
  int kept_out = 0;
  for (int stay = 0; stay < 3; ++stay) {
    gate.enter(self, at_once);
    compute_until(clock::now() + lane_gate::gap + lane_gate::period);
    const auto left = clock::now();
    gate.leave(self, false);
    gate.enter(self, at_once);
    kept_out += clock::now() - left >= lane_gate::gap ? 1 : 0;
    gate.leave(self, false);
  }
  EXPECT_GE(kept_out, 1);
}

TEST(lane_gate, takes_a_short_absence_for_no_gap) {
  const bool was_short = eventually([] {  // mostly at once, unless the machine interrupts it
    lane_gate gate;
    visitor self;
    gate.enter(self, at_once);
    const auto first = clock::now();
    const auto left = clock::now();
    gate.leave(self, true);
    gate.enter(self, at_once);
    if (clock::now() - left >= lane_gate::gap) return gate.leave(self, true), false;
    EXPECT_TRUE(gate.is_gap_due(first + lane_gate::period));
    gate.leave(self, true);
    return true;
  });
  EXPECT_TRUE(was_short);
}

TEST(lane_gate, takes_a_long_absence_for_a_gap) {
  lane_gate gate;
  visitor self;
  gate.enter(self, at_once);
  gate.leave(self, true);
  const auto left = clock::now();
  compute_until(left + lane_gate::gap);
  gate.enter(self, at_once);
  EXPECT_FALSE(gate.is_gap_due(left + lane_gate::period));
  gate.leave(self, true);
}

TEST(lane_gate, lets_everybody_in_in_the_end) {
  constexpr int threads = 4;
  constexpr int visits = 2'000;
  lane_gate gate;
  std::mutex lane;
  int entries = 0;  // guarded by lane
  std::array<visitor, threads> visitors;
  std::vector<std::thread> all;
  for (visitor& mine : visitors) {
    all.emplace_back([&gate, &lane, &entries, &mine] {
      lane_sharing kind;
      for (int i = 0; i < visits; ++i) {
        gate.enter(mine, [&lane] { lane.lock(); });
        gate.begin_job(mine, &kind);
        ++entries;
        lane.unlock();
        if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));  // a job that waits
        gate.leave(mine, true);
      }
    });
  }
  for (std::thread& each : all) each.join();
  EXPECT_EQ(entries, threads * visits);
}

}  // namespace
}  // namespace offgil
