/* abi.h - the frozen C contract between offgil and native functions from elsewhere.
 *
 * A plugin hands over one `offgil_function` per function, in a PyCapsule called OFFGIL_FUNCTION_CAPSULE. That
 * name never changes; versions stand inside. No C++ type, exception or allocator crosses the boundary, so the
 * plugin may be built with another compiler, standard library or pybind11, or be plain C11.
 *
 * The life of a job:
 *
 *   prepare   GIL held, submitter's thread      constructs the job from the call's arguments
 *   run       GIL NOT held, some other thread   the work; may not touch Python
 *   finish    GIL held, any thread              makes the Python result; only after a successful run
 *   destroy   see OFFGIL_DESTROY_NEEDS_GIL      exactly once for every prepared job, run or not
 *
 * The caller owns the memory of a job and of an error. Every struct begins with its size, and grows only at
 * its end; a reader takes what lies beyond the size for absent. */
#ifndef OFFGIL_ABI_H
#define OFFGIL_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OFFGIL_ABI_MAJOR 1
#define OFFGIL_ABI_MINOR 1
#define OFFGIL_FUNCTION_CAPSULE "offgil.function"

/* The same type as Python's PyObject, which this header need not know. */
struct _object;

/* Promise: `run` neither touches Python nor needs the GIL. A function without it is not accepted, because a C
 * signature cannot prove it. */
#define OFFGIL_RUNS_WITHOUT_GIL UINT64_C(1)
/* `destroy` releases Python objects. Without this flag it may be called on any thread, without the GIL. */
#define OFFGIL_DESTROY_NEEDS_GIL UINT64_C(2)

/* Which Python exception an error becomes. Unknown values count as OFFGIL_ERROR_NATIVE. */
enum offgil_error_kind {
  OFFGIL_ERROR_NATIVE = 0, /* offgil.NativeError, with the type's name */
  OFFGIL_ERROR_RUNTIME = 1,
  OFFGIL_ERROR_VALUE = 2,
  OFFGIL_ERROR_INDEX = 3,
  OFFGIL_ERROR_OVERFLOW = 4,
  OFFGIL_ERROR_MEMORY = 5,
  OFFGIL_ERROR_TYPE = 6,
  OFFGIL_ERROR_KEY = 7
};

/* Filled by `run` when it fails. Texts are UTF-8, ended by a zero byte, cut where they do not fit. */
typedef struct offgil_error {
  uint32_t struct_size;
  int32_t kind;
  char type[64]; /* of the exception, as its language calls it */
  char message[448];
} offgil_error;

/* What the pool offers to a running job. */
typedef struct offgil_host {
  uint32_t struct_size;
  uint32_t reserved; /* zero */
  /* Since 1.1: for a `run` that has taken the GIL, once for each time, on the thread that runs. Counts it in
   * the pool's figures. */
  void (*gil_acquired)(const struct offgil_host* host);
} offgil_host;

typedef struct offgil_function {
  /* Frozen for ever, in every major version: */
  uint32_t struct_size;
  uint16_t abi_major;
  uint16_t abi_minor;
  void (*release)(struct offgil_function* self); /* GIL held; null for static storage */

  uint64_t flags;
  /* Texts are UTF-8. */
  const char* module; /* `__module__`: where the function can be imported from */
  const char* name;
  const char* signature; /* as Python writes it: "(n: int, seconds: float = 0.5) -> int"; may be null */
  const char* doc;       /* may be null */
  void* context;         /* passed to each of the four below */

  size_t job_size; /* bytes a job takes; with its alignment, a power of two, PTRDIFF_MAX at most */
  size_t job_alignment;

  /* Vectorcall's convention: nargs positional arguments, then the values named by the tuple `kwnames` (may be
   * null). 0, or -1 with a Python exception set and nothing constructed. As with `finish`, an exception
   * beside a result, or neither, makes the call a SystemError. */
  int (*prepare)(void* context, void* job, struct _object* const* args, size_t nargs,
                 struct _object* kwnames);
  /* 0, or -1 with `error` filled. Must not throw. */
  int (*run)(void* context, void* job, const offgil_host* host, offgil_error* error);
  /* A new reference, or null with a Python exception set. */
  struct _object* (*finish)(void* context, void* job);
  void (*destroy)(void* context, void* job);
} offgil_function;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* OFFGIL_ABI_H */
