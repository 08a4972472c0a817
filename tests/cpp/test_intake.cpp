// test_intake.cpp - jobs on their way to the run queue.
#include "intake.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "jobs.hpp"
#include "patience.hpp"

namespace offgil {
namespace {

using testing::patience;
using testing::test_job;

std::vector<job*> contents(job_list jobs) {
  std::vector<job*> order;
  while (!jobs.empty()) order.push_back(&jobs.pop_front());
  return order;
}

TEST(intake, gives_the_oldest_first) {
  std::array<job, 3> jobs;
  intake in;
  EXPECT_TRUE(in.empty());
  for (job& j : jobs) EXPECT_TRUE(in.push(j));
  EXPECT_FALSE(in.empty());
  EXPECT_EQ(in.size(), jobs.size());
  EXPECT_EQ(contents(in.take()), (std::vector<job*>{&jobs[0], &jobs[1], &jobs[2]}));
  EXPECT_TRUE(in.empty());
  EXPECT_EQ(contents(in.take()), std::vector<job*>{});
}

TEST(intake, refuses_when_closed_and_gives_what_it_had) {
  std::array<job, 3> jobs;
  intake in;
  in.push(jobs[0]);
  in.push(jobs[1]);
  EXPECT_EQ(contents(in.close()), (std::vector<job*>{&jobs[0], &jobs[1]}));
  EXPECT_TRUE(in.empty());
  EXPECT_FALSE(in.push(jobs[2]));
  EXPECT_EQ(jobs[2].next, nullptr);
  EXPECT_EQ(contents(in.take()), std::vector<job*>{});
  EXPECT_FALSE(in.push(jobs[2])) << "opened by take()";
  EXPECT_EQ(in.size(), 0U);
}

// Each accepted job is given once, in its thread's order, however takes and the closing fall between.
TEST(intake, loses_nothing_between_threads) {
  constexpr std::size_t producers = 3;
  constexpr std::size_t each = 20'000;
  std::vector<std::vector<test_job>> jobs;
  for (std::size_t p = 0; p < producers; ++p) jobs.emplace_back(each);
  intake in;
  std::array<std::atomic<std::size_t>, producers> accepted{};
  std::atomic<std::size_t> at_work{producers};
  {
    std::vector<std::jthread> threads;
    for (std::size_t p = 0; p < producers; ++p)
      threads.emplace_back([&, p] {
        for (test_job& j : jobs[p]) {
          j.id = p;
          if (!in.push(j)) break;
          ++accepted[p];
        }
        --at_work;
      });
    std::array<test_job*, producers> next{};
    for (std::size_t p = 0; p < producers; ++p) next[p] = jobs[p].data();
    const auto check = [&](job_list taken) {
      while (!taken.empty()) {
        auto& j = static_cast<test_job&>(taken.pop_front());
        ASSERT_EQ(&j, next[j.id]);
        ++next[j.id];
      }
    };
    const auto give_up = clock::now() + patience;
    while (next[0] < jobs[0].data() + each / 2) {
      ASSERT_LT(clock::now(), give_up);
      check(in.take());
    }
    check(in.close());
    while (at_work != 0) std::this_thread::yield();
    EXPECT_TRUE(in.empty());
    for (std::size_t p = 0; p < producers; ++p)
      EXPECT_EQ(static_cast<std::size_t>(next[p] - jobs[p].data()), accepted[p]);
  }
}

}  // namespace
}  // namespace offgil
