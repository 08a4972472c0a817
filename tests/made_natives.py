"""A native function whose every phase the test decides, made through the C ABI by ctypes.

Scripts import it too, with PATH in their environment.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import offgil

# For a script that imports this.
PATH = {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}

_P = ctypes.c_void_p
_LIBC = ctypes.CDLL(None)
_capsule_of = ctypes.pythonapi.PyCapsule_New
_capsule_of.restype = ctypes.py_object
_capsule_of.argtypes = [_P, ctypes.c_char_p, _P]
_CAPSULE_NAME = b"offgil.function"

_RUNS_WITHOUT_GIL, _DESTROY_NEEDS_GIL = 1, 2
_JOB_SIZE = 8

_kept: list[Any] = []  # what the pool has pointers to
_numbers = itertools.count()


class _Function(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("major", ctypes.c_uint16),
        ("minor", ctypes.c_uint16),
        ("release", _P),
        ("flags", ctypes.c_uint64),
        ("module", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
        ("doc", ctypes.c_char_p),
        ("context", _P),
        ("job_size", ctypes.c_size_t),
        ("job_alignment", ctypes.c_size_t),
        ("prepare", _P),
        ("run", _P),
        ("finish", _P),
        ("destroy", _P),
    ]


def function_of(**fields: Any) -> offgil.NativeFunction:
    """Make a native function of the ABI's struct; phases that are not given do nothing."""
    own = made_phases(lambda: None, lambda: None)
    given: dict[str, Any] = {
        "struct_size": ctypes.sizeof(_Function),
        "major": 1,
        "flags": _RUNS_WITHOUT_GIL | _DESTROY_NEEDS_GIL,
        "module": b"made_natives",
        "name": b"made_%d" % next(_numbers),
        "job_size": _JOB_SIZE,
        "job_alignment": _JOB_SIZE,
        **{name: ctypes.cast(phase, _P) for name, phase in own.items()},
        # It gets the context first, a null pointer: abs() ends with 0, which is success.
        "run": ctypes.cast(_LIBC.abs, _P),
        **fields,
    }
    function = _Function(**given)
    _kept.append((own, given, function))
    capsule = _capsule_of(ctypes.addressof(function), _CAPSULE_NAME, None)
    return offgil.NativeFunction(capsule)  # type: ignore[call-arg]


def made_phases(finish: Callable[[], Any], destroy: Callable[[], None]) -> dict[str, Any]:
    """Make the phases that need Python."""
    prepare = ctypes.PYFUNCTYPE(ctypes.c_int, _P, _P, _P, ctypes.c_size_t, _P)
    return {
        "prepare": prepare(lambda *_: 0),
        "finish": ctypes.PYFUNCTYPE(ctypes.py_object, _P, _P)(lambda *_: finish()),
        "destroy": ctypes.PYFUNCTYPE(None, _P, _P)(lambda *_: destroy()),
    }


def made_native(
    *,
    finish: Callable[[], Any] = lambda: None,
    destroy: Callable[[], None] = lambda: None,
    crashes: bool = False,
) -> offgil.NativeFunction:
    """Make a native function that takes anything, and crashes if it is to.

    ``finish`` makes the result of a job, ``destroy`` is called for each job in the end.
    """
    phases = made_phases(finish, destroy)
    _kept.append(phases)
    run = _LIBC.strlen if crashes else _LIBC.abs  # of a null pointer
    return function_of(
        run=ctypes.cast(run, _P),
        **{name: ctypes.cast(phase, _P) for name, phase in phases.items()},
    )
