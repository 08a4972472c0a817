"""Libraries that a script preloads, to have something of the C library's go wrong, or slowly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

# Fails the n-th pthread_create from now, and those after it when `all` is set.
FEW_THREADS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_int left, all_after;
void fail_thread(int n, int all) { all_after = all; left = n; }

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (!real) real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
      dlsym(RTLD_NEXT, "pthread_create");
  int now = left;
  if (now > 0) {
    if (now == 1 && all_after) return EAGAIN;
    left = now - 1;
    if (now == 1) return EAGAIN;
  }
  return real(t, a, fn, arg);
}
"""

# The second release of a freed Python object crashes. Usually it goes unnoticed: a freed object has
# no references left, and one less is -1.
FREED = r"""
#define _GNU_SOURCE
#include <malloc.h>
#include <stddef.h>

extern void __libc_free(void *);

/* A collectable object begins behind 16 bytes of the collector's, and up to 16 of its dict's. What
   was freed has one reference again, and no type: who gives that back meets a null pointer. */
void free(void *p) {
  size_t *word = p;
  size_t words = p ? malloc_usable_size(p) / sizeof *word : 0;
  if (words >= 4) word[2] = 1, word[3] = 0;
  if (words >= 6) word[4] = 1, word[5] = 0;
  __libc_free(p);
}
"""

# Threads whose names end in $SLOW keep the interpreter's inner locks for 5 ms each time.
SLOW_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int sem_post(sem_t *semaphore) {
  static int (*real)(sem_t *);
  if (!real) real = (int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_post");
  const char *slow = getenv("SLOW");
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof name);
  if (slow && strlen(name) >= strlen(slow) && !strcmp(name + strlen(name) - strlen(slow), slow))
    nanosleep(&(struct timespec){0, 5000000}, NULL);
  return real(semaphore);
}
"""


def preload(factory: pytest.TempPathFactory, source: str) -> str:
    """Compile a library and return its path, for LD_PRELOAD."""
    folder = factory.mktemp("shim")
    code, library = folder / "shim.c", folder / "shim.so"
    code.write_text(source)
    flags = ["-shared", "-fPIC", "-O1", "-fno-builtin"]
    try:
        subprocess.run(
            ["cc", *flags, "-o", library, code, "-ldl", "-lpthread"], check=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    return str(library)


@pytest.fixture(scope="session")
def thread_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes pthread_create fail on demand."""
    return Path(preload(tmp_path_factory, FEW_THREADS))


@pytest.fixture(scope="session")
def freed_shim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a script in which the second release of a freed object crashes."""
    return {"LD_PRELOAD": preload(tmp_path_factory, FREED), "PYTHONMALLOC": "malloc"}


@pytest.fixture(scope="session")
def slow_locks_shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library with which the threads that $SLOW names are slow to leave Python's inner locks."""
    return preload(tmp_path_factory, SLOW_LOCKS)
