// sdk.hpp - native functions for pybind11 users: offgil::def(m, "name", &function).
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

#include "offgil/abi.h"
#include "offgil/gil_free.hpp"
#include "offgil/gil_release.hpp"
#include "offgil/native_body.hpp"
#include "offgil/text_error.hpp"

namespace offgil {
// Hidden, as pybind11 is: types that hold its types cannot be seen further than they.
namespace [[gnu::visibility("hidden")]] sdk {

namespace py = pybind11;

// ---- values from and to Python ----

enum class conversion { done, wrong_type, out_of_range };

template <class T>
concept plain_integer =
    std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
    !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

// One type's conversion. The numbers have their own, as they are what short jobs take; pybind11's casters do
// the rest.
template <class T>
struct value {
  static constexpr auto expected() { return py::detail::make_caster<T>::name; }

  static conversion load(PyObject* from, void* to) try {
    py::detail::make_caster<T> caster;
    if (!caster.load(from, true)) return conversion::wrong_type;
    ::new (to) T(py::detail::cast_op<T&&>(std::move(caster)));
    return conversion::done;
  } catch (const py::cast_error&) {
    return conversion::wrong_type;  // of a part, which a caster has cast by itself
  } catch (const py::reference_cast_error&) {
    return conversion::wrong_type;  // of None for a registered class
  }

  static PyObject* cast(T&& from) { return py::cast(std::move(from)).release().ptr(); }
};

template <plain_integer T>
struct value<T> {
  static constexpr auto expected() { return py::detail::const_name("int"); }

  static conversion load(PyObject* from, void* to) {
    if (!PyLong_Check(from)) return load_index(from, to);
    if constexpr (std::is_signed_v<T>) {
      int overflow = 0;
      const long long wide = PyLong_AsLongLongAndOverflow(from, &overflow);
      if (overflow != 0 || !std::in_range<T>(wide)) return conversion::out_of_range;
      ::new (to) T(static_cast<T>(wide));
    } else {
      const unsigned long long wide = PyLong_AsUnsignedLongLong(from);
      if (wide == static_cast<unsigned long long>(-1) && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        return conversion::out_of_range;
      }
      if (!std::in_range<T>(wide)) return conversion::out_of_range;
      ::new (to) T(static_cast<T>(wide));
    }
    return conversion::done;
  }

  static PyObject* cast(T from) {
    if constexpr (std::is_signed_v<T>)
      return PyLong_FromLongLong(from);
    else
      return PyLong_FromUnsignedLongLong(from);
  }

 private:
  // Other integers, NumPy's among them. A float is none: it would lose its fraction unseen.
  static conversion load_index(PyObject* from, void* to) {
    if (PyIndex_Check(from) == 0) return conversion::wrong_type;
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(from));
    if (!integer) throw py::error_already_set();
    return load(integer.ptr(), to);
  }
};

template <std::floating_point T>
struct value<T> {
  static constexpr auto expected() { return py::detail::const_name("float"); }

  static conversion load(PyObject* from, void* to) {
    if (!PyFloat_Check(from) && !PyLong_Check(from) && Py_TYPE(from)->tp_as_number == nullptr)
      return conversion::wrong_type;
    const double wide = PyFloat_AsDouble(from);
    if (wide == -1.0 && PyErr_Occurred() != nullptr) {
      const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
      if (!too_large && PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
      PyErr_Clear();
      return too_large ? conversion::out_of_range : conversion::wrong_type;
    }
    ::new (to) T(static_cast<T>(wide));
    return conversion::done;
  }

  static PyObject* cast(T from) { return PyFloat_FromDouble(static_cast<double>(from)); }
};

template <>
struct value<bool> {
  static constexpr auto expected() { return py::detail::const_name("bool"); }

  static conversion load(PyObject* from, void* to) {
    if (!PyBool_Check(from)) return conversion::wrong_type;
    ::new (to) bool(from == Py_True);
    return conversion::done;
  }

