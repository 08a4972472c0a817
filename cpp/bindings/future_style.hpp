// future_style.hpp - what a channel needs to know of the futures that its jobs live in.
#pragma once

#include <Python.h>

#include "bridge_job.hpp"

namespace offgil::python {

class loop_channel;

// Two styles stand behind this: `inline_future` is a subclass of asyncio.Future that carries its job and
// wakes its awaiter inside the drain; `plain_future` is an asyncio.Future with a job beside it, slower and
// simple enough to tell what is right. All with the GIL held, on the channel's loop's thread, except
// release().
class future_style {
 public:
  virtual ~future_style() = default;

  // A new pending future of the running loop, which keeps itself alive until release(); its job. Null with an
  // exception set.
  virtual bridge_job* create(loop_channel& channel) noexcept = 0;

  // The future that a job lives in; borrowed.
  virtual PyObject* future_of(bridge_job& j) const noexcept = 0;

  // First pass: puts the outcome of a job that was handed back into its future, unless that is done already.
  // Runs no callback, but calls the loop's call_soon(). False with an exception set that is not about the
  // future: of a signal handler, which Python runs wherever it gets to run code.
  virtual bool resolve(bridge_job& j) noexcept = 0;

  // Second pass: runs the callbacks that the style keeps to itself. False with an exception set when one
  // ended with what is not for a loop's exception handler (KeyboardInterrupt, SystemExit).
  virtual bool run_callbacks(bridge_job& j, loop_channel& channel) noexcept = 0;

  // Ends the job; frees it, or its future, unless somebody else holds that. Its payload is gone already.
  virtual void release(bridge_job& j) noexcept = 0;
};

future_style& inline_futures() noexcept;
future_style& plain_futures() noexcept;

void prepare_inline_futures();

}  // namespace offgil::python
