// native_function.cpp - the Python type of a native function.
#include "native_function.hpp"

#include <structmember.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>

#include "errors.hpp"

namespace offgil::python {
namespace {

PyTypeObject* the_type = nullptr;  // kept for ever

// ---- acceptance of a plugin's function ----

std::string version(unsigned major, unsigned minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

// Everything up to the last member of version 1.0.
constexpr std::size_t smallest_struct = offsetof(offgil_function, destroy) + sizeof(offgil_function::destroy);

// Whether memory of that size and alignment can be asked for: an allocator adds them up.
bool is_size_of_memory(std::size_t size, std::size_t alignment) noexcept {
  constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();
  return alignment <= most && size <= most - alignment;
}

// A text of a plugin's, which may be wrongly encoded. Throws pybind11::error_already_set.
py::str decoded(const char* text, const char* errors) {
  PyObject* const made = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), errors);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

bool is_utf8(const char* text) {
  try {
    decoded(text, "strict");
    return true;
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_UnicodeDecodeError)) throw;
    return false;
  }
}

// Throws ImportError or TypeError unless the function can be called as this version of the contract says.
const offgil_function& accepted(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, OFFGIL_FUNCTION_CAPSULE) == 0)
    throw py::type_error(
        std::string("NativeFunction() needs a capsule called '" OFFGIL_FUNCTION_CAPSULE "', not ") +
        Py_TYPE(capsule)->tp_name);
  const auto& abi =
      *static_cast<const offgil_function*>(PyCapsule_GetPointer(capsule, OFFGIL_FUNCTION_CAPSULE));
  const std::string versions = " (the function has ABI " + version(abi.abi_major, abi.abi_minor) +
                               ", this offgil has " + version(OFFGIL_ABI_MAJOR, OFFGIL_ABI_MINOR) + ")";
  if (abi.abi_major != OFFGIL_ABI_MAJOR)
    throw py::import_error("the function was built for another major version of offgil's ABI" + versions);
  if (abi.struct_size < smallest_struct)
    throw py::import_error("the function's struct is too short for its ABI version" + versions);
  if (abi.module == nullptr || abi.name == nullptr || abi.prepare == nullptr || abi.run == nullptr ||
      abi.finish == nullptr || abi.destroy == nullptr)
    throw py::import_error("the function lacks a name or one of its entries" + versions);
  if (abi.job_alignment == 0 || (abi.job_alignment & (abi.job_alignment - 1)) != 0)
    throw py::import_error("the function's job_alignment is no power of two" + versions);
  if (!is_size_of_memory(abi.job_size, abi.job_alignment))
    throw py::import_error("the function's job_size and job_alignment are more than any memory" + versions);
  if (!is_utf8(abi.name) || !is_utf8(abi.module))
    throw py::import_error("the function's name, or its module's, is not UTF-8" + versions);
  if ((abi.flags & OFFGIL_RUNS_WITHOUT_GIL) == 0)
    throw py::type_error(std::string(abi.name) + " does not promise to run without the GIL");
  return abi;
}

// ---- slots ----

PyObject* call(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  native_kind& kind = native_function::of(self).kind;
  bridge_job j;
  if (!kind.prepare(j, args, static_cast<std::size_t>(PyVectorcall_NARGS(nargsf)), kwnames)) return nullptr;
  Py_BEGIN_ALLOW_THREADS;
  j.succeeded = kind.run(j);
  Py_END_ALLOW_THREADS;
  PyObject* const result = kind.finish(j);
  j.discard_payload();
  j.let_go_of_kind();
  return result;
}

void set_attribute(PyObject* attributes, const char* name, const char* text) {
  const auto value = text == nullptr ? py::object(py::none()) : py::object(decoded(text, "replace"));
  if (PyDict_SetItemString(attributes, name, value.ptr()) != 0) throw py::error_already_set();
}