  static PyObject* cast(bool from) { return PyBool_FromLong(from ? 1 : 0); }
};

template <>
struct value<std::monostate> {  // the result of a function that returns nothing
  static constexpr auto expected() { return py::detail::const_name("None"); }
  static PyObject* cast(std::monostate) { return Py_NewRef(Py_None); }
};

// ---- types and values as Python writes them ----

enum class direction { in, out };

// A parameter may take more than a result can be: pybind11's text for a type has both, and a place for the
// name of a registered class. One that is not registered yet is called by its C++ name, in quotes.
template <class T, direction Direction>
std::string type_name() {
  constexpr auto text = [] {
    constexpr auto expected = value<T>::expected();
    if constexpr (Direction == direction::in)
      return py::detail::arg_descr(expected);
    else
      return py::detail::return_descr(expected);
  }();
  const auto types = decltype(text)::types();
  py::detail::function_record nothing_special;
  std::size_t next_type = 0;
  std::size_t next_argument = 0;
  return py::detail::generate_function_signature(text.text, &nothing_special, types.data(), next_type,
                                                 next_argument);
}

inline bool is_expression(const std::string& text) {
  try {
    py::module_::import("builtins").attr("compile")(text, "", "eval");
    return true;
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;
    return false;
  }
}

// A caster may call its type what it likes.
inline std::string annotation(const std::string& type) {
  return is_expression(type) ? type : py::repr(py::str(type)).cast<std::string>();
}

// "..." where the repr of a default is no expression, as that of an enum's member.
inline std::string expression(const py::object& fallback) {
  const auto text = py::repr(fallback).cast<std::string>();
  return is_expression(text) ? text : "...";
}

// ---- binding a call's arguments to parameters ----

struct parameter {
  std::string name;
  py::object fallback;  // null: required
};

// A function's parameters, and the errors that name them. Texts follow Python's own.
class parameter_list {
 public:
  parameter_list(std::string function, std::vector<parameter> parameters, bool named)
      : function_(std::move(function)), parameters_(std::move(parameters)), named_(named) {}

  // Sorts the arguments of a vectorcall by parameter; borrowed references. Throws pybind11::type_error.
  template <std::size_t N>
  std::array<PyObject*, N> bind(PyObject* const* args, std::size_t nargs, PyObject* kwnames) const {
    std::array<PyObject*, N> bound{};
    if (nargs > N)
      throw py::type_error(function_ + "() takes " + std::to_string(N) + " argument" + (N == 1 ? "" : "s") +
                           " but " + std::to_string(nargs) + (nargs == 1 ? " was" : " were") + " given");
    if constexpr (N != 0) std::copy_n(args, nargs, bound.begin());
    if (kwnames != nullptr) bind_keywords(bound.data(), args + nargs, kwnames);
    for (std::size_t i = nargs; i < N; ++i) {
      if (bound[i] != nullptr) continue;
      if (!parameters_[i].fallback)
        throw py::type_error(function_ + "() missing required argument " + described(i));
      bound[i] = parameters_[i].fallback.ptr();
    }
    return bound;
  }

  [[noreturn]] void refuse(std::size_t i, conversion why, std::string_view expected, PyObject* given) const {
    const std::string argument = named(i);
    if (why == conversion::out_of_range) {
      PyErr_Format(PyExc_OverflowError, "%s is out of the range of its C++ type", argument.c_str());
      throw py::error_already_set();
    }
    throw py::type_error(argument + " must be " + std::string(expected) + ", not " + Py_TYPE(given)->tp_name);
  }

  // The same where a text cannot be converted, for this reason.
  [[noreturn]] void refuse_text(std::size_t i, const py::object& why) const {
    if (!py::isinstance(why, PyExc_UnicodeEncodeError)) refuse_value(i, py::str(why).cast<std::string>());
    why.attr("reason") = py::str("{}, in {}").format(why.attr("reason"), named(i));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(why.ptr())), why.ptr());
    throw py::error_already_set();
  }

