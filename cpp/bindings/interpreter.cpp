// interpreter.cpp - how workers are attached to Python.
#include "interpreter.hpp"

#include <optional>
#include <string>
#include <utility>

#include "thread_identity.hpp"

namespace offgil::python {
namespace {

// A worker's own thread state. No Python object.
struct attachment {
  PyThreadState* state = nullptr;
  std::optional<thread_identity> identity;
  bool is_inside_lane = false;
};
thread_local attachment this_thread;

}  // namespace

void gil_lane::enter(unsigned worker) noexcept {
  if (this_thread.state != nullptr) {
    PyEval_RestoreThread(this_thread.state);
  } else {
    PyGILState_Ensure();  // makes the state, and counts; never undone by its counterpart: see retire()
    this_thread.state = PyThreadState_Get();
    mask_.apply();
    this_thread.identity.emplace(prefix_ + std::to_string(worker));
  }
  this_thread.is_inside_lane = true;
  acquisitions_.fetch_add(1, std::memory_order_relaxed);
}

void gil_lane::leave() noexcept {
  this_thread.is_inside_lane = false;
  PyEval_SaveThread();
}

// Not by PyGILState_Release(): up to 3.12.3 it clears the state when nobody counts as using it any more. What
// dies there, as the values of a threading.local do, may run code, and the first of it that acquires and
// releases the GIL would delete the state under all the others.
void gil_lane::retire() noexcept {
  PyEval_RestoreThread(this_thread.state);
  this_thread.identity.reset();
  PyThreadState_Clear(std::exchange(this_thread.state, nullptr));
  PyThreadState_DeleteCurrent();
}

bool gil_lane::is_inside() noexcept { return this_thread.is_inside_lane; }

}  // namespace offgil::python
