// gil_free.hpp - the compile-time proof that a type carries no Python object.
#pragma once

#include <array>
#include <chrono>
#include <complex>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace offgil {

// The author's own word for a type that the list below does not know: specialise it as true for a type that
// neither owns nor refers to Python objects, nor to memory that its job does not own.
template <class T>
inline constexpr bool enable_gil_free = false;

// C++ cannot look into a type, so this is a closed list: what is not known to be free of Python is refused.
// Pointers, references and views are, because what they point at may be gone, or change, while the job runs.
template <class T>
struct is_gil_free : std::bool_constant<std::is_arithmetic_v<T> || std::is_enum_v<T> || enable_gil_free<T>> {
};

template <class T>
inline constexpr bool is_gil_free_v = is_gil_free<T>::value;

template <>
struct is_gil_free<std::monostate> : std::true_type {};
template <>
struct is_gil_free<std::nullopt_t> : std::true_type {};
template <>
struct is_gil_free<std::filesystem::path> : std::true_type {};
template <class C, class Traits>
struct is_gil_free<std::basic_string<C, Traits>> : std::true_type {};
template <class T>
struct is_gil_free<std::complex<T>> : is_gil_free<T> {};
template <class Rep, class Period>
struct is_gil_free<std::chrono::duration<Rep, Period>> : is_gil_free<Rep> {};
template <class Clock, class Duration>
struct is_gil_free<std::chrono::time_point<Clock, Duration>> : is_gil_free<Duration> {};
template <class T>
struct is_gil_free<std::optional<T>> : is_gil_free<T> {};
template <class T, std::size_t N>
struct is_gil_free<std::array<T, N>> : is_gil_free<T> {};
template <class T>
struct is_gil_free<std::vector<T>> : is_gil_free<T> {};
template <class... T>
struct is_gil_free<std::tuple<T...>> : std::bool_constant<(is_gil_free_v<T> && ...)> {};
template <class... T>
struct is_gil_free<std::variant<T...>> : std::bool_constant<(is_gil_free_v<T> && ...)> {};
template <class A, class B>
struct is_gil_free<std::pair<A, B>> : std::bool_constant<is_gil_free_v<A> && is_gil_free_v<B>> {};
template <class K, class V>
struct is_gil_free<std::map<K, V>> : std::bool_constant<is_gil_free_v<K> && is_gil_free_v<V>> {};
template <class K, class V>
struct is_gil_free<std::unordered_map<K, V>> : std::bool_constant<is_gil_free_v<K> && is_gil_free_v<V>> {};
template <class K>
struct is_gil_free<std::set<K>> : is_gil_free<K> {};
template <class K>
struct is_gil_free<std::unordered_set<K>> : is_gil_free<K> {};

// What a job may keep.
template <class T>
concept gil_free = is_gil_free_v<T>;

// What a native function may take: such a value, or a reference to const, which is bound to the job's own
// copy.
template <class T>
concept gil_free_parameter = gil_free<std::remove_cvref_t<T>> &&
                             (!std::is_reference_v<T> ||
                              (std::is_lvalue_reference_v<T> && std::is_const_v<std::remove_reference_t<T>>));

// What it may return.
template <class T>
concept gil_free_result = std::is_void_v<T> || gil_free<T>;

}  // namespace offgil
