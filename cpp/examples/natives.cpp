// natives.cpp - offgil.examples: native functions for the demo, the tests and the benchmarks.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "articles.hpp"
#include "compute.hpp"
#include "offgil/sdk.hpp"

namespace py = pybind11;

namespace {

std::int64_t echo(std::int64_t x) { return x; }

// Busy for so long, on the CPU; returns its argument, so that a caller can check whose result it has.
double spin(double microseconds) {
  constexpr double most = 1e15;  // the clock counts nanoseconds in 63 bits
  if (!(microseconds >= 0 && microseconds <= most))
    throw std::invalid_argument("microseconds must be between 0 and 1e15");
  using clock = std::chrono::steady_clock;
  const auto until = clock::now() + std::chrono::duration_cast<clock::duration>(
                                        std::chrono::duration<double, std::micro>(microseconds));
  while (clock::now() < until) {
  }
  return microseconds;
}

std::vector<double> numbers(std::uint32_t n) {
  std::vector<double> made(n);
  std::iota(made.begin(), made.end(), 0.0);
  return made;
}

void fail(const std::string& kind) {
  const std::string text = "fail: " + kind;
  if (kind == "invalid_argument") throw std::invalid_argument(text);
  if (kind == "domain_error") throw std::domain_error(text);
  if (kind == "length_error") throw std::length_error(text);
  if (kind == "range_error") throw std::range_error(text);
  if (kind == "out_of_range") throw std::out_of_range(text);
  if (kind == "overflow_error") throw std::overflow_error(text);
  if (kind == "bad_alloc") throw std::bad_alloc();
  if (kind == "runtime_error") throw std::runtime_error(text);
  if (kind == "logic_error") throw std::logic_error(text);
  if (kind == "int") throw 42;
  throw std::invalid_argument("unknown kind: " + kind);
}

// The one question about Python that may be asked without the GIL.
bool gil_held() { return PyGILState_Check() != 0; }

}  // namespace

PYBIND11_MODULE(examples, m) {
  m.doc() =
      "Native functions made with offgil's SDK, and the plain pybind11 variants of two articles on the GIL.";
  offgil::def(m, "echo", &echo, "Return x.", py::arg("x"));
  offgil::def(m, "fibonacci", &offgil::examples::fibonacci,
              "Return the nth Fibonacci number modulo 2**64, in time proportional to n.", py::arg("n"));
  offgil::def(m, "expensive", &offgil::examples::expensive,
              "Return the sum of the integers below n modulo 2**64, after a sleep of `seconds` (the first "
              "article's function).",
              py::arg("n"), py::arg("seconds"));
  offgil::def(m, "spin", &spin, "Keep a CPU busy for so many microseconds; return the argument.",
              py::arg("microseconds"));
  offgil::def(m, "sleep", &offgil::examples::sleep_for, "Sleep for so many seconds, without using a CPU.",
              py::arg("seconds"));
  offgil::def(m, "numbers", &numbers, "Return the n numbers from 0.0 on, as a list.", py::arg("n"));
  offgil::def(
      m, "fail", &fail,
      "Throw the C++ exception called `kind`: one of <stdexcept>'s names, 'bad_alloc', or 'int' for an "
      "exception that is no std::exception.",
      py::arg("kind"));
  offgil::def(m, "gil_held", &gil_held, "Return whether the thread that runs this holds the GIL.");
  bind_articles(m);
}
