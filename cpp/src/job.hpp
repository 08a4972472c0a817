// job.hpp - one unit of work, and what all jobs of one function share.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

#include "clock.hpp"
#include "lane_gate.hpp"
#include "lane_sharing.hpp"
#include "run_time_estimate.hpp"

namespace offgil {

class completion_sink;
struct job;

// A lane is what a worker must hold while it runs certain jobs, for example the GIL for Python callables.
// A worker enters it once for a run of such jobs. Native jobs have no lane.
// All three are called on the worker's own thread, without any lock of the engine.
class lane {
 public:
  // The gate may serve several lanes, and outlives them.
  explicit lane(lane_gate& through) noexcept : gate(through) {}
  virtual ~lane() = default;
  lane(const lane&) = delete;
  lane& operator=(const lane&) = delete;

  virtual void enter(unsigned worker) noexcept = 0;  // by the worker's number; may block
  virtual bool leave() noexcept = 0;                 // never blocks; whether others than workers wait for it
  virtual void retire() noexcept = 0;                // once, when a thread that has entered ends; may block

  lane_gate& gate;
};

// What all jobs of one function share. Owned by the function; outlives every job of it, and, if it has a
// lane, the threads that run them. Thread-safe.
class job_kind {
 public:
  explicit job_kind(lane* in = nullptr) noexcept : lane_(in) {}
  virtual ~job_kind() = default;
  job_kind(const job_kind&) = delete;
  job_kind& operator=(const job_kind&) = delete;

  // Runs one job on a worker's thread, inside the kind's lane. Returns whether it ended with a result;
  // where result and error are kept is the derived kind's business.
  virtual bool run(job&) noexcept = 0;

  // What a trace calls a job that is about to run: a text ended by a zero. Called in the lane, like run().
  virtual void describe(const job&, std::span<char> name) noexcept { name[0] = '\0'; }

  lane* in_lane() const noexcept { return lane_; }

  // Whether its jobs take long enough for another worker to gain from the lane that they may leave to it.
  bool is_worth_sharing() const noexcept {
    constexpr run_time_estimate::nanoseconds worth_it{10'000};
    return !estimate.known() || estimate.value() >= worth_it || estimate_of_calls.value() >= worth_it;
  }

  // How long jobs of this kind take, as far as is known; and what their sink then calls on the worker.
  run_time_estimate estimate;
  call_time_estimate estimate_of_calls;
  lane_sharing sharing;

 private:
  lane* lane_;
};

// waiting -> running -> done          a worker started it, then ended it
// waiting -> cancelled                withdrawn in time: never runs
// running -> abandoned -> done        nobody wants the result; the run goes on to its end
enum class job_state : std::uint8_t { waiting, running, cancelled, abandoned, done };

// Why the engine hands a job back that nobody has cancelled and that never ran.
enum class refusal : std::uint8_t {
  none,
  closed,  // the pool closed before it had room for the job
  broken   // the pool lost the use of its workers
};

// One unit of work. It lives in memory of its submitter, who gets it back exactly once, through
// `destination`, whatever happened to it. Until then nobody else may move or free it.
struct job {
  job* next = nullptr;  // link of whichever list holds the job
  job_kind* kind = nullptr;
  completion_sink* destination = nullptr;
  clock::time_point submitted_at{};
  std::atomic<job_state> state{job_state::waiting};
  std::int8_t priority = 0;
  bool succeeded = false;  // written by the worker before the job is handed back
  bool accepted = false;   // stands in the intake or run queue, or has left them; guarded by the pool's mutex
                           // once it is in the pool's hands
  refusal refused = refusal::none;  // why it was handed back without having run, unless it was cancelled

  // Withdraws a job that still waits. True: it will never run. Any thread.
  bool withdraw() noexcept {
    job_state expected = job_state::waiting;
    return state.compare_exchange_strong(expected, job_state::cancelled, std::memory_order_acq_rel);
  }

  // The same; but a job that runs is marked, so that it is counted as cancelled when it ends.
  bool cancel() noexcept {
    if (withdraw()) return true;
    job_state expected = job_state::running;
    state.compare_exchange_strong(expected, job_state::abandoned, std::memory_order_acq_rel);
    return false;
  }
};

}  // namespace offgil
