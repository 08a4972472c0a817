"""CPython's own executor tests, taken from an interpreter's standard library at run time.

In a recent interpreter they are the package test.test_concurrent_futures; 3.11.7 and 3.12.1, for
example, are installed without it. There the single file of an older release takes its place: it
is looked for beside this interpreter and among pyenv's. Standard library only, and nothing here
imports offgil: a script of the tests must be able to do that at its own moment.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "test.test_concurrent_futures"
PARTS = ("thread_pool", "shutdown", "wait", "as_completed", "init", "future")
STANDARD_IMPORT = "from concurrent.futures import ThreadPoolExecutor"
OUR_IMPORT = "from offgil import ThreadPoolExecutor"
# What goes before the text of a script, so that it finds the module where it was found here.
PREPARE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cpython_suite\n"


class NotFound(Exception):
    """No interpreter here has the tests; the text says where they were looked for."""


def load() -> list[ModuleType]:
    """Import the modules that hold the tests; raises NotFound."""
    try:
        package = importlib.import_module(NAME)
    except ModuleNotFoundError:
        return [_load_file(_find_file())]
    if not hasattr(package, "__path__"):
        return [package]
    return [importlib.import_module(f"{NAME}.test_{part}") for part in PARTS]


def origin(modules: list[ModuleType]) -> str:
    """Say where the tests come from."""
    return str(Path(modules[0].__file__ or ".").parent if len(modules) > 1 else modules[0].__file__)


def run_scripts_with_ours(module: ModuleType) -> None:
    """Make the scripts that a module's tests start import our executor."""
    standard = getattr(module, "assert_python_ok", None)
    if standard is None:
        return

    def assert_python_ok(*args: str, **env: Any) -> Any:
        *options, script = args
        if STANDARD_IMPORT not in script:
            raise AssertionError(f"the script does not say {STANDARD_IMPORT!r}:\n{script}")
        return standard(*options, script.replace(STANDARD_IMPORT, OUR_IMPORT), **env)

    module.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def let_scripts_find_the_file(module: ModuleType) -> None:
    """Make the scripts that a module's tests start load the module by its path, too."""
    standard = module.assert_python_ok

    def assert_python_ok(*args: str, **env: Any) -> Any:
        *options, script = args
        return standard(*options, f"{PREPARE}cpython_suite.load()\n{script}", **env)

    module.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def _load_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    let_scripts_find_the_file(module)
    return module


def _find_file() -> Path:
    """Find the newest single file that this interpreter or pyenv has."""
    beside = Path(sys.base_prefix).parent
    roots = {Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions"), beside}
    # Not from before 3.9: `shutdown(cancel_futures=)` is newer.
    wanted = [f"*/lib/python3.{minor}/test/test_concurrent_futures.py" for minor in (11, 10, 9)]
    for pattern in wanted:
        for root in sorted(roots):
            found = sorted(root.glob(pattern))
            if found:
                return found[-1]
    raise NotFound(
        f"this Python has no {NAME}, and neither has one in {', '.join(map(str, sorted(roots)))}; "
        "install a CPython from source, for example with: pyenv install 3.13"
    )
