// exit_hook.cpp - what must be gone before Python ends, and how it is told.
#include "exit_hook.hpp"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "errors.hpp"

namespace offgil::python {
namespace {

namespace py = pybind11;

// Guarded by the GIL, and never destroyed: residents may outlive static destruction.
std::vector<resident*>& residents() {
  static auto* const leaked = std::make_unique<std::vector<resident*>>().release();
  return *leaked;
}
bool exiting = false;

// An interrupt while they leave is raised when all have left: leaving must be complete.
void tell_residents_to_leave() {
  exiting = true;
  py::object interrupt;
  while (!residents().empty()) {
    resident* const last = residents().back();
    residents().pop_back();
    last->leave_interpreter();
    if (PyErr_Occurred() != nullptr) interrupt = take_raised();
  }
  if (!interrupt) return;
  restore_raised(std::move(interrupt));
  throw py::error_already_set();
}

}  // namespace

void resident::move_in() { residents().push_back(this); }

resident::~resident() { std::erase(residents(), this); }

bool is_exiting() noexcept { return exiting; }

void install_exit_hook() {
  py::module_::import("atexit").attr("register")(py::cpp_function(&tell_residents_to_leave));
}

}  // namespace offgil::python
