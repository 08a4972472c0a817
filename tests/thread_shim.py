"""A library that makes pthread_create fail on demand, to be preloaded by a script."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

/* Fails the n-th pthread_create from now, and those after it when `all` is set. */
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


@pytest.fixture(scope="session")
def thread_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes pthread_create fail on demand."""
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"],
            check=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    return library
