// guarded.cpp - native functions whose bodies release and take the GIL, as those of plain pybind11 do; the
// module is called GUARDED.
#include "guarded.hpp"

#include <offgil/sdk.hpp>

#include "guard_library.hpp"

namespace py = pybind11;

namespace {

int in_python(int x) { return py::cast<int>(py::int_(x) + py::int_(1)); }

int release(int x) {
  const py::gil_scoped_release release;
  return x + 1;
}

int acquire(int x) {
  const py::gil_scoped_acquire acquire;
  return in_python(x);
}

int release_around_acquire(int x) {
  const py::gil_scoped_release release;
  const py::gil_scoped_acquire acquire;
  return in_python(x);
}

int acquire_around_release(int x) {
  const py::gil_scoped_acquire acquire;
  {
    const py::gil_scoped_release release;
    ++x;
  }
  return in_python(x) - 1;
}

int all_in_turn(int x) {
  const py::gil_scoped_release release;
  const py::gil_scoped_release again;
  const py::gil_scoped_acquire acquire;
  const py::gil_scoped_acquire twice;
  const offgil::gil_release ours;
  const py::gil_scoped_release once_more;
  const py::gil_scoped_acquire at_last;
  return in_python(x);
}

// Calls a native function from Python code inside a native function.
int through_python(int x) {
  const py::gil_scoped_acquire acquire;
  return py::cast<int>(py::module_::import(PYBIND11_TOSTRING(GUARDED)).attr("release_around_acquire")(x));
}

bool asks(int) {
  const py::gil_scoped_release release;
  return PyGILState_Check() != 0;
}

bool holds(int) {
  const py::gil_scoped_release release;
  return offgil::gil_is_held();
}

int plainly_twice(int x) {
  const py::gil_scoped_release release;
  const py::gil_scoped_release again;
  return x + 1;
}

}  // namespace

PYBIND11_MODULE(GUARDED, m) {
  offgil::def(m, "release", &release);
  offgil::def(m, "acquire", &acquire);
  offgil::def(m, "release_around_acquire", &release_around_acquire);
  offgil::def(m, "acquire_around_release", &acquire_around_release);
  offgil::def(m, "all_in_turn", &all_in_turn);
  offgil::def(m, "library_release", &library::released);
  offgil::def(m, "library_acquire", &library::acquired);
  offgil::def(m, "library_in_the_c_api", &library::in_the_c_api);
  offgil::def(m, "through_python", &through_python);
  offgil::def(m, "asks", &asks);
  offgil::def(m, "holds", &holds);
  offgil::def(m, "call_guard", [](int x) { return x + 1; }, py::call_guard<py::gil_scoped_release>());
  offgil::def(
      m, "call_guards", [](int x) { return x + 1; }, "Return x + 1.", py::arg("x"),
      py::call_guard<offgil::gil_release, py::gil_scoped_release>());
  m.def("plainly", &release, py::arg("x"));
  m.def("plainly_in_the_library", &library::acquired);
  m.def("plainly_guarded", [](int x) { return x + 1; }, py::call_guard<py::gil_scoped_release>());
  m.def("plainly_twice", &plainly_twice);
  bind_more(m);
}
