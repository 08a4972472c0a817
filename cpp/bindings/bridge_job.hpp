// bridge_job.hpp - a job with what Python needs around it.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "job.hpp"
#include "offgil/abi.h"

namespace offgil::python {

namespace py = pybind11;

struct bridge_job;

// How the jobs of one kind of callable keep their arguments and give their result. All but run() need the
// GIL.
class bridge_kind : public job_kind {
 public:
  using job_kind::job_kind;

  // The result, a new reference; or null with an exception set, which is how the job failed. At most once,
  // after the job has run.
  virtual PyObject* finish(bridge_job&) noexcept = 0;

  // What the job runs, or ran; empty when it is gone. Runs no Python code.
  virtual py::object callable_of(const bridge_job&) const noexcept = 0;

  // Releases arguments, result and error, of a job that has run, or never will. It may run Python code,
  // during which the job lets go of the kind.
  virtual void discard(bridge_job&) noexcept = 0;

  // Releases what kept the kind alive for this job. The job is not in the engine's hands any more.
  virtual void let_go() noexcept = 0;
};

// Lives inside the memory of its future. What `storage` holds is the kind's business.
struct bridge_job : job {
  static constexpr std::size_t storage_size = 32;
  static constexpr std::size_t storage_alignment = 8;

  // Small things first: they fit into the padding behind job's own.
  bool has_payload = false;       // storage is in use: prepared, and not discarded yet
  std::uint8_t future_flags = 0;  // the future's own
  offgil_error* error = nullptr;  // owned; of a native job that failed
  alignas(storage_alignment) std::array<std::byte, storage_size> storage;

  bridge_kind& its_kind() const noexcept { return static_cast<bridge_kind&>(*kind); }

  // Once: what dies may run Python code, and another thread come here meanwhile.
  void discard_payload() noexcept {
    if (std::exchange(has_payload, false)) its_kind().discard(*this);
  }

  // For a job that the engine has handed back, or never took.
  void let_go_of_kind() noexcept {
    if (kind != nullptr) its_kind().let_go();
    kind = nullptr;
  }
};

// For describe(): what fits of a text, not through the middle of a UTF-8 sequence.
inline void copy_name(std::string_view text, std::span<char> to) noexcept {
  std::size_t size = std::min(text.size(), to.size() - 1);
  while (size < text.size() && size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80U) --size;
  std::copy_n(text.data(), size, to.data());
  to[size] = '\0';
}

}  // namespace offgil::python
