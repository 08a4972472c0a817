// names.cpp - interned strings that hot paths use.
#include "names.hpp"

#include <pybind11/pybind11.h>

namespace offgil::python {
namespace {

names the_names{};

PyObject* interned(const char* text) {
  PyObject* const made = PyUnicode_InternFromString(text);
  if (made == nullptr) throw pybind11::error_already_set();
  return made;
}

}  // namespace

const names& names::get() noexcept { return the_names; }

void intern_names() {
  the_names = names{.add_done_callback = interned("add_done_callback"),
                    .args = interned("args"),
                    .asyncio_future_blocking = interned("_asyncio_future_blocking"),
                    .call_soon = interned("call_soon"),
                    .cancel = interned("cancel"),
                    .context = interned("context"),
                    .create_future = interned("create_future"),
                    .done = interned("done"),
                    .func = interned("func"),
                    .get_debug = interned("get_debug"),
                    .get_loop = interned("get_loop"),
                    .keywords = interned("keywords"),
                    .loop = interned("loop"),
                    .running_event_loop = interned("__asyncio_running_event_loop__"),
                    .set_exception = interned("set_exception"),
                    .set_result = interned("set_result"),
                    .context_keyword = nullptr};
  the_names.context_keyword = PyTuple_Pack(1, the_names.context);
  if (the_names.context_keyword == nullptr) throw pybind11::error_already_set();
}

}  // namespace offgil::python
