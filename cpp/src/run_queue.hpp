// run_queue.hpp - jobs that wait for a worker.
#pragma once

#include <cstddef>
#include <functional>
#include <map>

#include "job_list.hpp"

namespace offgil {

// Waiting jobs by priority, first in first out inside one. Owned by a worker_pool and guarded by its mutex;
// not thread-safe by itself. Owns no job.
//
// A higher priority goes first, with one exception: every sixteenth claim begins at the lowest priority, so
// that a long queue of unimportant jobs still advances under a steady load of important ones.
class run_queue {
 public:
  // Work is claimed in portions of at most this much estimated run time, so that one lock serves many short
  // jobs and no short job waits long behind its neighbours in a portion. Jobs in a lane are claimed in larger
  // portions, because entering the lane is what costs; but one that is longer than a portion may be a wait
  // for what stands behind it, and travels alone like any other.
  static constexpr run_time_estimate::nanoseconds portion{20'000};
  static constexpr run_time_estimate::nanoseconds lane_portion{200'000};
  static constexpr run_time_estimate::nanoseconds worth_a_wake_up{50'000};
  // Calls of the sink's that take longer may be waits: nothing is to stand behind them. Short ones may take a
  // while, too, where other threads want the lane.
  static constexpr run_time_estimate::nanoseconds long_call{100'000};

  run_queue();

  // Only the first job of a priority needs memory: throws std::bad_alloc then, and nothing has changed.
  // open_level() has it done beforehand.
  void push(job& j);
  void push_ordinary(job_list&& jobs) noexcept;  // of priority 0, which needs no memory
  void open_level(int priority);
  void push_front(job_list&& claimed_before);  // jobs that a worker could not get to, oldest first

  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }

  struct claim {
    job_list jobs;
    run_time_estimate::nanoseconds estimate{0};  // of all of them; infinite when one is unknown
    bool is_short = false;                       // no more than one portion
  };

  // Takes the next portion. At least one job, unless the queue is empty; a job that is longer than a portion,
  // or whose run time is unknown, travels alone.
  claim take();

  // Takes the next job, as if it were longer than a portion. The queue must not be empty.
  claim take_one() noexcept;

  // Takes everything but the next `spared` jobs, or only what goes back to one destination.
  job_list take_all(const completion_sink* only = nullptr, std::size_t spared = 0) noexcept;

  // Takes the jobs that `is_wanted`.
  template <class Predicate>
  job_list take_if(Predicate is_wanted) noexcept {
    job_list taken;
    for (auto& [priority, level] : levels_) taken.push_back(level.take_if(is_wanted));
    size_ -= taken.size();
    return taken;
  }

  // Whether a job waits that was submitted at that time or before.
  bool has_from(clock::time_point submitted_by) const noexcept;

  // Whether what waits is worth waking one more worker, who costs about as much as `worth_a_wake_up` of work.
  // Taken from the next job as a typical one. Short jobs in a lane are not, if they would only queue for it.
  // Of a worker that is at a short portion: behind a longer job, another one is called in any case.
  bool is_worth_another_worker() const noexcept;

 private:
  using levels = std::map<int, job_list, std::greater<>>;

  bool is_turn_of_the_lowest() noexcept;
  job_list* next_level(bool lowest) noexcept;

  levels levels_;  // levels stay once they have been used: there are few, and erasing would allocate again
  job_list& ordinary_;
  std::size_t size_ = 0;
  unsigned claims_ = 0;
};

}  // namespace offgil