  [[noreturn]] void refuse_value(std::size_t i, const std::string& why) const {
    throw py::value_error(named(i) + ": " + why);
  }

  const std::string& function() const noexcept { return function_; }

  template <std::size_t N>
  std::string signature(const std::array<std::string, N>& types, const std::string& result) const {
    std::string text = "(";
    for (std::size_t i = 0; i < N; ++i) {
      if (i != 0) text += ", ";
      text += parameters_[i].name + ": " + annotation(types[i]);
      if (parameters_[i].fallback) text += " = " + expression(parameters_[i].fallback);
    }
    if (N != 0 && !named_) text += ", /";
    return text + ") -> " + annotation(result);
  }

  // The values behind the '=' in the signature.
  py::tuple defaults() const {
    py::list found;
    for (const parameter& each : parameters_)
      if (each.fallback) found.append(each.fallback);
    return found;
  }

 private:
  std::string named(std::size_t i) const { return function_ + "() argument " + described(i); }

  std::string described(std::size_t i) const {
    return "'" + parameters_[i].name + "' (position " + std::to_string(i + 1) + ")";
  }

  void bind_keywords(PyObject** bound, PyObject* const* values, PyObject* kwnames) const {
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(kwnames); ++k) {
      PyObject* const given = PyTuple_GET_ITEM(kwnames, k);  // any text, which need not be UTF-8
      Py_ssize_t size = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(given, &size);
      PyErr_Clear();
      const std::string_view name(text != nullptr ? text : "", static_cast<std::size_t>(size));
      const auto known = std::find_if(parameters_.begin(), parameters_.end(), [&](const parameter& each) {
        return named_ && text != nullptr && each.name == name;
      });
      if (known == parameters_.end()) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function_.c_str(),
                     given);
        throw py::error_already_set();
      }
      PyObject*& slot = bound[known - parameters_.begin()];
      if (slot != nullptr)
        throw py::type_error(function_ + "() got multiple values for argument '" + known->name + "'");
      slot = values[k];
    }
  }

  std::string function_;
  std::vector<parameter> parameters_;
  bool named_;  // whether the author named them: only then may a caller
};

// ---- errors ----

inline void copy_text(char* to, std::size_t size, std::string_view from) noexcept {
  std::size_t n = std::min(from.size(), size - 1);
  // Not through the middle of a UTF-8 sequence.
  while (n < from.size() && n > 0 && (static_cast<unsigned char>(from[n]) & 0xC0U) == 0x80U) --n;
  std::memcpy(to, from.data(), n);
  to[n] = '\0';
}

inline void fill(offgil_error& error, int kind, const std::type_info* type, const char* message) noexcept {
  error.kind = kind;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> demangled(
      type == nullptr ? nullptr : abi::__cxa_demangle(type->name(), nullptr, nullptr, &status), &std::free);
  copy_text(error.type, sizeof error.type, demangled ? demangled.get() : type != nullptr ? type->name() : "");
  copy_text(error.message, sizeof error.message, message);
}

