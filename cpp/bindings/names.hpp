// names.hpp - interned strings that hot paths use.
#pragma once

#include <Python.h>

namespace offgil::python {

// Kept for ever.
struct names {
  PyObject* add_done_callback;
  PyObject* args;
  PyObject* asyncio_future_blocking;
  PyObject* call_soon;
  PyObject* cancel;
  PyObject* context;
  PyObject* create_future;
  PyObject* done;
  PyObject* func;
  PyObject* get_debug;
  PyObject* get_loop;
  PyObject* keywords;
  PyObject* loop;
  PyObject* running_event_loop;
  PyObject* set_exception;
  PyObject* set_result;
  PyObject* context_keyword;  // ("context",)

  static const names& get() noexcept;
};

void intern_names();

}  // namespace offgil::python
