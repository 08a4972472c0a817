// interpreter.hpp - how workers are attached to Python.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "job.hpp"

namespace offgil::python {

// The lane of jobs that need the GIL. A worker keeps its Python thread state from its first such job to its
// own end, so that threading.local lives as long as the thread and taking the GIL costs no thread state.
class gil_lane final : public lane {
 public:
  // `acquisitions` counts the times a worker takes the GIL. In Python the threads are called <prefix><n>.
  gil_lane(std::string prefix, std::atomic<std::uint64_t>& acquisitions)
      : lane(the_gate()), prefix_(std::move(prefix)), acquisitions_(acquisitions) {}

  // Before the first worker starts: they are in copies of the calling thread's context, where Python is told
  // that threads inherit it (3.14's -X thread_inherit_context).
  void inherit_context() noexcept;

  // Whether the calling thread is a worker inside its lane: it holds the GIL, unless the job has released it.
  static bool is_inside() noexcept;

  void enter(unsigned worker) noexcept override;
  bool leave() noexcept override;
  void retire() noexcept override;

 private:
  static lane_gate& the_gate();

  std::string prefix_;
  pybind11::object context_;  // or null
  std::atomic<std::uint64_t>& acquisitions_;
};

}  // namespace offgil::python
