// python_job.cpp - jobs that run a Python callable.
#include "python_job.hpp"

#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "callable_name.hpp"
#include "errors.hpp"

namespace offgil::python {
namespace {

// What the storage holds. Before the run: the call. After it: the result or the exception in `outcome`.
struct call {
  PyObject* callable;   // owned, like the rest
  PyObject* arguments;  // tuple: positional, then the values of `names`
  PyObject* names;      // tuple, or null
  union {
    PyObject* context;  // null: the thread's own
    PyObject* outcome;
  };

  void release_arguments() noexcept {
    Py_CLEAR(callable);
    Py_CLEAR(arguments);
    Py_CLEAR(names);
  }
};
static_assert(sizeof(call) <= bridge_job::storage_size && alignof(call) <= bridge_job::storage_alignment);

call& call_of(bridge_job& j) noexcept { return *std::launder(reinterpret_cast<call*>(j.storage.data())); }

PyObject* tuple_of(PyObject* const* items, std::size_t count) noexcept {
  PyObject* const tuple = PyTuple_New(static_cast<Py_ssize_t>(count));
  if (tuple == nullptr) return nullptr;
  for (std::size_t i = 0; i < count; ++i)
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), Py_NewRef(items[i]));
  return tuple;
}

PyObject* invoke_here(const call& c) noexcept {
  const Py_ssize_t named = c.names == nullptr ? 0 : PyTuple_GET_SIZE(c.names);
  PyObject* const* const items = &PyTuple_GET_ITEM(c.arguments, 0);
  const auto positional = static_cast<std::size_t>(PyTuple_GET_SIZE(c.arguments) - named);
  return PyObject_Vectorcall(c.callable, items, positional, c.names);
}

PyObject* invoke(const call& c) noexcept {
  if (c.context == nullptr) return invoke_here(c);
  if (PyContext_Enter(c.context) != 0) return nullptr;
  PyObject* const result = invoke_here(c);
  if (result != nullptr) {
    if (PyContext_Exit(c.context) == 0) return result;
    Py_DECREF(result);
    return nullptr;
  }
  py::object raised = take_raised();
  if (PyContext_Exit(c.context) != 0) PyErr_Clear();
  restore_raised(std::move(raised));
  return nullptr;
}

// What stands for a callable's code: a bound method's function, a function's code, a C method's definition.
const void* code_of(PyObject* callable) noexcept {
  if (PyMethod_Check(callable)) callable = PyMethod_GET_FUNCTION(callable);
  if (PyFunction_Check(callable)) return PyFunction_GET_CODE(callable);
  if (PyCFunction_Check(callable)) return reinterpret_cast<PyCFunctionObject*>(callable)->m_ml;
  return Py_TYPE(callable);
}

}  // namespace

bool python_kind::prepare(bridge_job& j, PyObject* callable, PyObject* const* args, std::size_t nargs,
                          PyObject* kwnames, manners how) noexcept {
  const std::size_t named = kwnames == nullptr ? 0 : static_cast<std::size_t>(PyTuple_GET_SIZE(kwnames));
  PyObject* const arguments = tuple_of(args, nargs + named);
  if (arguments == nullptr) return false;
  PyObject* context = nullptr;
  if (how == manners::of_asyncio && (context = PyContext_CopyCurrent()) == nullptr) {
    Py_DECREF(arguments);
    return false;
  }
  ::new (j.storage.data()) call{Py_NewRef(callable), arguments, Py_XNewRef(kwnames), {context}};
  j.kind = this;
  j.has_payload = true;
  return true;
}

void python_kind::describe(const job& j, std::span<char> name) noexcept {
  const std::string whole = callable_name(callable_of(static_cast<const bridge_job&>(j)));
  constexpr std::string_view inside = "<locals>.";  // what stands before it may fill all there is room for
  const std::size_t local = whole.rfind(inside);
  copy_name(local == std::string::npos ? whole : whole.substr(local + inside.size()), name);
}

bool python_kind::run(job& base) noexcept {
  auto& j = static_cast<bridge_job&>(base);
  call& c = call_of(j);
  PyObject* const result = invoke(c);
  PyObject* const outcome = result != nullptr ? result : exception_of(j).release().ptr();
  c.release_arguments();
  Py_XDECREF(c.context);
  c.outcome = outcome;
  return result != nullptr;
}

PyObject* python_kind::finish(bridge_job& j) noexcept {
  call& c = call_of(j);
  PyObject* const outcome = std::exchange(c.outcome, nullptr);
  if (j.succeeded) return outcome;
  restore_raised(py::reinterpret_steal<py::object>(outcome));
  return nullptr;
}

void python_kind::discard(bridge_job& j) noexcept {
  call& c = call_of(j);
  c.release_arguments();
  Py_CLEAR(c.outcome);  // or the context
}

// Noted while the callable is still there to be named.
py::object python_kind::exception_of(const bridge_job& j) const noexcept {
  py::object raised = take_raised();
  const bool is_asyncio = std::launder(reinterpret_cast<const call*>(j.storage.data()))->context != nullptr;
  if (is_asyncio) add_note(raised, "in job " + callable_name(callable_of(j)));
  return raised;
}

py::object python_kind::callable_of(const bridge_job& j) const noexcept {
  // Of a job that runs or waits; what it leaves when it ends lies elsewhere in the storage.
  const call& c = *std::launder(reinterpret_cast<const call*>(j.storage.data()));
  return py::reinterpret_borrow<py::object>(c.callable);
}

python_kinds::python_kinds(gil_lane& lane) {
  for (auto& each : kinds_) each = std::make_unique<python_kind>(lane);
}

python_kind& python_kinds::of(PyObject* callable) noexcept {
  // Objects are aligned to 16 bytes, and neighbours differ in the bits above; Fibonacci hashing spreads them.
  const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(code_of(callable)));
  return *kinds_[((address >> 4U) * UINT64_C(0x9E3779B97F4A7C15)) >> 58U];
}

}  // namespace offgil::python
