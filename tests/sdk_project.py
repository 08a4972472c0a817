"""A stranger's project: README's CMakeLists.txt, C++ of the tests, built as its user would."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

try:
    import pybind11
except ImportError:
    pybind11 = None  # type: ignore[assignment]

SOURCES = Path(__file__).parent / "sdk"
README = (Path(__file__).parent.parent / "README.md").read_text()
COMPILE_LIMIT = 300.0  # seconds, of a compiler that shares a busy machine

NEEDS_COMPILER = [
    # Wherever offgil was compiled they are there, but for pybind11 where pip built in isolation.
    pytest.mark.skipif(
        pybind11 is None or shutil.which("cmake") is None, reason="needs pybind11 and CMake"
    ),
    pytest.mark.timeout(2 * COMPILE_LIMIT + 60),  # the first of them waits for the compiler
]


def snippet(language: str) -> str:
    """Return README's only snippet in that language."""
    [found] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def build(folder: Path, *targets: str, build_type: str) -> Path:
    """Build what the CMakeLists.txt in the folder says; return where the modules are."""
    made = folder / "build"
    _run(
        *("cmake", "-S", str(folder), "-B", str(made), f"-DCMAKE_BUILD_TYPE={build_type}"),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    )
    wanted = ("--target", *targets) if targets else ()
    _run("cmake", "--build", str(made), *wanted)
    return made


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMPILE_LIMIT,
    )
    assert done.returncode == 0, done.stdout


def load(folder: Path, name: str) -> Any:
    """Import the module of that name from the folder, once."""
    if name not in sys.modules:
        [file] = folder.glob(f"{name}.*.so")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
