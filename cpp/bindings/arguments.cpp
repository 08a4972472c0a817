// arguments.cpp - what Python passes to the constructors of pools, checked.
#include "arguments.hpp"

namespace offgil::python {
namespace {

// Integers as Python means them: no bool, no float. `what` is the argument's name.
std::int64_t integer_argument(PyObject* given, const char* what) {
  if (PyBool_Check(given) || PyIndex_Check(given) == 0)
    throw py::type_error(std::string(what) + " must be an int, not " + Py_TYPE(given)->tp_name);
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(given));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0) throw py::value_error(std::string(what) + " is out of range");
  return value;
}

// With the argument's name behind the reason.
[[noreturn]] void raise_encode_error(const char* name) {
  py::error_already_set raised;
  if (raised.matches(PyExc_UnicodeEncodeError)) {
    const py::object& error = raised.value();
    error.attr("reason") = py::str("{}, in {}").format(error.attr("reason"), name);
  }
  throw raised;
}

}  // namespace

unsigned workers_argument(PyObject* given, const char* name) {
  if (given == Py_None) return usable_cpu_count();
  constexpr std::int64_t most = 32'768;
  const std::int64_t workers = integer_argument(given, name);
  if (workers < 1 || workers > most)
    throw py::value_error(std::string(name) + " must be between 1 and " + std::to_string(most) + ", not " +
                          std::to_string(workers));
  return static_cast<unsigned>(workers);
}

std::size_t max_pending_argument(PyObject* given) {
  if (given == Py_None) return 0;
  const std::int64_t most = integer_argument(given, "max_pending");
  if (most < 1)
    throw py::value_error("max_pending must be at least 1, or None for any number, not " +
                          std::to_string(most));
  return static_cast<std::size_t>(most);
}

int nice_argument(PyObject* given) {
  const std::int64_t nice = integer_argument(given, "nice");
  constexpr std::int64_t most = 39;
  if (nice < -most || nice > most)
    throw py::value_error("nice must be between -39 and 39, not " + std::to_string(nice));
  return static_cast<int>(nice);
}

std::chrono::nanoseconds spin_argument(PyObject* given) {
  if (PyBool_Check(given) || (!PyFloat_Check(given) && !PyLong_Check(given)))
    throw py::type_error(std::string("spin must be a number of seconds, not ") + Py_TYPE(given)->tp_name);
  const double seconds = PyFloat_AsDouble(given);
  PyErr_Clear();  // of an int that no double holds, which is -1 then
  if (!(seconds >= 0 && seconds <= 1)) throw py::value_error("spin must be between 0 and 1 second");
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

// Raises UnicodeEncodeError, a ValueError, for a text that is none.
std::string text_argument(PyObject* given, const char* name) {
  if (PyUnicode_Check(given) == 0)
    throw py::type_error(std::string(name) + " must be a str, not " + Py_TYPE(given)->tp_name);
  Py_ssize_t size = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(given, &size);
  if (text == nullptr) raise_encode_error(name);
  return {text, static_cast<std::size_t>(size)};
}

delivery delivery_argument(PyObject* given) {
  const std::string name = text_argument(given, "delivery");
  if (name == "auto") return delivery::automatic;
  if (name == "eventfd") return delivery::eventfd;
  if (name == "callback") return delivery::callback;
  throw py::value_error("delivery must be 'auto', 'eventfd' or 'callback', not '" + name + "'");
}

future_style& style_argument(PyObject* given) {
  const std::string name = text_argument(given, "future_kind");
  if (name == "inline") return inline_futures();
  if (name == "plain") return plain_futures();
  throw py::value_error("no such kind of future: " + name);
}

}  // namespace offgil::python
