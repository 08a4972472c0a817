// thread_identity.cpp - what a thread of ours is to Python's threading module.
#include "thread_identity.hpp"

#include <pybind11/pybind11.h>

#include "errors.hpp"

namespace offgil::python {
namespace {

namespace py = pybind11;

thread_local bool has_identity = false;

void set_hook(const py::module_& threading, const char* get, const char* set) {
  const py::object hook = threading.attr(get)();
  if (!hook.is_none()) py::module_::import("sys").attr(set)(hook);
}

}  // namespace

thread_identity::thread_identity(const std::string& name) noexcept {
  has_identity = true;
  guarded(0, [&] {
    const auto threading = py::module_::import("threading");
    const py::object stand_in = threading.attr("current_thread")();  // makes it, for a foreign thread
    // Past the setter, which from 3.14 on names the system's thread as well, cut off where ours differ.
    stand_in.attr("_name") = name;
    // What threads that a job starts inherit: they are waited for at exit. Nobody waits for a stand-in.
    stand_in.attr("_daemonic") = false;
    set_hook(threading, "gettrace", "settrace");
    set_hook(threading, "getprofile", "setprofile");
    return 0;
  });
  PyErr_Clear();  // what goes without a name still works
}

// Up to 3.12 nobody else removes a foreign thread from the list.
thread_identity::~thread_identity() {
  has_identity = false;
  guarded(0, [] {
    const auto threading = py::module_::import("threading");
    threading.attr("_active").attr("pop")(threading.attr("get_ident")(), py::none());
    return 0;
  });
  PyErr_Clear();
}

bool is_thread_of_ours() noexcept { return has_identity; }

}  // namespace offgil::python
