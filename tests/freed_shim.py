"""A library that makes the second release of a freed Python object crash, to be preloaded.

Usually it goes unnoticed: a freed object has no references left, and one less is -1.
"""

from __future__ import annotations

import subprocess

import pytest

SHIM = r"""
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


@pytest.fixture(scope="session")
def freed_shim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a script in which the second release of a freed object crashes."""
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "freed.c", folder / "freed.so"
    source.write_text(SHIM)
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, source],
            check=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    return {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
