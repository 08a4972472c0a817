// asserting.cpp - a body that is optimised, and asserts.
#include <offgil/sdk.hpp>

namespace py = pybind11;

PYBIND11_MODULE(asserting, m) {
  offgil::def(m, "release", [](int x) {
    const py::gil_scoped_release release;
    return x + 1;
  });
  offgil::def(m, "ours", [](int x) {
    const offgil::gil_release release;
    return x + 1;
  });
}
