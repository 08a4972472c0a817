// text_error.hpp - why a text cannot become a C++ one: pybind11 says no more than that it cannot.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace offgil {
namespace [[gnu::visibility("hidden")]] sdk {

namespace py = pybind11;

// in(given): the ValueError, mostly a UnicodeEncodeError, that Python raises of the first text in `given`
// that cannot be a T, or the part of a T that it stands for. Null where that is not what is wrong. May run
// Python code, as the conversion itself; what that raises is thrown.
template <class T>
struct text_error;

// Of what holds no texts, which is not looked through: it may be large.
struct no_text_error {
  static py::object in(py::handle) { return {}; }
};
template <class T>
struct text_error : no_text_error {};

template <class T>
concept holds_texts = !std::derived_from<text_error<T>, no_text_error>;

template <class T>
concept character = std::same_as<T, char> || std::same_as<T, wchar_t> || std::same_as<T, char8_t> ||
                    std::same_as<T, char16_t> || std::same_as<T, char32_t>;

// A lone surrogate is in no encoding.
template <character T>
struct text_error<T> {
  static py::object in(py::handle given) {
    Py_ssize_t size = 0;
    if (PyUnicode_Check(given.ptr()) == 0 || PyUnicode_AsUTF8AndSize(given.ptr(), &size) != nullptr)
      return {};
    const py::error_already_set raised;
    if (!raised.matches(PyExc_ValueError)) throw raised;
    return raised.value();
  }
};

template <class C, class Traits>
struct text_error<std::basic_string<C, Traits>> : text_error<C> {};

// Of surrogates a path takes those that stand for a byte, and it has no null byte.
template <>
struct text_error<std::filesystem::path> {
  static py::object in(py::handle given) {
    PyObject* bytes = nullptr;
    if (PyUnicode_FSConverter(given.ptr(), &bytes) != 0) {
      Py_DECREF(bytes);
      return {};
    }
    const py::error_already_set raised;
    if (raised.matches(PyExc_TypeError)) return {};
    if (!raised.matches(PyExc_ValueError)) throw raised;
    return raised.value();
  }
};

// What a container is made of, where that may be looked at twice. Empty for anything else. A sequence has as
// many items as it says, whatever an iteration would give.
inline py::list items_of(py::handle given) {
  PyObject* const object = given.ptr();
  if (PyAnySet_Check(object) != 0) return py::list(py::reinterpret_borrow<py::object>(given));
  py::list items;
  if (PyUnicode_Check(object) != 0 || PySequence_Check(object) == 0) return items;
  const Py_ssize_t size = PySequence_Size(object);
  if (size < 0) throw py::error_already_set();
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* const item = PySequence_GetItem(object, i);
    if (item == nullptr) throw py::error_already_set();
    items.append(py::reinterpret_steal<py::object>(item));
  }
  return items;
}

template <class Element>
struct text_error_in_items : no_text_error {};
template <holds_texts Element>
struct text_error_in_items<Element> {
  static py::object in(py::handle given) {
    for (const py::handle each : items_of(given))
      if (auto found = text_error<Element>::in(each)) return found;
    return {};
  }
};
template <class T>
struct text_error<std::vector<T>> : text_error_in_items<T> {};
template <class T, std::size_t N>
struct text_error<std::array<T, N>> : text_error_in_items<T> {};
template <class T>
struct text_error<std::set<T>> : text_error_in_items<T> {};
template <class T>
struct text_error<std::unordered_set<T>> : text_error_in_items<T> {};

template <class K, class V>
struct text_error_in_map : no_text_error {};
template <class K, class V>
  requires(holds_texts<K> || holds_texts<V>)
struct text_error_in_map<K, V> {
  static py::object in(py::handle given) {
    if (PyDict_Check(given.ptr()) == 0) return {};
    return text_error_in_items<std::pair<K, V>>::in(
        py::reinterpret_steal<py::list>(PyDict_Items(given.ptr())));
  }
};
template <class K, class V>
struct text_error<std::map<K, V>> : text_error_in_map<K, V> {};
template <class K, class V>
struct text_error<std::unordered_map<K, V>> : text_error_in_map<K, V> {};

template <class... T>
  requires(holds_texts<T> || ...)
struct text_error<std::tuple<T...>> {
  static py::object in(py::handle given) {
    const py::list items = items_of(given);
    if (items.size() != sizeof...(T)) return {};
    py::object found;
    std::size_t i = 0;
    static_cast<void>(((found = text_error<T>::in(items[i++])) || ...));
    return found;
  }
};
template <class A, class B>
struct text_error<std::pair<A, B>> : text_error<std::tuple<A, B>> {};

// One of them was to be it.
template <class... T>
  requires(holds_texts<T> || ...)
struct text_error<std::variant<T...>> {
  static py::object in(py::handle given) {
    py::object found;
    static_cast<void>(((found = text_error<T>::in(given)) || ...));
    return found;
  }
};
template <class T>
struct text_error<std::optional<T>> : text_error<T> {};

}  // namespace sdk
}  // namespace offgil
