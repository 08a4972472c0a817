/* sloppy.c - the phases of a native function, each breaking a rule of the ABI; see test_sloppy_plugins.py. */
#include <Python.h>
#include <string.h>

#include "offgil/abi.h"

static int destroyed;

int count_destroyed(void) { return destroyed; }

static void raise_it(const char* where) { PyErr_SetString(PyExc_LookupError, where); }

/* ---- prepare ---- */

int prepare_well(void* context, void* job, PyObject* const* args, size_t nargs, PyObject* names) { return 0; }

/* All of the job's memory is written. */
int prepare_and_fill(void* context, void* job, PyObject* const* args, size_t nargs, PyObject* names) {
  memset(job, 1, PyLong_AsSize_t(args[0]));
  return 0;
}

int prepare_and_raise(void* context, void* job, PyObject* const* args, size_t nargs, PyObject* names) {
  raise_it("left by prepare");
  return 0;
}

int prepare_not(void* context, void* job, PyObject* const* args, size_t nargs, PyObject* names) { return -1; }

int prepare_refusing(void* context, void* job, PyObject* const* args, size_t nargs, PyObject* names) {
  raise_it("refused by prepare");
  return -1;
}

/* ---- run ---- */

int run_well(void* context, void* job, const offgil_host* host, offgil_error* error) { return 0; }

int run_and_raise(void* context, void* job, const offgil_host* host, offgil_error* error) {
  PyGILState_STATE state = PyGILState_Ensure();
  raise_it("left by run");
  PyGILState_Release(state);
  return 0;
}

int run_and_raise_and_fail(void* context, void* job, const offgil_host* host, offgil_error* error) {
  run_and_raise(context, job, host, error);
  return -1;
}

int run_failing(void* context, void* job, const offgil_host* host, offgil_error* error) { return -1; }

int run_failing_otherwise(void* context, void* job, const offgil_host* host, offgil_error* error) {
  return 17;
}

static int fail(offgil_error* error, int kind, const char* type, const char* message) {
  error->kind = kind;
  strcpy(error->type, type);
  strcpy(error->message, message);
  return -1;
}

int run_without_type(void* context, void* job, const offgil_host* host, offgil_error* error) {
  return fail(error, OFFGIL_ERROR_NATIVE, "", "only a message");
}

int run_of_unknown_kind(void* context, void* job, const offgil_host* host, offgil_error* error) {
  return fail(error, -99, "strange", "of no kind");
}

int run_that_is_not_utf8(void* context, void* job, const offgil_host* host, offgil_error* error) {
  return fail(error, OFFGIL_ERROR_NATIVE, "str\xffnge",
              "\xff\xfe"
              "caf\xe9");
}

int run_without_end(void* context, void* job, const offgil_host* host, offgil_error* error) {
  memset(error->type, 't', sizeof error->type);
  memset(error->message, 'm', sizeof error->message);
  return -1;
}

int run_with_another_size(void* context, void* job, const offgil_host* host, offgil_error* error) {
  error->struct_size = 0xffffffffu;
  return fail(error, OFFGIL_ERROR_VALUE, "type", "of a size of its own");
}

/* ---- finish ---- */

PyObject* finish_well(void* context, void* job) { return PyLong_FromLong(7); }

PyObject* finish_and_raise(void* context, void* job) {
  raise_it("left by finish");
  return PyLong_FromLong(7);
}

PyObject* finish_not(void* context, void* job) { return NULL; }

PyObject* finish_refusing(void* context, void* job) {
  raise_it("refused by finish");
  return NULL;
}

/* ---- destroy ---- */

void destroy_well(void* context, void* job) { ++destroyed; }

void destroy_and_raise(void* context, void* job) {
  ++destroyed;
  raise_it("left by destroy");
}
