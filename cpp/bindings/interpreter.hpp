// interpreter.hpp - how workers are attached to Python.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "job.hpp"
#include "signal_mask.hpp"

namespace offgil::python {

// The lane of jobs that need the GIL. A worker keeps its Python thread state from its first such job to its
// own end, so that threading.local lives as long as the thread and taking the GIL costs no thread state. From
// that job on it blocks the signals that the thread blocks which has made the lane, as any thread that Python
// code starts: a child process inherits them.
class gil_lane final : public lane {
 public:
  // `acquisitions` counts the times a worker takes the GIL. In Python the threads are called <prefix><n>.
  gil_lane(std::string prefix, std::atomic<std::uint64_t>& acquisitions)
      : lane(the_gate()), prefix_(std::move(prefix)), acquisitions_(acquisitions) {}

  // Whether the calling thread is a worker inside its lane: it holds the GIL, unless the job has released it.
  static bool is_inside() noexcept;

  void enter(unsigned worker) noexcept override;
  bool leave() noexcept override;
  void retire() noexcept override;

 private:
  static lane_gate& the_gate();

  std::string prefix_;
  const signal_mask mask_ = signal_mask::of_this_thread();
  std::atomic<std::uint64_t>& acquisitions_;
};

}  // namespace offgil::python
