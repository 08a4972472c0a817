// interpreter.cpp - how workers are attached to Python.
#include "interpreter.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "clock.hpp"
#include "fork.hpp"
#include "thread_identity.hpp"
#include "thread_state.hpp"

namespace offgil::python {
namespace {

// A worker's own thread state. No Python object.
struct attachment {
  PyThreadState* state = nullptr;
  std::optional<thread_identity> identity;
  bool is_inside_lane = false;
};
thread_local attachment this_thread;

// A native body that has taken the GIL meanwhile may have left an exception set: it is nobody else's.
void take_gil_again() noexcept {
  PyEval_RestoreThread(this_thread.state);
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(nullptr);
}

bool threads_inherit_context() noexcept {
#if PY_VERSION_HEX >= 0x030E0000
  PyObject* const flag = PyObject_GetAttrString(PySys_GetObject("flags"), "thread_inherit_context");
  const bool is_set = flag != nullptr && PyObject_IsTrue(flag) == 1;
  Py_XDECREF(flag);
  PyErr_Clear();
  return is_set;
#else
  return false;
#endif
}

// Left again where the thread state is cleared.
void enter_copy(PyObject* context) noexcept {
  PyObject* const copy = PyContext_Copy(context);
  if (copy == nullptr || PyContext_Enter(copy) != 0) PyErr_Clear();
  Py_XDECREF(copy);
}

}  // namespace

// All pools' workers queue for one GIL. Guarded by the GIL. Never destroyed; and a forked child makes its
// own: its parent's workers may stand in the other.
lane_gate& gil_lane::the_gate() {
  struct gate_of_process {
    process_generation made_in;
    lane_gate* gate = std::make_unique<lane_gate>().release();
  };
  static std::optional<gate_of_process> current;
  if (!current || current->made_in.is_over()) current.emplace();
  return *current->gate;
}

void gil_lane::enter(unsigned worker) noexcept {
  if (this_thread.state != nullptr) {
    take_gil_again();
  } else {
    this_thread.state = make_thread_state();
    if (context_) enter_copy(context_.ptr());
    this_thread.identity.emplace(prefix_ + std::to_string(worker));
  }
  this_thread.is_inside_lane = true;
  acquisitions_.fetch_add(1, std::memory_order_relaxed);
}

void gil_lane::inherit_context() noexcept {
  if (!threads_inherit_context()) return;
  context_ = pybind11::reinterpret_steal<pybind11::object>(PyContext_CopyCurrent());
  PyErr_Clear();
}

// Python does not tell whether anybody waits for the GIL. But the release of a mutex and a condition variable
// that nobody waits for takes some 30 ns; one that wakes a thread, which is a system call, some 10 us.
bool gil_lane::leave() noexcept {
  constexpr std::chrono::nanoseconds longest_without_waking{500};
  this_thread.is_inside_lane = false;
  const auto begin = clock::now();
  PyEval_SaveThread();
  return clock::now() - begin > longest_without_waking;
}

void gil_lane::retire() noexcept {
  take_gil_again();
  this_thread.identity.reset();
  this_thread.state = nullptr;
  end_thread_state();
}

bool gil_lane::is_inside() noexcept { return this_thread.is_inside_lane; }

}  // namespace offgil::python
