// concurrent_future.hpp - a concurrent.futures.Future that carries its job.
#pragma once

#include <pybind11/pybind11.h>

#include <thread>

#include "bridge_job.hpp"
#include "completion_flag.hpp"
#include "fork.hpp"

namespace offgil::python {

namespace py = pybind11;

// The job inside a future. Guarded by the GIL, but for what the engine and the flag keep.
struct concurrent_job : bridge_job {
  completion_flag flag;       // set when the outcome is there
  bool is_observed = false;   // the base's fields exist, and must be told
  bool is_published = false;  // they have been told; the last word in what they say
  bool is_publication_begun = false;
  bool is_cancel_noticed = false;  // by set_running_or_notify_cancel()
  bool is_the_users = false;       // somebody else has ended the future; its outcome is his
  bool has_outcome = false;        // in the two below; neither: cancelled
  std::thread::id maker;           // of the outcome, while it is being made
  process_generation made_in;
  PyObject* value = nullptr;
  PyObject* exception = nullptr;
  PyObject* callbacks = nullptr;  // a list of those added before anybody observed the future, until they run

  bool is_somebody_to_be_told() const noexcept { return is_observed || callbacks != nullptr; }
};

// A new pending future. Null with an exception set.
concurrent_job* create_concurrent_future() noexcept;

// The future that a job lives in; borrowed.
PyObject* future_of(concurrent_job& j) noexcept;

// The outcome is there, the flag is set. Tells those who are to be told: waiters are notified and callbacks
// run here. Once; later calls do nothing, also while the first, which runs Python code, goes on.
void publish(concurrent_job& j) noexcept;

// Makes the outcome of a job that was handed back, once, and releases the job's payload. A native result is
// made when it is asked for, by whoever asks; who comes meanwhile waits. False: this very thread is at it,
// further up its stack, and Python code that it has come to asks again. In a forked child whose parent has a
// thread at it, the outcome is PoolBroken.
bool take_outcome(concurrent_job& j) noexcept;

void bind_concurrent_future(py::module_& m);

}  // namespace offgil::python
