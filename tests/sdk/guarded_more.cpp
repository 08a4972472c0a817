// guarded_more.cpp - the module guarded's second file that includes the SDK, and the bodies that go wrong.
#include <offgil/sdk.hpp>
#include <stdexcept>

#include "guarded.hpp"

namespace py = pybind11;

// A number that releases the GIL to go away, as what has to wait for a thread does.
class slow_to_go {
 public:
  explicit slow_to_go(int x = 0) noexcept : x_(x) {}
  slow_to_go(const slow_to_go&) = default;
  slow_to_go& operator=(const slow_to_go&) = default;
  ~slow_to_go() { const py::gil_scoped_release release; }
  int number() const noexcept { return x_; }

 private:
  int x_;
};

template <>
inline constexpr bool offgil::enable_gil_free<slow_to_go> = true;

template <>
struct pybind11::detail::type_caster<slow_to_go> {
  PYBIND11_TYPE_CASTER(slow_to_go, const_name("int"));

  bool load(handle from, bool) {
    value = slow_to_go(from.cast<int>());
    return true;
  }

  static handle cast(const slow_to_go& from, return_value_policy, handle) {
    return py::int_(from.number()).release();
  }
};

namespace {

int takes_slow(const slow_to_go& x) { return x.number() + 1; }
slow_to_go gives_slow(int x) { return slow_to_go(x + 1); }

int throws_while_holding(int) {
  const py::gil_scoped_release release;
  const py::gil_scoped_acquire acquire;
  throw std::out_of_range("while holding");
}

int raises(int) {
  const py::gil_scoped_acquire acquire;
  py::module_::import("operator").attr("index")("no integer");
  return 0;
}

int leaves_an_exception(int x) {
  const py::gil_scoped_acquire acquire;
  PyErr_SetString(PyExc_LookupError, "left behind");
  return x + 1;
}

// What assertions are there to find.
int counts_without_the_gil(int x) {
  const py::gil_scoped_release release;
  py::handle(Py_None).inc_ref();
  return x + 1;
}

}  // namespace

void bind_more(py::module_& m) {
  offgil::def(m, "throws_while_holding", &throws_while_holding);
  offgil::def(m, "takes_slow", &takes_slow);
  offgil::def(m, "gives_slow", &gives_slow);
  offgil::def(m, "raises", &raises);
  offgil::def(m, "leaves_an_exception", &leaves_an_exception);
  offgil::def(m, "counts_without_the_gil", &counts_without_the_gil);
}
