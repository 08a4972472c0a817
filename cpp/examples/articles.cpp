// articles.cpp - the articles' functions in plain pybind11: the same work, the GIL treated in turn each way;
// and the one that releases it in its body as a native function too.
#include "articles.hpp"

#include <offgil/gil_release.hpp>
#include <offgil/sdk.hpp>

#include "compute.hpp"

#include <cstdint>

namespace py = pybind11;

namespace {

using offgil::examples::cumulative_sum;
using offgil::examples::expensive;
using offgil::examples::fibonacci;
using offgil::examples::sleep_for;

std::uint64_t fibonacci_nogil(std::uint64_t n) {
  py::gil_scoped_release release;
  return fibonacci(n);
}

std::uint64_t expensive_scoped_guard(std::uint64_t n, double seconds) {
  const std::uint64_t sum = cumulative_sum(n);
  {
    py::gil_scoped_release release;
    sleep_for(seconds);
  }
  return sum;
}

std::int64_t echo_nogil(std::int64_t x) { return x; }

// Holds `depth` guards at once, one per level of recursion, and returns how many it held.
template <class Guard>
unsigned recurse(unsigned depth) {
  if (depth == 0) return 0;
  Guard guard;
  return 1 + recurse<Guard>(depth - 1);
}

// The article recurses without end; the process dies at the second level, so two are enough.
void recurse_unlock() { recurse<py::gil_scoped_release>(2); }

// Each level is a stack frame, and a main thread has 8 MiB of them.
constexpr unsigned max_depth = 10'000;

unsigned recurse_release(unsigned depth) {
  if (depth > max_depth) throw py::value_error("depth must be at most 10000");
  return recurse<offgil::gil_release>(depth);
}

void bind_first_article(py::module_& m) {
  // GIL: held throughout.
  m.def("expensive_naive", &expensive, py::arg("n"), py::arg("seconds"),
        "Sum 0..n-1 and sleep, holding the GIL throughout: everything else in the process stands still.");
  // GIL: released throughout.
  m.def("expensive_call_guard", &expensive, py::arg("n"), py::arg("seconds"),
        py::call_guard<py::gil_scoped_release>(),
        "Sum 0..n-1 and sleep with the GIL released throughout, by py::call_guard.");
  // GIL: held for the sum, released for the sleep.
  m.def("expensive_scoped_guard", &expensive_scoped_guard, py::arg("n"), py::arg("seconds"),
        "Sum 0..n-1 holding the GIL, then sleep with it released, by py::gil_scoped_release.");
  // GIL: not held; to release it has no effect. The same function: nothing but `m.def` has changed.
  offgil::def(m, "expensive_guarded", &expensive_scoped_guard, py::arg("n"), py::arg("seconds"),
              "expensive_scoped_guard as a native function: sum 0..n-1, then sleep, both without the GIL.");
}

void bind_second_article(py::module_& m) {
  // GIL: held throughout.
  m.def("fibonacci_gil", &fibonacci, py::arg("n"),
        "Calculate the nth Fibonacci number modulo 2**64 while holding the GIL.");
  // GIL: released inside.
  m.def("fibonacci_nogil", &fibonacci_nogil, py::arg("n"),
        "Calculate the nth Fibonacci number modulo 2**64 with the GIL released.");
  // GIL: released twice, which is fatal.
  m.def("recurse_unlock", &recurse_unlock,
        "Release the GIL twice with py::gil_scoped_release. This kills the process, every time.");
  // GIL: released by the first level; the nested releases have no effect.
  m.def("recurse_release", &recurse_release, py::arg("depth"),
        "Release the GIL `depth` times, nested, with offgil::gil_release, and return the depth reached.");
}

}  // namespace

void bind_articles(py::module_& m) {
  bind_first_article(m);
  bind_second_article(m);
  // GIL: released for the call. What a do-nothing job costs an executor made of Python threads.
  m.def("echo_nogil", &echo_nogil, py::arg("x"), py::call_guard<py::gil_scoped_release>(),
        "Return x, with the GIL released and taken again around the call.");
#ifdef __OPTIMIZE__
  m.attr("optimized") = true;
#else
  m.attr("optimized") = false;
#endif
}
