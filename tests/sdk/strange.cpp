// strange.cpp - what a stranger's module may ask of the SDK: every kind of type, default and callable.
#include <pybind11/chrono.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <new>
#include <numeric>
#include <offgil/sdk.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace py = pybind11;

enum class colour { red, green };

struct point {
  double x, y;
};

struct unregistered {};

struct registered_error : std::out_of_range {
  using std::out_of_range::out_of_range;
};

// A type whose caster throws what it is told to.
struct unlucky {
  int how;
};

inline void throw_some(int how) {
  if (how == 1) throw 42;
  if (how == 2) throw std::bad_alloc();
  if (how == 3) throw registered_error("registered");
}

template <>
inline constexpr bool offgil::enable_gil_free<point> = true;
template <>
inline constexpr bool offgil::enable_gil_free<unregistered> = true;
template <>
inline constexpr bool offgil::enable_gil_free<unlucky> = true;

template <>
struct pybind11::detail::type_caster<unlucky> {
  PYBIND11_TYPE_CASTER(unlucky, const_name("no expression"));

  bool load(handle from, bool) {
    value.how = from.cast<int>();
    throw_some(value.how);
    return true;
  }

  static handle cast(unlucky from, return_value_policy, handle) {
    throw_some(-from.how);
    return py::int_(from.how).release();
  }
};

namespace {

int total(const std::vector<int>& numbers) { return std::accumulate(numbers.begin(), numbers.end(), 0); }
std::vector<std::string> names(const std::map<std::string, int>& counts) {
  std::vector<std::string> found;
  for (const auto& each : counts) found.push_back(each.first);
  return found;
}
std::optional<double> maybe(std::optional<double> x) { return x; }
std::filesystem::path parent(const std::filesystem::path& of) { return of.parent_path(); }
std::tuple<int, std::string> both(std::tuple<int, std::string> of) { return of; }
std::chrono::milliseconds twice_as_long(std::chrono::milliseconds delay) { return 2 * delay; }
colour paint(colour with) { return with; }
point mirror(const point& of) { return {-of.x, -of.y}; }
void take(const unregistered&) {}
unlucky try_luck(unlucky how) { return how; }
void throw_registered() { throw registered_error("registered"); }

}  // namespace

PYBIND11_MODULE(strange, m) {
  py::enum_<colour>(m, "colour").value("red", colour::red).value("green", colour::green);
  py::class_<point>(m, "point").def(py::init<double, double>()).def_readonly("x", &point::x);
  py::register_exception<registered_error>(m, "RegisteredError");
  offgil::def(m, "total", &total, py::arg("numbers"));
  offgil::def(m, "names", &names, py::arg("counts"));
  offgil::def(m, "maybe", &maybe, py::arg("x") = py::none());
  offgil::def(m, "parent", &parent, py::arg("of"));
  offgil::def(m, "both", &both, py::arg("of"));
  offgil::def(m, "twice_as_long", &twice_as_long, py::arg("delay") = std::chrono::milliseconds(500));
  offgil::def(m, "paint", &paint, py::arg("with_") = colour::green);
  offgil::def(m, "mirror", &mirror, py::arg("of"));
  offgil::def(m, "take", &take, py::arg("it"));
  offgil::def(m, "try_luck", &try_luck, py::arg("how"));
  offgil::def(m, "throw_registered", &throw_registered);
  offgil::def(m, "text", [](std::string text) { return text; }, py::arg("text"));
  offgil::def(m, "wide", [](const std::u16string& text) { return text; }, py::arg("text"));
  offgil::def(m, "letter", [](char letter) { return letter; }, py::arg("letter"));
  offgil::def(
      m, "texts", [](std::vector<std::vector<std::string>> texts) { return texts; }, py::arg("texts"));
  offgil::def(m, "words", [](std::set<std::string> words) { return words; }, py::arg("words"));
  offgil::def(m, "either", [](std::variant<int, std::string> x) { return x; }, py::arg("x"));
  offgil::def(m, "maybe_text", [](std::optional<std::string> text) { return text; }, py::arg("text"));
  offgil::def(m, "letters", [](std::vector<char> letters) { return letters; }, py::arg("letters"));
  offgil::def(m, "twice", [](int x) { return 2 * x; }, "Return twice x.", py::arg("x"));
  offgil::def(m, "thrice", [](int x) noexcept { return 3 * x; });
  offgil::def(m, "keyword", [](int x) { return x; }, py::arg("lambda"));
  offgil::def(m, "default_first", [](int x, int y) { return x - y; }, py::arg("x") = 1, py::arg("y"));
}
