// native_job.hpp - jobs that run a plugin's function.
#pragma once

#include <atomic>
#include <cstdint>

#include "bridge_job.hpp"
#include "offgil/abi.h"

namespace offgil::python {

// For a thread of a pool, before its first job: where to count how often the bodies that it runs take the
// GIL. The counter outlives the thread.
void count_acquisitions_in(std::atomic<std::uint64_t>& acquisitions) noexcept;

// All jobs of one native function. The job of the ABI lies in bridge_job::storage when it fits there,
// otherwise in memory of its own that the storage points to.
class native_kind final : public bridge_kind {
 public:
  native_kind(const offgil_function& abi, PyObject* function) noexcept : abi_(abi), function_(function) {}

  // Fills `j` from the arguments of a call. False with an exception set, and nothing to release.
  bool prepare(bridge_job& j, PyObject* const* args, std::size_t nargs, PyObject* kwnames) noexcept;

  bool run(job& j) noexcept override;
  void describe(const job&, std::span<char> name) noexcept override { copy_name(abi_.name, name); }
  py::object callable_of(const bridge_job&) const noexcept override {
    return py::reinterpret_borrow<py::object>(function_);
  }
  PyObject* finish(bridge_job& j) noexcept override;
  void discard(bridge_job& j) noexcept override;
  void let_go() noexcept override { Py_DECREF(function_); }

  const offgil_function& abi() const noexcept { return abi_; }

 private:
  bool is_stored_inline() const noexcept;
  void* memory_of(bridge_job& j) const noexcept;
  void free_memory(bridge_job& j) const noexcept;
  PyObject* fail(const bridge_job& j) const noexcept;
  void destroy(bridge_job& j) noexcept;

  const offgil_function& abi_;
  PyObject* function_;  // the NativeFunction that this is a part of; each job holds one reference to it
};

}  // namespace offgil::python
