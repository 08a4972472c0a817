// native_job.cpp - jobs that run a plugin's function.
#include "native_job.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "errors.hpp"

namespace offgil::python {
namespace {

thread_local std::atomic<std::uint64_t>* acquisitions_of_this_thread = nullptr;

void count_acquisition(const offgil_host*) noexcept {
  if (acquisitions_of_this_thread != nullptr)
    acquisitions_of_this_thread->fetch_add(1, std::memory_order_relaxed);
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
void set_exception(const offgil_error& error) noexcept {
  PyObject* const type = exception_type(error.kind);
  PyObject* text = PyUnicode_DecodeUTF8(
      error.message, static_cast<Py_ssize_t>(strnlen(error.message, sizeof error.message)), "replace");
  if (text != nullptr && type == exceptions::get().native_error) {
    PyObject* const plain = std::exchange(text, PyUnicode_FromFormat("%.64s: %U", error.type, text));
    Py_DECREF(plain);
  }
  if (text == nullptr) return;
  PyErr_SetObject(type, text);
  Py_DECREF(text);
}

}  // namespace

void count_acquisitions_in(std::atomic<std::uint64_t>& acquisitions) noexcept {
  acquisitions_of_this_thread = &acquisitions;
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
  if (abi_.prepare(abi_.context, memory_of(j), args, nargs, kwnames) != 0) {
    free_memory(j);
    return false;
  }
  j.kind = this;
  j.has_payload = true;
  Py_INCREF(function_);
  return true;
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
  if (j.succeeded) {
    PyObject* const result = abi_.finish(abi_.context, memory_of(j));
    if (result == nullptr && PyErr_Occurred() == nullptr)
      PyErr_Format(PyExc_SystemError, "%s gave neither a result nor an exception", abi_.name);
    return result;
  }
  if (j.error != nullptr)
    set_exception(*j.error);
  else
    PyErr_NoMemory();
  py::object raised = take_raised();
  add_note(raised, std::string("in job ") + abi_.name);
  restore_raised(std::move(raised));
  return nullptr;
}

void native_kind::discard(bridge_job& j) noexcept {
  const auto alive = callable_of(j);  // the job may come back meanwhile, and let go of it
  abi_.destroy(abi_.context, memory_of(j));
  free_memory(j);
  std::unique_ptr<offgil_error>(std::exchange(j.error, nullptr)).reset();
}

}  // namespace offgil::python
