// jobs.hpp - jobs made from lambdas.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "completion_sink.hpp"
#include "job.hpp"

namespace offgil::testing {

// Counts what happens to it.
struct test_job : job {
  test_job() = default;
  test_job(job_kind& of, completion_sink& to, std::int8_t with_priority = 0) {
    prepare(of, to, with_priority);
  }

  test_job& prepare(job_kind& of, completion_sink& to, std::int8_t with_priority = 0) {
    kind = &of;
    destination = &to;
    priority = with_priority;
    return *this;
  }

  std::size_t id = 0;
  std::uint64_t result = 0;
  int runs = 0;      // written by the worker
  int returned = 0;  // written by the consumer
};

// A kind whose jobs do `what`, which takes the job and returns whether it succeeded, or nothing.
template <class What>
class kind_of final : public job_kind {
 public:
  explicit kind_of(What what, lane* in = nullptr) : job_kind(in), what_(std::move(what)) {}

  bool run(job& j) noexcept override {
    auto& mine = static_cast<test_job&>(j);
    ++mine.runs;
    if constexpr (std::is_same_v<std::invoke_result_t<What&, test_job&>, bool>) {
      return what_(mine);
    } else {
      what_(mine);
      return true;
    }
  }

 private:
  What what_;
};

// Tells the engine how long jobs of a kind take.
inline void train(job_kind& kind, run_time_estimate::nanoseconds typical) { kind.estimate.learn(typical); }

inline constexpr run_time_estimate::nanoseconds very_short{100};

}  // namespace offgil::testing
