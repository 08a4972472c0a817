// refused.cpp - what offgil::def must refuse to compile, with a message for each.
#include <offgil/sdk.hpp>
#include <string>
#include <string_view>

namespace py = pybind11;

PYBIND11_MODULE(refused, m) {
  const int offset = m.attr("offset").cast<int>();
  offgil::def(m, "captures", [offset](int x) { return x + offset; });
  offgil::def(m, "guarded", [](int x) { return x; }, py::call_guard<py::gil_scoped_release>());
  offgil::def(m, "views", [](std::string_view text) { return text.size(); });
  offgil::def(m, "gives_objects", []() { return py::none(); });
}