// Describes the exception that is being handled; pybind11's own mapping to Python exceptions. What a module
// registers with py::register_exception is not asked, as that needs the GIL.
inline void describe_current_exception(offgil_error& error) noexcept {
  try {
    throw;
  } catch (const py::value_error& e) {
    fill(error, OFFGIL_ERROR_VALUE, &typeid(e), e.what());
  } catch (const py::type_error& e) {
    fill(error, OFFGIL_ERROR_TYPE, &typeid(e), e.what());
  } catch (const py::index_error& e) {
    fill(error, OFFGIL_ERROR_INDEX, &typeid(e), e.what());
  } catch (const py::key_error& e) {
    fill(error, OFFGIL_ERROR_KEY, &typeid(e), e.what());
  } catch (const std::bad_alloc& e) {
    fill(error, OFFGIL_ERROR_MEMORY, &typeid(e), e.what());
  } catch (const std::domain_error& e) {
    fill(error, OFFGIL_ERROR_VALUE, &typeid(e), e.what());
  } catch (const std::invalid_argument& e) {
    fill(error, OFFGIL_ERROR_VALUE, &typeid(e), e.what());
  } catch (const std::length_error& e) {
    fill(error, OFFGIL_ERROR_VALUE, &typeid(e), e.what());
  } catch (const std::range_error& e) {
    fill(error, OFFGIL_ERROR_VALUE, &typeid(e), e.what());
  } catch (const std::out_of_range& e) {
    fill(error, OFFGIL_ERROR_INDEX, &typeid(e), e.what());
  } catch (const std::overflow_error& e) {
    fill(error, OFFGIL_ERROR_OVERFLOW, &typeid(e), e.what());
  } catch (const std::exception& e) {
    fill(error, OFFGIL_ERROR_RUNTIME, &typeid(e), e.what());
  } catch (...) {
    fill(error, OFFGIL_ERROR_NATIVE, abi::__cxa_current_exception_type(),
         "an exception that is no std::exception left the function");
  }
}

// ---- the function ----

// A compiler that stops here names the position and the type as this template's arguments.
template <std::size_t Position, class T>
struct check_parameter {
  static_assert(gil_free_parameter<T>,
                "offgil::def: this parameter (position and type stand in 'check_parameter<...>') may carry a "
                "Python object or refer to memory that the job does not own. Take a value: a number, a "
                "std::string, a container of such, or a type that you declare with offgil::enable_gil_free.");
  static constexpr bool ok = true;
};

template <class R>
struct check_result {
  static_assert(
      gil_free_result<R>,
      "offgil::def: the result's type may carry a Python object or refer to memory that the job does "
      "not own. Return a value.");
  static constexpr bool ok = true;
};

// One native function: an offgil_function with what it refers to. A job is a variant: first the arguments,
// then the result in their place.
template <class R, class... Args>
class function {
 public:
  using pointer = R (*)(Args...);
  using arguments = std::tuple<std::remove_cvref_t<Args>...>;
  using result = std::conditional_t<std::is_void_v<R>, std::monostate, R>;
  using job = std::variant<arguments, result>;
  static constexpr std::size_t arity = sizeof...(Args);

  static py::capsule make(const std::string& module, pointer body, parameter_list parameters,
                          std::string doc) {
    auto made = std::unique_ptr<function>(new function(module, body, std::move(parameters), std::move(doc)));
    offgil_function* const abi = &made->abi_;
    py::capsule owner(abi, OFFGIL_FUNCTION_CAPSULE, [](PyObject* capsule) {
      auto* dying = static_cast<offgil_function*>(PyCapsule_GetPointer(capsule, OFFGIL_FUNCTION_CAPSULE));
      dying->release(dying);
    });
    static_cast<void>(made.release());  // the capsule's
    return owner;
  }

 private:
  function(std::string module, pointer body, parameter_list parameters, std::string doc)
      : module_(std::move(module)),
        body_(body),
        parameters_(std::move(parameters)),
        signature_(parameters_.signature(type_names(), type_name<result, direction::out>())),
        doc_(std::move(doc)) {
    abi_.struct_size = sizeof abi_;
    abi_.abi_major = OFFGIL_ABI_MAJOR;
    abi_.abi_minor = OFFGIL_ABI_MINOR;
    abi_.release = [](offgil_function* self) {
      std::unique_ptr<function>(static_cast<function*>(self->context));
    };
    abi_.flags = OFFGIL_RUNS_WITHOUT_GIL;
    abi_.module = module_.c_str();
    abi_.name = parameters_.function().c_str();
    abi_.signature = signature_.c_str();
    abi_.doc = doc_.empty() ? nullptr : doc_.c_str();
    abi_.context = this;
    abi_.job_size = sizeof(job);
    abi_.job_alignment = alignof(job);
    abi_.prepare = &prepare;
    abi_.run = &run;
    abi_.finish = &finish;
    abi_.destroy = &destroy;
  }

