// submission.hpp - how a call becomes a job in a pool.
#pragma once

#include <Python.h>

#include <cstddef>

#include "python_job.hpp"
#include "worker_pool.hpp"

namespace offgil::python {

class concurrent_channel;
class loop_channel;
class pool_core;

// A callable with the arguments of a vectorcall; all borrowed.
struct submitted_call {
  PyObject* function;
  PyObject* const* args;
  std::size_t nargs;
  PyObject* kwnames;
};

// The future of the job, a new reference: one of the channel's loop, or a concurrent one. All throw what is
// wrong with the arguments, PoolFull, PoolBroken, and PoolClosed or, with the manners of executors, what
// those raise.
PyObject* submit_to(loop_channel& channel, const submitted_call& call, worker_pool::when_full policy,
                    manners how);
PyObject* submit_to(concurrent_channel& channel, const submitted_call& call, bool block);

// Whether the call comes to a native function, which sees no context.
bool is_native(const submitted_call& call) noexcept;

// Throws unless the pool can take jobs.
void check_open(pool_core& core, manners how);

[[noreturn]] void raise_closed(manners how);

}  // namespace offgil::python
