// test_span_log.cpp - when the jobs of one worker were submitted, began and ended.
#include "span_log.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "pools.hpp"

namespace offgil {
namespace {

using testing::consumer;
using testing::kind_of;
using testing::test_job;
using testing::with_workers;

TEST(span_log, keeps_what_comes_while_it_is_open_up_to_its_limit) {
  span_log log;
  log.add({});
  EXPECT_TRUE(log.close().spans.empty());
  log.open(2);
  for (int i = 0; i < 5; ++i) log.add({});
  const auto seen = log.close();
  EXPECT_EQ(seen.spans.size(), 2U);
  EXPECT_EQ(seen.lost, 3U);
  log.add({});
  EXPECT_EQ(log.close().lost, 0U);
}

TEST(span_log, of_a_pool_adds_up_to_its_counters) {
  constexpr std::size_t count = 2'000;
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(count);
  worker_pool pool(with_workers(2));
  test_job before(quick, back.queue);
  pool.submit(before);
  ASSERT_TRUE(back.receive(1));
  const pool_stats start = pool.stats();
  pool.start_trace(count);
  for (test_job& j : jobs) pool.submit(j.prepare(quick, back.queue));
  ASSERT_TRUE(back.receive(count));
  const auto traces = pool.stop_trace();
  const pool_stats end = pool.stats();
  ASSERT_EQ(traces.size(), 2U);
  std::size_t spans = 0;
  for (std::size_t worker = 0; worker < traces.size(); ++worker) {
    std::chrono::nanoseconds busy{0};
    for (const job_span& each : traces[worker].spans) {
      EXPECT_LE(each.submitted, each.begin);
      EXPECT_LE(each.begin, each.end);
      busy += each.end - each.begin;
    }
    EXPECT_EQ(busy, end.worker_busy[worker] - start.worker_busy[worker]);
    spans += traces[worker].spans.size();
  }
  EXPECT_EQ(spans, count);
}

TEST(span_log, of_a_pool_can_be_opened_and_closed_while_it_works) {
  constexpr std::size_t count = 20'000;
  consumer back;
  kind_of quick([](test_job&) {});
  std::vector<test_job> jobs(count);
  worker_pool pool(with_workers(2));
  std::size_t seen = 0;
  for (std::size_t i = 0; i < count; ++i) {
    pool.submit(jobs[i].prepare(quick, back.queue));
    if (i % 1'000 == 0) pool.start_trace(count);
    if (i % 1'000 == 500)
      for (const auto& each : pool.stop_trace()) seen += each.spans.size();
  }
  ASSERT_TRUE(back.receive(count));
  EXPECT_LE(seen, count);
}

}  // namespace
}  // namespace offgil
