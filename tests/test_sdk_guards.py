"""Bodies that release and take the GIL, as those of plain pybind11 do: on workers and directly.

A body that began with `py::gil_scoped_release` ended the process, by an assertion or by Python's
fatal error; and no acquisition was counted.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdk_project import COMPILE_LIMIT, NEEDS_COMPILER, SOURCES, build, load, snippet
from support import LIMIT, check_balance, run_script

import offgil

pytestmark = NEEDS_COMPILER

# What README's CMakeLists.txt does before it comes to its module.
BEGINNING = snippet("cmake").partition("pybind11_add_module")[0]

# A module of two files that include the SDK, and a static library without.
# Everything is pybind11's default, interprocedural optimisation included.
PROJECT = f"""
string(TOLOWER guarded_${{CMAKE_BUILD_TYPE}} module)
add_library(guard_library STATIC {SOURCES}/guard_library.cpp)
set_target_properties(guard_library PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(guard_library PRIVATE pybind11::pybind11 Python::Module)
pybind11_add_module(${{module}} {SOURCES}/guarded.cpp {SOURCES}/guarded_more.cpp)
target_compile_features(${{module}} PRIVATE cxx_std_20)
target_include_directories(${{module}} PRIVATE ${{offgil}})
target_compile_definitions(${{module}} PRIVATE GUARDED=${{module}})
target_compile_options(${{module}} PRIVATE -Wall -Wextra -Wconversion -Werror)
target_link_libraries(${{module}} PRIVATE guard_library)
"""

# How often each takes the GIL on a worker.
ACQUISITIONS = {
    "release": 0,
    "acquire": 1,
    "release_around_acquire": 1,
    "acquire_around_release": 2,
    "all_in_turn": 3,
    "library_release": 0,
    "library_acquire": 1,
    "library_in_the_c_api": 2,
    "through_python": 2,
    "call_guard": 0,
    "call_guards": 0,
    "takes_slow": 0,
    "gives_slow": 0,
}


@pytest.fixture(scope="module", params=["Debug", "Release"])
def guarded_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's file, with assertions and without."""
    folder = tmp_path_factory.mktemp("guards")
    (folder / "CMakeLists.txt").write_text(BEGINNING + PROJECT)
    name = f"guarded_{request.param.lower()}"
    [file] = build(folder, name, build_type=request.param).glob(f"{name}.*.so")
    return file


@pytest.fixture
def guarded(guarded_file: Path) -> Any:
    """The module guarded.cpp."""
    return load(guarded_file.parent, guarded_file.name.partition(".")[0])


@pytest.fixture
async def one_worker() -> Any:
    """A pool with one worker, of which no other thread takes the GIL."""
    async with offgil.Pool(1, delivery="eventfd") as pool:
        yield pool
        check_balance(pool)


def has_assertions(module: Any) -> bool:
    return str(module.__name__).endswith("debug")


# --------------------------------------------------------------------------------------------------
# results and counts


@pytest.mark.parametrize("name", ACQUISITIONS)
async def test_a_body_may_release_and_take_the_gil(
    guarded: Any, one_worker: offgil.Pool, name: str
) -> None:
    """In every nesting, on a worker and directly; each taking of it on a worker is counted."""
    body = getattr(guarded, name)
    assert [body(x) for x in range(3)] == [1, 2, 3]
    for x in range(1, 4):
        assert await one_worker.submit(body, x) == x + 1
        assert one_worker.stats().gil_acquisitions == x * ACQUISITIONS[name]


@pytest.mark.parametrize("name", ACQUISITIONS)
async def test_a_worker_may_have_a_thread_state(
    guarded: Any, one_worker: offgil.Pool, name: str
) -> None:
    """Python callables and such bodies take turns, and what is local to the thread stays."""
    local = threading.local()

    def remember() -> object:
        return local.__dict__.setdefault("value", object())

    value = await one_worker.submit(remember)
    for turn in range(1, 4):
        assert await one_worker.submit(getattr(guarded, name), turn) == turn + 1
        assert await one_worker.submit(remember) is value
        assert one_worker.stats().gil_acquisitions == 1 + turn * (1 + ACQUISITIONS[name])


async def test_many_at_once(guarded: Any) -> None:
    """Every result is right and every taking counted, whoever else wants the GIL."""
    names = random.Random(7).choices(list(ACQUISITIONS), k=2000)
    async with offgil.Pool(4, delivery="eventfd") as pool:
        results = await asyncio.gather(
            *(pool.submit(getattr(guarded, name), x) for x, name in enumerate(names))
        )
        assert results == list(range(1, 2001))
        expected = sum(ACQUISITIONS[name] * n for name, n in Counter(names).items())
        assert pool.stats().gil_acquisitions == expected


async def test_python_code_on_a_worker_may_call_one(guarded: Any, one_worker: offgil.Pool) -> None:
    """What the body takes counts in the pool whose thread it is."""
    assert await one_worker.submit(lambda: guarded.release_around_acquire(1)) == 2
    assert one_worker.stats().gil_acquisitions == 2, "the callable's own, and the body's"


def test_executors_count_too(guarded: Any) -> None:
    """The same on the executor door."""
    with offgil.ThreadPoolExecutor(1) as executor:
        assert executor.submit(guarded.acquire_around_release, 1).result(LIMIT) == 2
        assert executor.stats().gil_acquisitions == 2


# --------------------------------------------------------------------------------------------------
# bodies that go wrong


async def test_a_body_may_throw_while_it_holds_the_gil(
    guarded: Any, one_worker: offgil.Pool
) -> None:
    """The scopes are left, and the job fails as any; Python's exceptions are told in words."""
    for name, error, words in (
        ("throws_while_holding", IndexError, "while holding"),
        ("raises", RuntimeError, "TypeError: 'str' object cannot be interpreted as an integer"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            getattr(guarded, name)(1)
        for _ in range(2):
            with pytest.raises(error, match=re.escape(words)):
                await one_worker.submit(getattr(guarded, name), 1)
            assert await one_worker.submit(guarded.acquire, 1) == 2
            assert await one_worker.submit(len, "x") == 1


async def test_an_exception_left_behind_is_nobody_elses(
    guarded: Any, one_worker: offgil.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that leaves one set: it surfaced in the worker's next Python job. It is reported."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    assert await one_worker.submit(len, "x") == 1
    assert await one_worker.submit(guarded.leaves_an_exception, 1) == 2
    assert await one_worker.submit(sorted, [2, 1]) == [1, 2]
    assert len(told) == 1
    with pytest.raises(SystemError):  # as from any C function
        guarded.leaves_an_exception(1)


async def test_reference_counts_are_still_watched(
    guarded: Any, one_worker: offgil.Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pybind11's check, where there are assertions, is not told that the GIL is held."""
    for question in (guarded.asks, guarded.holds):
        assert question(1) is False is await one_worker.submit(question, 1)
    if not has_assertions(guarded):
        return
    with pytest.raises(RuntimeError, match="PyGILState_Check"):
        guarded.counts_without_the_gil(1)
    with pytest.raises(RuntimeError, match="PyGILState_Check"):
        await one_worker.submit(guarded.counts_without_the_gil, 1)
    assert "while the GIL is either not held or invalid" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------
# the rest of the module, and of the process

PRELUDE = """
    import importlib.util, resource, sys, threading
    import offgil, offgil.examples as ex

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def load(file):
        name = file.rpartition("/")[2].partition(".")[0]
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    module = load(sys.argv[1])
"""


async def test_plain_functions_run_as_ever(guarded: Any, guarded_file: Path) -> None:
    """Those that m.def has made, with or without a guard: of the same body, in the same module."""
    async with offgil.Pool(1, delivery="eventfd") as pool:
        for name in ("plainly", "plainly_in_the_library", "plainly_guarded"):
            assert getattr(guarded, name)(1) == await pool.submit(getattr(guarded, name), 1) == 2
        assert pool.stats().gil_acquisitions == 3
    done = run_script(
        PRELUDE + "    module.plainly_twice(1)", str(guarded_file), PYTHONFAULTHANDLER=""
    )
    deaths = (-signal.SIGABRT, -signal.SIGSEGV)  # the second from 3.12 on, without assertions
    assert done.returncode in deaths, "to release it twice is fatal there"
    assert "offgil: " not in done.stderr


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs binutils")
def test_the_module_shows_none_of_its_functions(guarded_file: Path) -> None:
    """Other modules and the interpreter go on to call Python's."""
    command = ["nm", "--dynamic", "--defined-only", str(guarded_file)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT)
    assert "PyInit_guarded" in shown.stdout
    assert not re.search(r" (Py(Eval|GIL)\w*|__assert_fail)$", shown.stdout, re.MULTILINE)


# Native code cannot be told apart there: what asks is not a function of its own.
OPTIMISED_WITH_ASSERTIONS = f"""
pybind11_add_module(asserting {SOURCES}/asserting.cpp)
target_compile_features(asserting PRIVATE cxx_std_20)
target_include_directories(asserting PRIVATE ${{offgil}})
target_compile_options(asserting PRIVATE -O2 -UNDEBUG)
"""


def test_an_optimised_build_with_assertions_says_what_to_do(tmp_path: Path) -> None:
    """The process dies by the assertion, after one sentence; a gil_release works there too."""
    (tmp_path / "CMakeLists.txt").write_text(BEGINNING + OPTIMISED_WITH_ASSERTIONS)
    folder = build(tmp_path, "asserting", build_type="Release")
    asserting = load(folder, "asserting")
    assert asserting.ours(1) == 2
    [file] = folder.glob("asserting.*.so")
    done = run_script(PRELUDE + "    module.release(1)", str(file), PYTHONFAULTHANDLER="")
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.startswith("offgil: ")
    assert "needs a build with NDEBUG defined, or without optimisation" in done.stderr
    assert "PyGILState_Check" in done.stderr, "pybind11's own words follow"


# --------------------------------------------------------------------------------------------------
# another offgil


class OldHost(ctypes.Structure):
    """An offgil_host of ABI 1.0, with something else behind it."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("not_its_own", ctypes.c_void_p),
    ]


class NewHost(ctypes.Structure):
    """An offgil_host of ABI 1.1 or later."""

    ACQUIRED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("gil_acquired", ACQUIRED),
        ("of_a_later_version", ctypes.c_void_p),
    ]


class Error(ctypes.Structure):
    """An offgil_error."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("kind", ctypes.c_int32),
        ("type", ctypes.c_char * 64),
        ("message", ctypes.c_char * 448),
    ]


class NativeABI(ctypes.Structure):
    """An offgil_function."""

    _P = ctypes.c_void_p
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("major", ctypes.c_uint16),
        ("minor", ctypes.c_uint16),
        ("release", _P),
        ("flags", ctypes.c_uint64),
        *((name, ctypes.c_char_p) for name in ("module", "name", "signature", "doc")),
        ("context", _P),
        ("job_size", ctypes.c_size_t),
        ("job_alignment", ctypes.c_size_t),
        ("prepare", ctypes.PYFUNCTYPE(ctypes.c_int, _P, _P, _P, ctypes.c_size_t, _P)),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, _P, _P)),
        ("finish", ctypes.PYFUNCTYPE(ctypes.py_object, _P, _P)),
        ("destroy", ctypes.CFUNCTYPE(None, _P, _P)),
    ]


def run_under(host: ctypes.Structure, function: Any) -> None:
    """Run a job of the function, made by the SDK, as an offgil with that host would."""
    capsule = next(
        each for each in gc.get_referents(function) if type(each).__name__ == "PyCapsule"
    )
    of_capsule = ctypes.pythonapi.PyCapsule_GetPointer
    of_capsule.restype, of_capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    abi = NativeABI.from_address(of_capsule(capsule, b"offgil.function"))
    assert (abi.major, abi.minor) == (1, 1)
    memory = ctypes.create_string_buffer(abi.job_size + abi.job_alignment)
    job = ctypes.addressof(memory)
    job += -job % abi.job_alignment
    one = (ctypes.py_object * 1)(1)
    assert abi.prepare(abi.context, job, one, 1, None) == 0
    error = Error(struct_size=ctypes.sizeof(Error))
    assert abi.run(abi.context, job, ctypes.byref(host), ctypes.byref(error)) == 0
    assert abi.finish(abi.context, job) == 2
    abi.destroy(abi.context, job)


def test_a_host_hears_of_acquisitions_from_abi_1_1_on(guarded: Any) -> None:
    """An older offgil's host ends before the function that would be told: nothing is called."""
    run_under(OldHost(struct_size=8, not_its_own=1), guarded.acquire_around_release)
    heard: list[int] = []
    acquired: Callable[[int], None] = heard.append
    host = NewHost(struct_size=ctypes.sizeof(NewHost), gil_acquired=NewHost.ACQUIRED(acquired))
    run_under(host, guarded.acquire_around_release)
    assert heard == [ctypes.addressof(host)] * 2


def test_a_job_may_be_destroyed_without_the_gil(guarded: Any) -> None:
    """As the ABI allows, also where what it carries releases the GIL to go away."""
    for name in ("takes_slow", "gives_slow"):
        run_under(OldHost(struct_size=8), getattr(guarded, name))


# --------------------------------------------------------------------------------------------------
# the end

AT_EXIT = (
    PRELUDE
    + """
    def tell(future):  # several at once, perhaps: print() would write a line in two pieces
        sys.stdout.write(f"{future.result()}\\n")

    executor = offgil.ThreadPoolExecutor(2)
    for _ in range(50):
        executor.submit(ex.sleep, 0.001)
        executor.submit(module.all_in_turn, 1).add_done_callback(tell)
"""
)


def test_bodies_may_take_the_gil_while_the_exit_waits_for_them(guarded_file: Path) -> None:
    """Jobs that wait when the program ends run as those that want no GIL do."""
    done = run_script(AT_EXIT, str(guarded_file))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == "2\n" * 50


KILLED = (
    PRELUDE
    + """
    body = getattr(module, sys.argv[2])

    def call_for_ever():
        while True:
            body(1)
            started.set()

    for _ in range(4):
        started = threading.Event()
        threading.Thread(target=call_for_ever, daemon=True).start()
        started.wait()
    raise ZeroDivisionError("the end")
"""
)


@pytest.mark.timeout(2 * COMPILE_LIMIT + 120)
@pytest.mark.parametrize("name", ["acquire", "acquire_around_release", "library_in_the_c_api"])
def test_a_daemon_thread_may_be_killed_inside_a_body(guarded_file: Path, name: str) -> None:
    """It wants the GIL back while Python finalizes: the exit goes on without it."""
    for _ in range(5):
        done = run_script(KILLED, str(guarded_file), name)
        assert done.returncode == 1, done
        assert done.stderr.splitlines()[-1] == "ZeroDivisionError: the end", done


SUBINTERPRETER = (
    PRELUDE
    + """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    interpreters.destroy(interpreters.create())

    with offgil.ThreadPoolExecutor(1) as executor:
        for call in (lambda f, x: f(x), lambda f, x: executor.submit(f, x).result()):
            assert call(module.release, 1) == call(module.all_in_turn, 1) == 2
            assert not call(module.holds, 1)
    assert ex.recurse_release(3) == 3
    print("well")
"""
)


def test_a_process_may_have_had_a_subinterpreter(guarded_file: Path) -> None:
    """PyGILState_Check() answers yes to everybody then, and offgil::gil_release believed it."""
    done = run_script(SUBINTERPRETER, str(guarded_file))
    assert (done.returncode, done.stdout) == (0, "well\n"), done