  static std::array<std::string, arity> type_names() {
    return {type_name<std::remove_cvref_t<Args>, direction::in>()...};
  }

  static int prepare(void* context, void* memory, PyObject* const* args, std::size_t nargs,
                     PyObject* kwnames) noexcept {
    try {
      const auto& self = *static_cast<const function*>(context);
      const auto bound = self.parameters_.template bind<arity>(args, nargs, kwnames);
      ::new (memory) job(std::in_place_index<0>, self.load(bound, std::index_sequence_for<Args...>()));
      return 0;
    } catch (...) {
      py::detail::try_translate_exceptions();
    }
    return -1;
  }

  template <std::size_t... I>
  arguments load([[maybe_unused]] const std::array<PyObject*, arity>& bound,
                 std::index_sequence<I...>) const {
    return arguments{load_one<std::remove_cvref_t<Args>>(I, bound[I])...};
  }

  template <class T>
  T load_one(std::size_t i, PyObject* given) const {
    // Raw memory, because T need not have a default value.
    struct slot {
      alignas(T) std::array<std::byte, sizeof(T)> bytes;
      bool constructed = false;
      ~slot() {
        if (constructed) std::launder(reinterpret_cast<T*>(bytes.data()))->~T();
      }
    } made;
    const conversion outcome = load_into<T>(i, made.bytes.data(), given);
    if (outcome == conversion::wrong_type)
      if (const auto why = text_error<T>::in(given)) parameters_.refuse_text(i, why);
    if (outcome != conversion::done) parameters_.refuse(i, outcome, type_name<T, direction::in>(), given);
    made.constructed = true;
    return std::move(*std::launder(reinterpret_cast<T*>(made.bytes.data())));
  }

  template <class T>
  conversion load_into(std::size_t i, void* memory, PyObject* given) const try {
    return value<T>::load(given, memory);
  } catch (const py::value_error& e) {  // as of a text that is to be one character
    parameters_.refuse_value(i, e.what());
  }

  static int run(void* context, void* memory, const offgil_host* host, offgil_error* error) {
    const native_body mark(*host);
    auto& frame = *static_cast<job*>(memory);
    const pointer body = static_cast<const function*>(context)->body_;
    try {
      if constexpr (std::is_void_v<R>) {
        std::apply(body, std::move(std::get<0>(frame)));
        frame.template emplace<1>();
      } else {
        frame.template emplace<1>(std::apply(body, std::move(std::get<0>(frame))));
      }
      return 0;
    } catch (abi::__forced_unwind&) {
      throw;  // the thread is being cancelled: nobody may stop that
    } catch (...) {
      describe_current_exception(*error);
      return -1;
    }
  }

  static PyObject* finish(void*, void* memory) noexcept {
    try {
      return value<result>::cast(std::move(std::get<1>(*static_cast<job*>(memory))));
    } catch (...) {
      py::detail::try_translate_exceptions();
    }
    return nullptr;
  }

  static void destroy(void*, void* memory) noexcept {
    if constexpr (!std::is_trivially_destructible_v<job>) {
      const native_body mark(no_host);  // an argument's destructor may release the GIL as well
      static_cast<job*>(memory)->~job();
    }
  }

  offgil_function abi_{};
  std::string module_;
  pointer body_;
  parameter_list parameters_;
  std::string signature_;
  std::string doc_;
};

template <class T>
concept documentation = std::convertible_to<const T&, const char*>;

// Guards that mean nothing to a native function, which runs without the GIL anyway.
template <class T>
inline constexpr bool only_releases_gil = false;
template <>
inline constexpr bool only_releases_gil<py::gil_scoped_release> = true;
template <>
inline constexpr bool only_releases_gil<gil_release> = true;

