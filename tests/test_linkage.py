"""What the extension module asks of the system, and what it shows to it."""

import re
import shutil
import subprocess
import sys

import pytest

import offgil._core

EXTENSION = offgil._core.__file__

# ELF only; binutils are there wherever the extension was compiled.
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("readelf") is None, reason="needs ELF and binutils"
)

ALLOWED_LIBRARIES = {"libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6"}
LOADER = re.compile(r"linux-vdso\.so\.1|(/\S*/)?ld-linux\S*")


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_loads_only_the_compilers_own_libraries():
    """No Boost, spdlog, fmt or libpython at run time: it runs where it was not built."""
    loaded = {line.split()[0] for line in output_of("ldd", EXTENSION).splitlines()}
    assert loaded, "ldd printed nothing"
    libraries = {name for name in loaded if not LOADER.fullmatch(name)}
    assert libraries <= ALLOWED_LIBRARIES


def test_has_no_run_path():
    """A run path would name folders of the machine that built it."""
    dynamic_section = output_of("readelf", "--dynamic", "--wide", EXTENSION)
    assert "RPATH" not in dynamic_section
    assert "RUNPATH" not in dynamic_section


def test_exports_only_its_init_function():
    """Another extension in the process may bring its own Boost or spdlog, undisturbed by ours.

    What remains are templates and type information of libraries that ask for default visibility.
    """
    functions, symbols = set(), set()
    for line in output_of("nm", "--dynamic", "--defined-only", EXTENSION).splitlines():
        _, kind, symbol = line.split()
        symbols.add(symbol)
        if kind == "T":
            functions.add(symbol)
    assert functions == {"PyInit__core"}
    assert not {symbol for symbol in symbols if re.search(r"6offgil|6spdlog", symbol)}
