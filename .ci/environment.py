"""Virtual environments with offgil built and installed in them.

    python environment.py [extra ...]    brings .venv up to date, with these extras

An environment remembers what it was built from, so that asking again costs nothing while the
sources stand still. The build tools live in the environment itself and CMake's tree stays under
build/: after a change only what changed is compiled. Standard library only, since it runs before
anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
WARNING_FREE_GCC = "12"

# What the installed package is made of. Documents and by-products inside these do not count.
SOURCES = ("pyproject.toml", "CMakeLists.txt", "cmake", "cpp", "python")
NOT_SOURCES = {".lock", ".md", ".pyc", ".so"}

PROBE = """
import importlib.util, json, os, sys, sysconfig
lacks = [name for name in ("ensurepip", "venv") if importlib.util.find_spec(name) is None]
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    lacks.append("Python.h")
if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    lacks.append("the GIL")
identity = sys.version + sys.base_prefix
print(json.dumps([sys.version_info[:3], sys._base_executable, identity, lacks]))
"""


class Unusable(Exception):
    """An interpreter or an environment that cannot be used; the text says why."""


class Interpreter(NamedTuple):
    """A CPython that can build extensions."""

    version: tuple[int, int, int]
    executable: str  # of the installation, also when it was found through an environment
    identity: str
    launcher: tuple[str, ...] = ()  # stands before a command that is to run on its system

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def release(self) -> str:
        return ".".join(map(str, self.version))


def probe(command: str, launcher: tuple[str, ...] = ()) -> Interpreter:
    """Run an interpreter and see whether it can build and hold offgil; raises Unusable."""
    try:
        # Not from the project's folder: a version file there must not choose for a shim.
        done = subprocess.run(
            [*launcher, command, "-I", "-c", PROBE],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        version, executable, identity, lacks = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise Unusable(f"{command} does not run") from None
    if lacks:
        raise Unusable(f"{command} lacks {', '.join(lacks)}")
    major, minor, micro = version
    if (major, minor) < OLDEST:
        raise Unusable(f"{command} is Python {major}.{minor}, offgil needs 3.11 or newer")
    return Interpreter((major, minor, micro), executable, identity, launcher)


def python_of(venv: Path) -> Path:
    return venv / "bin" / "python"


def ensure(venv: Path, interpreter: Interpreter, extras: set[str]) -> None:
    """Make `venv` hold the current sources, built for `interpreter`, and at least these extras.

    Raises Unusable when a step fails; what the step printed is on the terminal by then.
    """
    state_file = venv / "offgil-build.json"
    state = _read_state(state_file)
    if not _belongs_to(venv, interpreter):
        _run([*interpreter.launcher, interpreter.executable, "-m", "venv", "--clear", str(venv)])
        state = {}

    wanted: dict[str, Any] = {
        "sources": fingerprint(*(ROOT / name for name in SOURCES)),
        "extras": sorted(extras.union(state.get("extras", []))),
    }
    if state == wanted and any(venv.glob("lib/python*/site-packages/offgil-*.dist-info")):
        return

    print(
        f"building offgil for Python {interpreter.release} in {venv.relative_to(ROOT)}"
        " (the first time takes a minute or two)",
        flush=True,
    )
    state_file.unlink(missing_ok=True)
    pip = [*interpreter.launcher, str(python_of(venv)), "-m", "pip", "install", "--quiet"]
    # First what offgil needs: where there is no wheel of something, it is built in isolation.
    build_requirements = _pyproject()["build-system"]["requires"]
    _run([*pip, *build_requirements, *requirements(wanted["extras"])])
    # Isolation would give pybind11 a new path at every build, and so compile everything anew.
    _run(
        [
            *pip,
            "--no-build-isolation",
            f"--config-settings=build-dir=build/python-{interpreter.minor}",
            *_warnings_as_errors(interpreter.launcher),
            ".",
        ]
    )
    state_file.write_text(json.dumps(wanted))


def jobs() -> int:
    """Compilers to run at once: the CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def _belongs_to(venv: Path, interpreter: Interpreter) -> bool:
    try:
        return probe(str(python_of(venv)), interpreter.launcher).identity == interpreter.identity
    except Unusable:
        return False


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return state


def fingerprint(*tops: Path) -> str:
    """Hash names and contents: times would miss a deleted file and take a checkout for a change."""
    digest = hashlib.sha256()
    for top in tops:
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.is_file() and file.suffix not in NOT_SOURCES:
                content = file.read_bytes()
                digest.update(f"{file.relative_to(ROOT)}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def requirements(extras: Iterable[str]) -> list[str]:
    """What these extras ask for, without offgil itself."""
    found: dict[str, None] = {}
    for extra in extras:
        for each in _pyproject()["project"]["optional-dependencies"][extra]:
            own = re.fullmatch(r"offgil\[([\w,]+)\]", each)
            found |= dict.fromkeys(requirements(own[1].split(",")) if own else [each])
    return list(found)


def _pyproject() -> dict[str, Any]:
    import tomllib  # here, so that an older Python gets as far as being told that it is one

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def warnings_are_errors(launcher: tuple[str, ...] = ()) -> bool:
    """In continuous integration, with the compiler that the sources are free of warnings with.

    Another one's new warning stops nobody.
    """
    if os.environ.get("CI") != "true":
        return False
    command = [*launcher, os.environ.get("CXX", "g++"), "-dumpversion"]
    try:
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return version.split(".")[0].strip() == WARNING_FREE_GCC


def _warnings_as_errors(launcher: tuple[str, ...]) -> list[str]:
    if not warnings_are_errors(launcher):
        return []
    return ["--config-settings=cmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON"]


def _run(command: list[str]) -> None:
    environment = {
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs()),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        **os.environ,
    }
    # These would let the caller's own interpreter settings into the environment.
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Unusable(f"failed: {' '.join(command)}")


def current() -> Interpreter:
    """The interpreter that runs this; raises Unusable with the way out."""
    try:
        return probe(sys.executable)
    except Unusable as problem:
        raise Unusable(f"{problem}; choose another one: make PYTHON=python3.13 ...") from None


def main() -> None:
    try:
        ensure(VENV, current(), set(sys.argv[1:]))
    except Unusable as problem:
        sys.exit(f"offgil: {problem}")


if __name__ == "__main__":
    main()
