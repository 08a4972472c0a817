// exit_hook.cpp - what must be gone before Python ends, and how it is told.
#include "exit_hook.hpp"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "errors.hpp"

namespace offgil::python {
namespace {

namespace py = pybind11;

// What an interrupted exit still leaves to threads that are about to end, all of them together.
constexpr std::chrono::milliseconds last_moment{50};

// Guarded by the GIL, and never destroyed: residents may outlive static destruction.
struct registry {
  std::vector<resident*> all;
  std::vector<resident*> to_await;
};
registry& residents() {
  static auto* const leaked = std::make_unique<registry>().release();
  return *leaked;
}
bool exiting = false;
std::optional<clock::time_point> interrupted_until;

// An interrupt while they leave is raised when all have left: leaving must be complete.
void tell_residents_to_leave() {
  exiting = true;
  py::object interrupt;
  while (!residents().all.empty()) {
    resident* const last = residents().all.back();
    residents().all.pop_back();
    last->leave_interpreter();
    if (PyErr_Occurred() != nullptr) interrupt = take_raised();
  }
  if (!interrupt) return;
  restore_raised(std::move(interrupt));
  throw py::error_already_set();
}

void call_at_exit() {
  py::module_::import("atexit").attr("register")(py::cpp_function(&tell_residents_to_leave));
}

// An interrupt leaves threading._shutdown(), which then joins no thread, as with the standard executors'
// hook.
void await_accepted_jobs() {
  const auto main_thread_ended = clock::now();
  auto& to_await = residents().to_await;
  to_await = residents().all;
  while (!to_await.empty() && PyErr_Occurred() == nullptr) {
    resident* const last = to_await.back();
    to_await.pop_back();
    last->await_accepted(main_thread_ended);
  }
  py::object interrupt = take_raised();
  call_at_exit();  // once more, now ahead of all others: what they clean up, a later job may still use
  if (!interrupt) return;
  restore_raised(std::move(interrupt));
  throw py::error_already_set();
}

// Private to CPython; from 3.9 to 3.14 at least. Called when the main thread has ended, before the non-daemon
// threads are joined. Without it, or when it is too late to register, the atexit handler does all.
void call_when_main_thread_ends() {
  const auto threading = py::module_::import("threading");
  if (!py::hasattr(threading, "_register_atexit")) return;
  try {
    threading.attr("_register_atexit")(py::cpp_function(&await_accepted_jobs));
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_RuntimeError)) throw;
  }
}

}  // namespace

void resident::move_in() { residents().all.push_back(this); }

resident::~resident() {
  std::erase(residents().all, this);
  std::erase(residents().to_await, this);
}

bool wait_at_exit(const std::function<bool(std::chrono::nanoseconds)>& ended_within) noexcept {
  using namespace std::chrono_literals;
  for (;;) {
    const auto at_most = interrupted_until ? std::max<clock::duration>(*interrupted_until - clock::now(), 0ns)
                                           : between_signals;
    {
      const py::gil_scoped_release threads_may_need_it;
      if (ended_within(at_most)) return true;
    }
    if (interrupted_until) return false;
    if (PyErr_CheckSignals() == 0) continue;
    interrupted_until = clock::now() + last_moment;
    return false;
  }
}

bool is_exiting() noexcept { return exiting; }

void install_exit_hook() {
  call_at_exit();
  call_when_main_thread_ends();
}

}  // namespace offgil::python
