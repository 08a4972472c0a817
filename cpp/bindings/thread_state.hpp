// thread_state.hpp - what Python keeps of a thread of ours.
#pragma once

#include <Python.h>

namespace offgil::python {

// Whether Python ends or has ended. For any thread, without the GIL.
bool is_finalizing() noexcept;

// Makes the state of the calling thread, which has none, and takes the GIL. Counted as used, so that nobody
// who takes and releases the GIL meanwhile deletes it. Does not return while Python ends.
PyThreadState* make_thread_state() noexcept;

// Ends the state of the calling thread, which has the GIL and loses it.
void end_thread_state() noexcept;

}  // namespace offgil::python
