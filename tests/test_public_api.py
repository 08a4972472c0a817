"""What `import offgil` gives, and what it does not do."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import types
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path
from typing import Any

import pytest
from support import check_script, run_script

import offgil

PACKAGE = Path(offgil.__file__).parent

NAMES = {
    "AsyncioExecutor",
    "Histogram",
    "NativeError",
    "NativeFunction",
    "Pool",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolStats",
    "ThreadPoolExecutor",
    "get_include",
    "install",
    "to_thread",
}


def test_all_lists_what_is_public() -> None:
    """`__all__` holds every public name, each once, and each exists."""
    assert len(offgil.__all__) == len(set(offgil.__all__))
    assert set(offgil.__all__) >= NAMES
    public = {
        name
        for name, value in vars(offgil).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    exported = {name for name in offgil.__all__ if name != "__version__"}
    assert exported == public - {"annotations"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_things_say_that_they_are_offgils(name: str) -> None:
    """Their module is `offgil`, not the private one they happen to live in, and they have docs."""
    thing = getattr(offgil, name)
    assert thing.__module__ == "offgil"
    assert inspect.getdoc(thing)


def test_the_exceptions_form_one_family() -> None:
    """PoolError is a RuntimeError; closed, full and broken are PoolErrors.

    A broken pool is the standard library's, too.
    """
    assert offgil.PoolError.__bases__ == (RuntimeError,)
    for error in (offgil.PoolClosed, offgil.PoolFull):
        assert error.__bases__ == (offgil.PoolError,)
    assert offgil.PoolBroken.__bases__ == (offgil.PoolError, BrokenThreadPool)
    assert offgil.NativeError.__bases__ == (Exception,)


def test_the_stats_have_the_promised_fields() -> None:
    """Names that users' dashboards rely on."""
    import dataclasses

    assert {f.name for f in dataclasses.fields(offgil.PoolStats)} >= {
        "submitted",
        "completed",
        "failed",
        "cancelled",
        "expired",
        "pending",
        "running",
        "rejected",
        "dropped",
        "gil_acquisitions",
        "wakeups",
        "batches",
        "worker_busy_seconds",
        "wait_seconds",
        "run_seconds",
        "inline_wakeups",
        "forwarded_callbacks",
    }


def test_the_signatures_are_the_promised_ones() -> None:
    """Parameters of Pool and its methods: names, order, defaults."""

    def parameters(fn: Any) -> list[str]:
        return [
            str(p.replace(annotation=p.empty))
            for p in inspect.signature(fn).parameters.values()
            if p.name != "self"
        ]

    assert parameters(offgil.Pool) == [
        "workers=None",
        "name='offgil'",
        "max_pending=None",
        "nice=0",
        "spin=0.0",
        "delivery='auto'",
        "initializer=None",
        "initargs=()",
    ]
    for method in (offgil.Pool.submit, offgil.Pool.run):
        assert parameters(method) == ["fn", "*args", "**kwargs"]
    assert parameters(offgil.Pool.drain) == parameters(offgil.Pool.stats) == []
    assert parameters(offgil.Pool.aclose) == ["cancel_pending=False", "timeout=None"]
    for name in ("submit", "run", "drain", "aclose", "stats", "workers", "pending", "running"):
        assert inspect.getdoc(getattr(offgil.Pool, name)), name


def test_the_package_is_typed() -> None:
    """py.typed and the extension's stub are shipped with the package."""
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()


def test_the_headers_are_shipped() -> None:
    """The folder that get_include names has every public header, and nothing else."""
    shipped = {str(path) for path in Path(offgil.get_include()).rglob("*")}
    names = (
        "abi.h",
        "gil_free.hpp",
        "gil_release.hpp",
        "native_body.hpp",
        "sdk.hpp",
        "text_error.hpp",
    )
    folder = Path(offgil.get_include(), "offgil")
    assert shipped == {str(folder), *(str(folder / name) for name in names)}


