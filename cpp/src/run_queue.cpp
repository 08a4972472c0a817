// run_queue.cpp - jobs that wait for a worker.
#include "run_queue.hpp"

#include <algorithm>
#include <limits>

namespace offgil {
namespace {

using nanoseconds = run_time_estimate::nanoseconds;

constexpr nanoseconds unknown{std::numeric_limits<float>::infinity()};

nanoseconds portion_for(const job& j) noexcept {
  return j.kind->in_lane() != nullptr ? run_queue::lane_portion : run_queue::portion;
}

nanoseconds expected(const job& j) noexcept {
  const job_kind& kind = *j.kind;
  const bool is_known = kind.estimate.known() && kind.estimate_of_calls.value() < run_queue::long_call;
  return is_known ? kind.estimate.value() : unknown;
}

}  // namespace

run_queue::run_queue() : ordinary_(levels_[0]) {}

void run_queue::open_level(int priority) { levels_.try_emplace(priority); }

void run_queue::push(job& j) {
  levels_[j.priority].push_back(j);
  ++size_;
}

void run_queue::push_ordinary(job_list&& jobs) noexcept {
  size_ += jobs.size();
  ordinary_.push_back(std::move(jobs));
}

void run_queue::push_front(job_list&& claimed_before) {
  size_ += claimed_before.size();
  while (!claimed_before.empty()) {
    // A portion may span levels, and come back to one when it began at the lowest: all of one level go back
    // to its front together, in their order; behind older ones that another worker has given back.
    const auto priority = claimed_before.front()->priority;
    job_list of_this_level;
    job_list others;
    while (!claimed_before.empty()) {
      job& j = claimed_before.pop_front();
      (j.priority == priority ? of_this_level : others).push_back(j);
    }
    levels_[priority].push_in_order(std::move(of_this_level));
    claimed_before = std::move(others);
  }
}

bool run_queue::is_turn_of_the_lowest() noexcept {
  constexpr unsigned claims_per_turn = 16;
  return ++claims_ % claims_per_turn == 0;
}

run_queue::claim run_queue::take_one() noexcept {
  claim taken;
  taken.jobs.push_back(next_level(is_turn_of_the_lowest())->pop_front());
  --size_;
  return taken;
}

run_queue::claim run_queue::take() {
  claim portion_taken;
  bool lowest = is_turn_of_the_lowest();
  while (job_list* level = next_level(lowest)) {
    lowest = false;
    const job& next = *level->front();
    const nanoseconds cost = expected(next);
    const bool fits = cost <= portion && portion_taken.estimate + cost <= portion_for(next);
    if (!portion_taken.jobs.empty() && !fits) break;
    portion_taken.is_short = fits;
    portion_taken.estimate += cost;
    portion_taken.jobs.push_back(level->pop_front());
    --size_;
    if (!fits) break;
  }
  return portion_taken;
}

job_list run_queue::take_all(const completion_sink* only, std::size_t spared) noexcept {
  return take_if([&](const job& j) {
    const bool stays = spared != 0 || (only != nullptr && j.destination != only);
    if (spared != 0) --spared;
    return !stays;
  });
}

bool run_queue::has_from(clock::time_point submitted_by) const noexcept {
  return std::any_of(levels_.begin(), levels_.end(), [submitted_by](const auto& each) {
    return !each.second.empty() && each.second.front()->submitted_at <= submitted_by;
  });
}

bool run_queue::is_worth_another_worker() const noexcept {
  for (const auto& [priority, level] : levels_) {
    if (level.empty()) continue;
    const job& typical = *level.front();
    const nanoseconds each = expected(typical);
    if (typical.kind->in_lane() != nullptr && each <= lane_portion &&
        (!typical.kind->is_worth_sharing() || !typical.kind->sharing.is_worth_trying()))
      return false;
    return each * static_cast<float>(size_) > worth_a_wake_up;
  }
  return false;
}

job_list* run_queue::next_level(bool lowest) noexcept {
  if (lowest) {
    for (auto level = levels_.rbegin(); level != levels_.rend(); ++level)
      if (!level->second.empty()) return &level->second;
  } else {
    for (auto& [priority, level] : levels_)
      if (!level.empty()) return &level;
  }
  return nullptr;
}

}  // namespace offgil
