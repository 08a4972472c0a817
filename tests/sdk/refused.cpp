// refused.cpp - what offgil::def must refuse to compile, with a message for each.
#include <pybind11/iostream.h>

#include <offgil/sdk.hpp>
#include <string>
#include <string_view>

namespace py = pybind11;

PYBIND11_MODULE(refused, m) {
  const int offset = m.attr("offset").cast<int>();
  offgil::def(m, "captures", [offset](int x) { return x + offset; });
  offgil::def(m, "redirected", [](int x) { return x; }, py::call_guard<py::scoped_ostream_redirect>());
  offgil::def(m, "acquired", [](int x) { return x; }, py::call_guard<py::gil_scoped_acquire>());
  offgil::def(
      m, "both", [](int x) { return x; },
      py::call_guard<py::gil_scoped_release, py::scoped_estream_redirect>());
  offgil::def(m, "kept", [](int x) { return x; }, py::keep_alive<0, 1>());
  offgil::def(m, "views", [](std::string_view text) { return text.size(); });
  offgil::def(m, "gives_objects", []() { return py::none(); });
}