template <class T>
inline constexpr bool any_call_guard = false;
template <class... Guards>
inline constexpr bool any_call_guard<py::call_guard<Guards...>> = true;
template <class T>
inline constexpr bool releasing_call_guard = false;
template <class... Guards>
inline constexpr bool releasing_call_guard<py::call_guard<Guards...>> = (only_releases_gil<Guards> && ...);

// What may stand behind the function in def(): its documentation, its parameters' names, and a py::call_guard
// that releases the GIL, as behind pybind11's.
struct description {
  std::string doc;
  std::vector<parameter> parameters;

  template <class Extra>
  void add(const Extra& extra) {
    static_assert(documentation<Extra> || std::derived_from<Extra, py::arg> || any_call_guard<Extra>,
                  "offgil::def: behind the function may stand its documentation, py::arg for each parameter, "
                  "and a py::call_guard that releases the GIL.");
    static_assert(!any_call_guard<Extra> || releasing_call_guard<Extra>,
                  "offgil::def: this py::call_guard does not just release the GIL, without which a native "
                  "function runs. Move it into the function: behind a py::gil_scoped_acquire, if it needs "
                  "the GIL.");
    if constexpr (documentation<Extra>)
      doc = extra;
    else if constexpr (std::derived_from<Extra, py::arg_v>)
      parameters.push_back({extra.name, extra.value});
    else if constexpr (std::derived_from<Extra, py::arg>)
      parameters.push_back({extra.name, py::object()});
  }
};

// A lambda without captures, which is as good as a function.
template <class Body>
concept captureless = requires(const Body& body) { requires std::is_pointer_v<decltype(+body)>; };

}  // namespace sdk

// Defines a native function in a module, as pybind11's `m.def` does: offgil::def(m, "fibonacci", &fibonacci,
// "Nth Fibonacci number", py::arg("n")). In a pool it runs on a worker that never holds the GIL; called
// directly it releases the GIL. Does not compile unless all parameters and the result are free of Python, see
// gil_free.hpp. Name all parameters or none; a py::arg may have a default.
//
// A standard exception that leaves the function becomes what pybind11 makes of it, as do py::value_error,
// type_error, index_error and key_error. One that is known by py::register_exception counts as the standard
// exception that it is derived from.
//
// Needs the GIL. Throws pybind11::error_already_set where offgil cannot be imported.
template <class R, class... Args, class... Extra>
void def(pybind11::module_& m, const char* name, R (*body)(Args...), const Extra&... extra) {
  [[maybe_unused]] constexpr bool proven = []<std::size_t... I>(std::index_sequence<I...>) {
    return (sdk::check_parameter<I + 1, Args>::ok && ...);
  }(std::index_sequence_for<Args...>()) && sdk::check_result<R>::ok;

  sdk::release_guard::learn();
  sdk::description described;
  (described.add(extra), ...);
  const bool named = !described.parameters.empty();
  if (named && described.parameters.size() != sizeof...(Args))
    throw std::invalid_argument(std::string("offgil::def: name all parameters of ") + name + " or none");
  while (described.parameters.size() < sizeof...(Args))
    described.parameters.push_back({"arg" + std::to_string(described.parameters.size()), pybind11::object()});

  const sdk::parameter_list parameters(name, std::move(described.parameters), named);
  auto capsule = sdk::function<R, Args...>::make(m.attr("__name__").template cast<std::string>(), body,
                                                 parameters, std::move(described.doc));
  m.attr(name) =
      pybind11::module_::import("offgil._core").attr("NativeFunction")(capsule, parameters.defaults());
}

// The same for a lambda without captures.
template <class Body, class... Extra>
  requires(!std::is_pointer_v<std::decay_t<Body>>)
void def(pybind11::module_& m, const char* name, const Body& body, const Extra&... extra) {
  static_assert(sdk::captureless<Body>,
                "offgil::def: this is neither a function nor a lambda without captures. What a lambda "
                "captures would be shared by all jobs: make it a parameter.");
  if constexpr (sdk::captureless<Body>) def(m, name, +body, extra...);
}

}  // namespace offgil
