// errors.hpp - the exceptions of offgil, and what an exception in flight looks like.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <system_error>

namespace offgil::python {

namespace py = pybind11;

// Types of the exceptions that Python code sees; borrowed, alive as long as the module.
struct exceptions {
  PyObject* pool_error;
  PyObject* pool_closed;
  PyObject* pool_full;
  PyObject* pool_broken;
  PyObject* native_error;
  PyObject* cancelled;             // asyncio.CancelledError
  PyObject* invalid_state;         // asyncio.InvalidStateError
  PyObject* future_cancelled;      // concurrent.futures.CancelledError
  PyObject* future_invalid_state;  // concurrent.futures.InvalidStateError

  static const exceptions& get() noexcept;
};

// What PoolBroken says when an initializer was the reason; the standard library's words.
inline constexpr const char* initializer_failed =
    "A thread initializer failed, the thread pool is not usable anymore";

// Raises in Python and unwinds C++ up to the binding.
[[noreturn]] void raise(PyObject* type, const std::string& message);

// The exception that is set, normalized and with its traceback, taken out of the thread's state. Null if
// none.
py::object take_raised() noexcept;

// The same way back.
void restore_raised(py::object exception) noexcept;

// Clears the exception that is set if it is a future's that is done already: its user has ended it himself,
// and has the last word. False: it is another one.
bool clear_if_done_already() noexcept;

// Sets the OSError that belongs to an error of the operating system.
void set_os_error(const std::system_error& e) noexcept;

// Logs an exception where concurrent.futures logs its own: at `level` ("error", "critical"), as the message
// with `about` for its %r.
void log_exception(const char* level, const char* message, const py::object& about,
                   const py::object& exception) noexcept;

// Adds a note to an exception, for example the name of the job that raised it; unless it has that one, or a
// good many already, as an exception object has that is raised again and again.
void add_note(const py::object& exception, const std::string& note) noexcept;

// Runs a body of a C slot that may throw: nothing thrown leaves it, a Python exception is set instead.
template <class Result, class Body>
Result guarded(Result on_error, Body&& body) noexcept {
  try {
    return body();
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::builtin_exception& e) {
    e.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::system_error& e) {
    set_os_error(e);
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return on_error;
}

void bind_errors(py::module_& m);

}  // namespace offgil::python
