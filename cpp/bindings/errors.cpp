// errors.cpp - the exceptions of offgil, and what an exception in flight looks like.
#include "errors.hpp"

namespace offgil::python {
namespace {

exceptions the_exceptions{};

// Kept for ever: exceptions may be raised until the interpreter is gone.
PyObject* define(py::module_& m, const char* name, PyObject* base, const char* doc) {
  PyObject* made = PyErr_NewExceptionWithDoc((std::string("offgil.") + name).c_str(), doc, base, nullptr);
  if (made == nullptr) throw py::error_already_set();
  m.add_object(name, made);
  return made;
}

// Of any sort. An exception object that any number of jobs raise, in any order, keeps a traceback that can be
// read, and a raise costs a bounded number of comparisons.
constexpr Py_ssize_t most_notes = 16;

bool lacks_note(const py::object& exception, const py::object& note) noexcept {
  const auto notes = py::reinterpret_steal<py::object>(PyObject_GetAttrString(exception.ptr(), "__notes__"));
  PyErr_Clear();  // there are none, as a rule
  if (!notes || PyList_Check(notes.ptr()) == 0) return true;
  const Py_ssize_t count = PyList_GET_SIZE(notes.ptr());
  if (count >= most_notes) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const each = PyList_GET_ITEM(notes.ptr(), i);
    if (PyUnicode_Check(each) && PyUnicode_Compare(each, note.ptr()) == 0) return false;
  }
  return true;
}

}  // namespace

const exceptions& exceptions::get() noexcept { return the_exceptions; }

void raise(PyObject* type, const std::string& message) {
  PyErr_SetString(type, message.c_str());
  throw py::error_already_set();
}

py::object take_raised() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
  return py::reinterpret_steal<py::object>(PyErr_GetRaisedException());
#else
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  if (type == nullptr) return {};
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return py::reinterpret_steal<py::object>(value);
#endif
}

void restore_raised(py::object exception) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(exception.release().ptr());
#else
  PyObject* const value = exception.release().ptr();
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value))), value,
                PyException_GetTraceback(value));
#endif
}

bool clear_if_done_already() noexcept {
  if (PyErr_ExceptionMatches(exceptions::get().invalid_state) == 0) return false;
  PyErr_Clear();
  return true;
}

// OSError finds the subclass that belongs to an errno.
void set_os_error(const std::system_error& e) noexcept {
  PyObject* const arguments = Py_BuildValue("(is)", e.code().value(), e.what());
  if (arguments == nullptr) return;
  PyErr_SetObject(PyExc_OSError, arguments);
  Py_DECREF(arguments);
}

void add_note(const py::object& exception, const std::string& note) noexcept {
  const auto text = py::reinterpret_steal<py::object>(PyUnicode_FromString(note.c_str()));
  if (text && lacks_note(exception, text)) {
    PyObject* const done = PyObject_CallMethod(exception.ptr(), "add_note", "O", text.ptr());
    Py_XDECREF(done);
  }
  PyErr_Clear();  // an exception class may refuse; its exception matters more
}

void log_exception(const char* level, const char* message, const py::object& about,
                   const py::object& exception) noexcept {
  guarded(0, [&] {
    const auto logger = py::module_::import("logging").attr("getLogger")("concurrent.futures");
    const auto log = logger.attr(level);
    about ? log(message, about, py::arg("exc_info") = exception)
          : log(message, py::arg("exc_info") = exception);
    return 0;
  });
  PyErr_Clear();
}

void bind_errors(py::module_& m) {
  const auto executor_errors = py::module_::import("concurrent.futures.thread");
  exceptions& all = the_exceptions;
  all.pool_error = define(m, "PoolError", PyExc_RuntimeError, "Base of what a pool raises about itself.");
  all.pool_closed = define(m, "PoolClosed", all.pool_error, "The pool has been closed; make a new one.");
  all.pool_full =
      define(m, "PoolFull", all.pool_error, "max_pending jobs wait already; use run(), or submit later.");
  const auto broken = py::make_tuple(py::handle(all.pool_error), executor_errors.attr("BrokenThreadPool"));
  all.pool_broken =
      define(m, "PoolBroken", broken.ptr(),
             "The pool's threads are of no use: they stayed behind in a fork, or an initializer "
             "failed; make a new pool.");
  all.native_error = define(m, "NativeError", PyExc_Exception,
                            "A native function threw something that has no counterpart in Python.");
  const auto asyncio = py::module_::import("asyncio");
  all.cancelled = asyncio.attr("CancelledError").cast<py::object>().release().ptr();
  all.invalid_state = asyncio.attr("InvalidStateError").cast<py::object>().release().ptr();
  const auto futures = py::module_::import("concurrent.futures");
  all.future_cancelled = futures.attr("CancelledError").cast<py::object>().release().ptr();
  all.future_invalid_state = futures.attr("InvalidStateError").cast<py::object>().release().ptr();
}

}  // namespace offgil::python
