// running_loop.hpp - which event loop runs on this thread.
#pragma once

#include <pybind11/pybind11.h>

namespace offgil::python {

namespace py = pybind11;

// Once, when the module is made.
void find_running_loop();

// asyncio.get_running_loop(). Throws RuntimeError where none runs. Costs a system call up to Python 3.13,
// which asks for the process id to notice a fork.
py::object running_loop();

// What asyncio keeps in the thread's state for the loop that runs, opaque to us: a new object whenever a loop
// starts or stops. Whoever holds one, and finds it still there, knows without a system call that the same
// loop runs. It holds the loop: keep it no longer than the loop is needed. Borrowed; null where Python keeps
// no such thing (3.14 and later, where running_loop() is cheap).
PyObject* running_loop_token() noexcept;

}  // namespace offgil::python
