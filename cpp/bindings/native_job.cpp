// native_job.cpp - jobs that run a plugin's function.
#include "native_job.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "errors.hpp"
#include "fork.hpp"

namespace offgil::python {
namespace {

// Where a thread of a pool counts the times that it takes the GIL. In a forked child the pool may be gone.
struct counted_acquisitions {
  std::atomic<std::uint64_t>& total;
  process_generation counted_in;
};
thread_local std::optional<counted_acquisitions> acquisitions_of_this_thread;

void count_acquisition(const offgil_host*) noexcept {
  if (acquisitions_of_this_thread && !acquisitions_of_this_thread->counted_in.is_over())
    acquisitions_of_this_thread->total.fetch_add(1, std::memory_order_relaxed);
}

constexpr offgil_host the_host{
    .struct_size = sizeof(offgil_host), .reserved = 0, .gil_acquired = &count_acquisition};

// The storage of a job that lies elsewhere.
void*& elsewhere(bridge_job& j) noexcept { return *std::launder(reinterpret_cast<void**>(j.storage.data())); }

PyObject* exception_type(int kind) noexcept {
  switch (kind) {
    case OFFGIL_ERROR_RUNTIME:
      return PyExc_RuntimeError;
    case OFFGIL_ERROR_VALUE:
      return PyExc_ValueError;
    case OFFGIL_ERROR_INDEX:
      return PyExc_IndexError;
    case OFFGIL_ERROR_OVERFLOW:
      return PyExc_OverflowError;
    case OFFGIL_ERROR_MEMORY:
      return PyExc_MemoryError;
    case OFFGIL_ERROR_TYPE:
      return PyExc_TypeError;
    case OFFGIL_ERROR_KEY:
      return PyExc_KeyError;
    default:
      return exceptions::get().native_error;
  }
}

// A plugin's text may be cut, wrongly encoded or without an end; none may hide the error.
template <std::size_t size>
PyObject* decoded(const char (&text)[size]) noexcept {
  return PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(strnlen(text, size)), "replace");
}

// The message behind the name of the type, where a Python exception has no type of that name.
PyObject* native_message(const offgil_error& error, const char* function) noexcept {
  if (error.type[0] == '\0' && error.message[0] == '\0')
    return PyUnicode_FromFormat("%s() failed without an error message", function);
  if (error.type[0] == '\0') return decoded(error.message);
  PyObject* const type = decoded(error.type);
  PyObject* const message = decoded(error.message);
  PyObject* const both =
      type != nullptr && message != nullptr ? PyUnicode_FromFormat("%U: %U", type, message) : nullptr;
  Py_XDECREF(type);
  Py_XDECREF(message);
  return both;
}

void set_exception(const offgil_error& error, const char* function) noexcept {
  PyObject* const type = exception_type(error.kind);
  PyObject* const text =
      type == exceptions::get().native_error ? native_message(error, function) : decoded(error.message);
  if (text == nullptr) return;
  PyErr_SetObject(type, text);
  Py_DECREF(text);
}

// What CPython raises of a function that breaks the rules for exceptions: from the one that it has left.
void set_system_error(const char* function, const char* broken_rule) noexcept {
  const py::object left = take_raised();
  PyErr_Format(PyExc_SystemError, "%s(): %s", function, broken_rule);
  if (!left) return;
  py::object raised = take_raised();
  PyException_SetCause(raised.ptr(), Py_NewRef(left.ptr()));
  PyException_SetContext(raised.ptr(), Py_NewRef(left.ptr()));
  restore_raised(std::move(raised));
}

}  // namespace

void count_acquisitions_in(std::atomic<std::uint64_t>& acquisitions) noexcept {
  acquisitions_of_this_thread.emplace(acquisitions);
}

bool native_kind::is_stored_inline() const noexcept {
  return abi_.job_size <= bridge_job::storage_size && abi_.job_alignment <= bridge_job::storage_alignment;
}

void* native_kind::memory_of(bridge_job& j) const noexcept {
  return is_stored_inline() ? static_cast<void*>(j.storage.data()) : elsewhere(j);
}

void native_kind::free_memory(bridge_job& j) const noexcept {
  if (!is_stored_inline()) ::operator delete(elsewhere(j), std::align_val_t(abi_.job_alignment));
}

bool native_kind::prepare(bridge_job& j, PyObject* const* args, std::size_t nargs,
                          PyObject* kwnames) noexcept {
  if (!is_stored_inline()) {
    void* const memory = ::operator new(abi_.job_size, std::align_val_t(abi_.job_alignment), std::nothrow);
    if (memory == nullptr) return PyErr_NoMemory(), false;
    ::new (j.storage.data()) void*(memory);
  }
  const bool is_prepared = abi_.prepare(abi_.context, memory_of(j), args, nargs, kwnames) == 0;
  const bool has_raised = PyErr_Occurred() != nullptr;
  if (is_prepared && !has_raised) {
    j.kind = this;
    j.has_payload = true;
    Py_INCREF(function_);
    return true;
  }
  if (is_prepared) {
    set_system_error(abi_.name, "prepare() succeeded with an exception set");
    destroy(j);
  } else if (!has_raised) {
    set_system_error(abi_.name, "prepare() failed without setting an exception");
  }
  free_memory(j);
  return false;
}

bool native_kind::run(job& base) noexcept {
  auto& j = static_cast<bridge_job&>(base);
  offgil_error error{};
  error.struct_size = sizeof error;
  if (abi_.run(abi_.context, memory_of(j), &the_host, &error) == 0) return true;
  // Where there is no memory for the error, that is the error.
  j.error = ::new (std::nothrow) offgil_error(error);
  return false;
}

PyObject* native_kind::finish(bridge_job& j) noexcept {
  // In a direct call, of a function that has taken the GIL.
  const bool run_has_raised = PyErr_Occurred() != nullptr;
  if (!j.succeeded) return fail(j);
  if (run_has_raised) {
    set_system_error(abi_.name, "run() succeeded with an exception set");
    return nullptr;
  }
  PyObject* const result = abi_.finish(abi_.context, memory_of(j));
  const bool has_raised = PyErr_Occurred() != nullptr;
  if ((result == nullptr) == has_raised) return result;
  set_system_error(abi_.name, has_raised ? "finish() returned a result with an exception set"
                                         : "finish() gave neither a result nor an exception");
  const py::error_scope kept;
  Py_XDECREF(result);
  return nullptr;
}

PyObject* native_kind::fail(const bridge_job& j) const noexcept {
  const py::object left_by_run = take_raised();
  if (j.error != nullptr)
    set_exception(*j.error, abi_.name);
  else
    PyErr_NoMemory();
  py::object raised = take_raised();
  if (left_by_run) PyException_SetCause(raised.ptr(), Py_NewRef(left_by_run.ptr()));
  add_note(raised, std::string("in job ") + abi_.name);
  restore_raised(std::move(raised));
  return nullptr;
}

// What it leaves raised is reported like what a finalizer raises. An exception that is on its way stays.
void native_kind::destroy(bridge_job& j) noexcept {
  const py::error_scope kept;
  abi_.destroy(abi_.context, memory_of(j));
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(function_);
}

void native_kind::discard(bridge_job& j) noexcept {
  const auto alive = callable_of(j);  // the job may come back meanwhile, and let go of it
  destroy(j);
  free_memory(j);
  std::unique_ptr<offgil_error>(std::exchange(j.error, nullptr)).reset();
}

}  // namespace offgil::python