PyObject* create(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    PyObject* capsule = nullptr;
    PyObject* defaults = nullptr;
    static const char* const names[] = {"capsule", "defaults", nullptr};
    if (PyArg_ParseTupleAndKeywords(args, kwargs, "O|O!:NativeFunction", const_cast<char**>(names), &capsule,
                                    &PyTuple_Type, &defaults) == 0)
      throw py::error_already_set();
    const offgil_function& abi = accepted(capsule);
    auto made = py::reinterpret_steal<py::object>(type->tp_alloc(type, 0));
    if (!made) throw py::error_already_set();
    auto& self = native_function::of(made.ptr());
    ::new (&self.kind) native_kind(abi, made.ptr());
    self.vectorcall = &call;
    self.capsule = Py_NewRef(capsule);
    self.defaults = defaults == nullptr ? PyTuple_New(0) : Py_NewRef(defaults);
    if (self.defaults == nullptr) throw py::error_already_set();
    self.attributes = PyDict_New();
    if (self.attributes == nullptr) throw py::error_already_set();
    set_attribute(self.attributes, "__module__", abi.module);
    set_attribute(self.attributes, "__name__", abi.name);
    set_attribute(self.attributes, "__qualname__", abi.name);
    set_attribute(self.attributes, "__doc__", abi.doc);
    return made.release().ptr();
  });
}

void destroy(PyObject* object) {
  auto& self = native_function::of(object);
  PyTypeObject* const type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  if (self.weak_references != nullptr) PyObject_ClearWeakRefs(object);
  std::destroy_at(&self.kind);
  Py_CLEAR(self.attributes);
  Py_CLEAR(self.defaults);
  Py_CLEAR(self.capsule);
  type->tp_free(object);
  Py_DECREF(type);
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  const auto& self = native_function::of(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self.capsule);
  Py_VISIT(self.defaults);
  Py_VISIT(self.attributes);
  return 0;
}

int clear(PyObject* object) {
  Py_CLEAR(native_function::of(object).attributes);
  return 0;
}

PyObject* represent(PyObject* object) {
  const offgil_function& abi = native_function::of(object).kind.abi();
  return PyUnicode_FromFormat("<NativeFunction %s.%s%s>", abi.module, abi.name,
                              abi.signature == nullptr ? "" : abi.signature);
}

// By name: the module is imported where the pickle is read, as for Python functions.
PyObject* reduce(PyObject* object, PyObject*) { return PyObject_GetAttrString(object, "__qualname__"); }

// `inspect` takes a missing attribute for "no signature", and anything else for a crash of its own.
PyObject* signature(PyObject* object, void*) {
  return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
    const auto& self = native_function::of(object);
    const char* const text = self.kind.abi().signature;
    if (text == nullptr) raise(PyExc_AttributeError, "__signature__");
    try {
      const auto parse = py::module_::import("offgil._signature").attr("parse");
      return parse(decoded(text, "strict"), py::handle(self.defaults)).release().ptr();
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_Exception)) throw;
      const auto shown = decoded(text, "replace").cast<std::string>();
      py::raise_from(e, PyExc_AttributeError, ("__signature__: this is none: " + shown).c_str());
      throw py::error_already_set();
    }
  });
}

int refuse_attribute(PyObject*, PyObject* name, PyObject*) {
  PyErr_Format(PyExc_AttributeError, "a native function's attributes are fixed: '%U'", name);
  return -1;
}

PyMethodDef methods[] = {{"__reduce__", &reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {{"__signature__", &signature, nullptr, nullptr, nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(native_function_fields, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(native_function_fields, attributes), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(native_function_fields, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

const char doc[] =
    "A C++ function that runs without the GIL. Submit it to a pool, or call it: a direct call releases the "
    "GIL.";

PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(&create)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                       {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                       {Py_tp_repr, reinterpret_cast<void*>(&represent)},
                       {Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                       {Py_tp_setattro, reinterpret_cast<void*>(&refuse_attribute)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {Py_tp_members, members},
                       {Py_tp_doc, const_cast<char*>(doc)},
                       {0, nullptr}};

PyType_Spec spec = {
    "offgil.NativeFunction", sizeof(native_function), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE, slots};

}  // namespace

bool native_function::check(PyObject* object) noexcept { return Py_TYPE(object) == the_type; }

void bind_native_function(py::module_& m) {
  PyObject* const type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  the_type = reinterpret_cast<PyTypeObject*>(type);
  m.add_object("NativeFunction", type);
}

}  // namespace offgil::python
