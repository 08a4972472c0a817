// python_job.hpp - jobs that run a Python callable.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "bridge_job.hpp"
#include "interpreter.hpp"

namespace offgil::python {

// Whose customs a callable meets. Those of asyncio.to_thread: it runs in a copy of the submitter's context;
// and its exception tells of the job. Or those of concurrent.futures: it does neither.
enum class manners : std::uint8_t { of_asyncio, of_executors };

// Jobs of Python callables. They run in the GIL's lane: a worker takes the GIL once for a run of them.
class python_kind final : public bridge_kind {
 public:
  explicit python_kind(gil_lane& lane) noexcept : bridge_kind(&lane) {}

  // Takes the arguments of a vectorcall. False with an exception set.
  bool prepare(bridge_job& j, PyObject* callable, PyObject* const* args, std::size_t nargs, PyObject* kwnames,
               manners how) noexcept;

  bool run(job& j) noexcept override;
  void describe(const job& j, std::span<char> name) noexcept override;
  py::object callable_of(const bridge_job& j) const noexcept override;
  PyObject* finish(bridge_job& j) noexcept override;
  void discard(bridge_job& j) noexcept override;
  void let_go() noexcept override {}  // lives as long as the pool

 private:
  py::object exception_of(const bridge_job& j) const noexcept;
};

// One kind for all callables would take every callable for as long as the average one. So callables that
// share their code share a kind, as far as a table of fixed size tells them apart.
class python_kinds {
 public:
  explicit python_kinds(gil_lane& lane);

  python_kind& of(PyObject* callable) noexcept;

 private:
  static constexpr std::size_t count = 64;
  std::array<std::unique_ptr<python_kind>, count> kinds_;
};

}  // namespace offgil::python