def test_the_stub_names_what_the_extension_has() -> None:
    """Every public name and class attribute of the stub exists, and the other way round."""
    core = importlib.import_module("offgil._core")
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())

    def defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
        names: dict[str, ast.stmt] = {}
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names[node.target.id] = node
            elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call):
                names.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
        return {n: v for n, v in names.items() if not n.startswith("_")}

    stub = defined(tree.body)
    real = {n for n in vars(core) if not n.startswith("_")}
    assert set(stub) == real
    for name, node in stub.items():
        if isinstance(node, ast.ClassDef):
            members = set(defined(node.body))
            cls = getattr(core, name)
            assert members <= set(dir(cls)), name
            assert {n for n in vars(cls) if not n.startswith("_")} <= members, name


def test_import_has_no_observable_effect() -> None:
    """No thread, descriptor, handler, signal, filter, policy, output or logger with a handler."""
    out = check_script(
        """
        import asyncio, json, locale, logging, os, signal, sys, threading, warnings

        def state():
            return {
                "os threads": len(os.listdir("/proc/self/task")),
                "threads": [t.name for t in threading.enumerate()],
                "fds": sorted(os.listdir("/proc/self/fd")),
                "root": [repr(logging.root.handlers), logging.root.level],
                "handled": [
                    n for n, l in logging.Logger.manager.loggerDict.items()
                    if getattr(l, "handlers", None)
                ],
                "signals": [repr(signal.getsignal(s)) for s in signal.valid_signals()],
                "filters": repr(warnings.filters),
                "mask": repr(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                "policy": repr(asyncio.events._event_loop_policy),
                "switch": sys.getswitchinterval(),
                "recursion": sys.getrecursionlimit(),
                "hooks": [repr(sys.excepthook), repr(threading.excepthook)],
                "cwd": os.getcwd(),
                "environment": dict(os.environ),
                "umask": os.umask(os.umask(0)),
                "nice": os.nice(0),
                "locale": locale.setlocale(locale.LC_ALL),
                "path": sys.path,
            }

        import dataclasses, enum, inspect, typing, weakref
        before = state()
        import offgil, offgil.examples
        after = state()
        print(json.dumps({k: [before[k], after[k]] for k in before if before[k] != after[k]}))
        """
    )
    assert json.loads(out) == {}


def test_import_is_quick_and_light() -> None:
    """The extras' dependencies and test tools are not imported."""
    out = check_script(
        """
        import sys
        import offgil
        print(sorted({"rich", "uvloop", "numpy", "pytest", "multiprocessing"} & set(sys.modules)))
        """
    )
    assert out == "[]\n"


SPEAKING = """
    import asyncio, offgil
    from offgil.examples import sleep, spin

    async def main():
        async with offgil.Pool(2, name="probe") as pool:
            await asyncio.gather(*(pool.submit(spin, 0) for _ in range(200)))
            # The long one is expected to be short, and claimed with others when a sleep is over.
            sleeps = [pool.submit(sleep, 0.01) for _ in range(2)]
            await asyncio.gather(*(pool.submit(spin, 20_000 * (i == 0)) for i in range(50)))
            await asyncio.gather(*sleeps)

    asyncio.run(main())
"""


def test_the_engine_speaks_when_it_is_asked_to() -> None:
    """OFFGIL_LOG chooses how much is told on standard error; by default only trouble."""
    assert run_script(SPEAKING, OFFGIL_LOG="loud").stderr.count("none of debug, info, warn") == 1
    told = run_script(SPEAKING, OFFGIL_LOG="info").stderr.splitlines()
    assert [line.partition("] ")[2] for line in told] == [
        "pool 'probe' made with 2 workers",
        "pool 'probe' closed with 0 jobs waiting",
    ]
    assert "jobs that stood behind a longer one" in run_script(SPEAKING, OFFGIL_LOG="debug").stderr
    assert check_script(SPEAKING) == ""


def test_a_subinterpreter_is_refused() -> None:
    """The module says that it is for the main interpreter only, rather than breaking it."""
    done = run_script(
        """
        import importlib
        try:
            interpreters = importlib.import_module("_interpreters")
        except ImportError:
            interpreters = importlib.import_module("_xxsubinterpreters")
        import offgil

        second = interpreters.create()
        told = interpreters.run_string(second, "import offgil")
        if told is not None:  # 3.13 returns what earlier ones raise
            raise RuntimeError(told.formatted)
        """
    )
    assert done.returncode == 1
    assert "subinterpreter" in done.stderr.splitlines()[-1], done.stderr
