// test_job_list.cpp - a FIFO of jobs linked through job::next.
#include "job_list.hpp"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

namespace offgil {
namespace {

class job_list_of_four : public ::testing::Test {
 protected:
  // The positions of the listed jobs in `jobs`, which the list gives up.
  std::vector<std::ptrdiff_t> emptied(job_list list) {
    std::vector<std::ptrdiff_t> order;
    while (!list.empty()) order.push_back(&list.pop_front() - jobs.data());
    return order;
  }

  std::array<job, 4> jobs;
};

using order = std::vector<std::ptrdiff_t>;

TEST_F(job_list_of_four, is_first_in_first_out) {
  job_list list;
  for (job& j : jobs) list.push_back(j);
  EXPECT_EQ(list.size(), 4U);
  EXPECT_EQ(list.front(), &jobs[0]);
  EXPECT_EQ(emptied(std::move(list)), (order{0, 1, 2, 3}));
}

TEST_F(job_list_of_four, gives_those_up_that_are_wanted) {
  job_list list;
  for (job& j : jobs) list.push_back(j);
  job_list taken = list.take_if([this](const job& j) { return &j == &jobs[1] || &j == &jobs[3]; });
  EXPECT_EQ(taken.size(), 2U);
  EXPECT_EQ(list.size(), 2U);
  EXPECT_EQ(emptied(std::move(taken)), (order{1, 3}));
  EXPECT_EQ(emptied(std::move(list)), (order{0, 2}));
}

TEST_F(job_list_of_four, takes_others_before_its_own) {
  job_list list;
  list.push_back(jobs[2]);
  job_list earlier;
  earlier.push_back(jobs[0]);
  earlier.push_back(jobs[1]);
  list.push_in_order(std::move(earlier));
  list.push_back(jobs[3]);
  EXPECT_EQ(list.size(), 4U);
  EXPECT_EQ(emptied(std::move(list)), (order{0, 1, 2, 3}));
}

TEST_F(job_list_of_four, takes_others_behind_those_that_are_older) {
  for (std::size_t i = 0; i < jobs.size(); ++i)
    jobs[i].submitted_at = clock::time_point(std::chrono::seconds(i));
  job_list list;
  list.push_back(jobs[0]);
  list.push_back(jobs[3]);
  job_list between;
  between.push_back(jobs[1]);
  between.push_back(jobs[2]);
  list.push_in_order(std::move(between));
  EXPECT_EQ(list.size(), 4U);
  EXPECT_EQ(emptied(std::move(list)), (order{0, 1, 2, 3}));
}

TEST_F(job_list_of_four, can_be_appended_to_after_others_were_put_before_nothing) {
  job_list list;
  job_list earlier;
  earlier.push_back(jobs[0]);
  list.push_in_order(std::move(earlier));
  list.push_in_order(job_list());
  list.push_back(jobs[1]);
  EXPECT_EQ(emptied(std::move(list)), (order{0, 1}));
}

TEST_F(job_list_of_four, is_empty_once_moved_from) {
  job_list list;
  list.push_back(jobs[0]);
  job_list target = std::move(list);
  EXPECT_TRUE(list.empty());  // NOLINT: what a move leaves behind is the point
  EXPECT_EQ(list.size(), 0U);
  list.push_back(jobs[1]);
  target = std::move(list);
  EXPECT_EQ(emptied(std::move(target)), (order{1}));
}

TEST_F(job_list_of_four, goes_through_a_chain_and_back) {
  job_list list;
  for (job& j : jobs) list.push_back(j);
  job_list again(list.release());
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.size(), 0U);
  EXPECT_EQ(again.size(), 4U);
  EXPECT_EQ(emptied(std::move(again)), (order{0, 1, 2, 3}));
}

TEST_F(job_list_of_four, can_be_used_again_after_it_was_emptied) {
  job_list list;
  list.push_back(jobs[0]);
  EXPECT_EQ(&list.pop_front(), &jobs[0]);
  EXPECT_TRUE(list.empty());
  list.push_back(jobs[1]);
  EXPECT_EQ(emptied(std::move(list)), (order{1}));
}

}  // namespace
}  // namespace offgil
