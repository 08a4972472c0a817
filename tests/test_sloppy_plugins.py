"""Plugins in C that break the ABI's rules: the error of the call that did it, and of no other."""

from __future__ import annotations

import ctypes
import inspect
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_natives import function_of
from support import LIMIT

import offgil
from offgil import examples as ex

SOURCE = Path(__file__).parent / "sdk" / "sloppy.c"
PHASES = ("prepare", "run", "finish", "destroy")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """sloppy.c, compiled."""
    compiled = tmp_path_factory.mktemp("sloppy") / "sloppy.so"
    includes = [f"-I{offgil.get_include()}", f"-I{sysconfig.get_path('include')}"]
    try:
        subprocess.run(
            ["cc", "-std=c11", "-shared", "-fPIC", *includes, "-o", compiled, SOURCE],
            check=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    return ctypes.CDLL(str(compiled))


@pytest.fixture
def plugin(library: ctypes.CDLL) -> Callable[..., Any]:
    """Make a function of the phases that are named; the others obey the rules."""

    def make(**fields: Any) -> Any:
        chosen = {phase: fields.pop(phase, f"{phase}_well") for phase in PHASES}
        pointers = {
            phase: ctypes.cast(getattr(library, name), ctypes.c_void_p)
            for phase, name in chosen.items()
        }
        return function_of(name=b"sloppy", **pointers, **fields)

    return make


@pytest.fixture
def executor() -> Any:
    """One worker, so that what one job leaves behind meets the next one."""
    with offgil.ThreadPoolExecutor(1, "sloppy") as made:
        yield made


# How a function is called, and what becomes of it.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "direct": lambda executor, function: function(),
    "job": lambda executor, function: executor.submit(function).result(LIMIT),
}
both_ways = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def raised_by(call: Callable[[Any, Any], Any], executor: Any, function: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call(executor, function)
    nothing_is_left(executor)
    return caught.value


def nothing_is_left(executor: Any) -> None:
    """Calls of all sorts that come next are not touched."""
    assert ex.echo(1) == abs(-1) == 1
    assert executor.submit(ex.echo, 2).result(LIMIT) == executor.submit(abs, -2).result(LIMIT) == 2


# --------------------------------------------------------------------------------------------------
# an exception beside a result, or neither

BROKEN_RULES = [
    ({"prepare": "prepare_and_raise"}, "prepare() succeeded with an exception set", True),
    ({"prepare": "prepare_not"}, "prepare() failed without setting an exception", False),
    ({"finish": "finish_and_raise"}, "finish() returned a result with an exception set", True),
    ({"finish": "finish_not"}, "finish() gave neither a result nor an exception", False),
]


@both_ways
@pytest.mark.parametrize(("phases", "told", "leaves"), BROKEN_RULES)
def test_a_broken_rule_is_the_calls_own_error(
    plugin: Any, executor: Any, call: Any, phases: dict[str, str], told: str, leaves: bool
) -> None:
    """SystemError that names function and phase, from the exception that was left, if one was.

    It surfaced in the next call, whichever that was, or as pybind11's "Internal error".
    """
    error = raised_by(call, executor, plugin(**phases))
    assert type(error) is SystemError and str(error) == f"sloppy(): {told}"
    assert isinstance(error.__cause__, LookupError) == leaves
    if leaves:
        [phase] = phases
        assert error.__cause__.args == (f"left by {phase}",)


@both_ways
@pytest.mark.parametrize("phase", ["prepare", "finish"])
def test_an_exception_that_is_raised_by_the_rules(
    plugin: Any, executor: Any, call: Any, phase: str
) -> None:
    """It stays what it is."""
    error = raised_by(call, executor, plugin(**{phase: f"{phase}_refusing"}))
    assert type(error) is LookupError and error.args == (f"refused by {phase}",)
    assert error.__cause__ is None


@pytest.mark.parametrize("door", ["submit", "run", "to_thread"])
async def test_a_broken_rule_at_the_other_doors(plugin: Any, pool: offgil.Pool, door: str) -> None:
    """The same error; a job that was not prepared is not counted."""
    doors: dict[str, Any] = {"submit": pool.submit, "run": pool.run, "to_thread": offgil.to_thread}
    for phases, told, _ in BROKEN_RULES:
        with pytest.raises(SystemError) as caught:
            await doors[door](plugin(**phases))
        assert told in str(caught.value)
        assert await pool.submit(ex.echo, 1) == 1
    stats = pool.stats()
    assert stats.submitted == stats.completed + stats.failed


@pytest.mark.parametrize("phases", [phases for phases, *_ in BROKEN_RULES])
def test_what_was_prepared_is_destroyed_once(
    plugin: Any, library: ctypes.CDLL, executor: Any, phases: dict[str, str]
) -> None:
    """Also where prepare() has broken its rule; not where it says that it has made nothing."""
    for call in CALLS.values():
        before = library.count_destroyed()
        raised_by(call, executor, plugin(**phases))
        executor.submit(abs, 1).result(LIMIT)  # the job before it has come back
        made = phases.get("prepare") != "prepare_not"
        assert library.count_destroyed() == before + made


# --------------------------------------------------------------------------------------------------
# run(), which takes the GIL although it must not


def test_a_direct_run_that_leaves_an_exception(plugin: Any, executor: Any) -> None:
    """It is the call's: it was set beside the call's result."""
    error = raised_by(CALLS["direct"], executor, plugin(run="run_and_raise"))
    assert type(error) is SystemError
    assert str(error) == "sloppy(): run() succeeded with an exception set"
    assert isinstance(error.__cause__, LookupError)


def test_a_direct_run_that_raises_and_fails(plugin: Any, executor: Any) -> None:
    """What it has raised says more than the error that it has not filled."""
    error = raised_by(CALLS["direct"], executor, plugin(run="run_and_raise_and_fail"))
    assert type(error) is offgil.NativeError
    assert isinstance(error.__cause__, LookupError) and error.__cause__.args == ("left by run",)


@pytest.mark.parametrize("run", ["run_and_raise", "run_and_raise_and_fail"])
def test_what_a_job_leaves_on_its_thread(
    plugin: Any, executor: Any, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next Python job of that worker is not touched; what was left is reported."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    executor.submit(abs, 1).result(LIMIT)  # the worker has a thread state from here on
    future = executor.submit(plugin(run=run))
    assert isinstance(future.exception(LIMIT), offgil.NativeError) == (run != "run_and_raise")
    assert executor.submit(abs, -3).result(LIMIT) == 3
    assert [each.exc_type for each in told] == [LookupError]
    executor.submit(plugin(run=run)).exception(LIMIT)
    executor.shutdown()  # the worker ends without another Python job
    assert [each.exc_type for each in told] == [LookupError] * 2
    assert not [each for each in threading.enumerate() if each.name.startswith("sloppy")]


# --------------------------------------------------------------------------------------------------
# destroy()


@both_ways
@pytest.mark.parametrize("fails", [False, True])
def test_a_destroy_that_leaves_an_exception(
    plugin: Any, executor: Any, call: Any, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported like a finalizer's, and the call has its own result or error."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    finish = "finish_refusing" if fails else "finish_well"
    function = plugin(finish=finish, destroy="destroy_and_raise")
    if fails:
        assert raised_by(call, executor, function).args == ("refused by finish",)
    else:
        assert call(executor, function) == 7
        nothing_is_left(executor)
    assert [(each.exc_type, each.object) for each in told] == [(LookupError, function)]


def test_a_destroy_that_raises_where_a_job_is_withdrawn(
    plugin: Any, executor: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cancel() is not touched."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    held = executor.submit(gate)
    future = executor.submit(plugin(destroy="destroy_and_raise"))
    assert future.cancel() is True
    gate.open()
    held.result(LIMIT)
    assert [each.exc_type for each in told] == [LookupError]


# --------------------------------------------------------------------------------------------------
# the error that run() fills

FAILURES = [
    ("run_failing", "sloppy() failed without an error message"),
    ("run_failing_otherwise", "sloppy() failed without an error message"),
    ("run_without_type", "only a message"),
    ("run_of_unknown_kind", "strange: of no kind"),
    ("run_that_is_not_utf8", "str\ufffdnge: \ufffd\ufffdcaf\ufffd"),
    ("run_without_end", f"{'t' * 64}: {'m' * 448}"),
]


@both_ways
@pytest.mark.parametrize(("run", "text"), FAILURES)
def test_an_error_that_says_little(
    plugin: Any, executor: Any, call: Any, run: str, text: str
) -> None:
    """NativeError, with whatever can be read."""
    error = raised_by(call, executor, plugin(run=run))
    assert type(error) is offgil.NativeError and str(error) == text


@both_ways
def test_an_error_that_changes_its_size(plugin: Any, executor: Any, call: Any) -> None:
    """The size is the caller's word; the rest counts."""
    error = raised_by(call, executor, plugin(run="run_with_another_size"))
    assert type(error) is ValueError and str(error) == "of a size of its own"


# --------------------------------------------------------------------------------------------------
# sizes

MOST = 2**63 - 1  # of a pointer's difference
WRONG_SIZES = [
    *((2**64 - 1, 8), (2**64 - 8, 8), (2**64 - 1, 1), (2**64 - 7, 64), (2**63, 8), (MOST, 1)),
    *((8, 2**63), (0, 2**63), (MOST - 7, 8), (2**62, 2**62)),
]


@pytest.mark.parametrize(("size", "alignment"), WRONG_SIZES)
def test_a_size_that_no_memory_has(plugin: Any, size: int, alignment: int) -> None:
    """ImportError that says so; rounded up to the alignment, the size was nothing."""
    with pytest.raises(ImportError, match="job_size and job_alignment"):
        plugin(job_size=size, job_alignment=alignment)


@pytest.mark.parametrize("alignment", [0, 3, 24, 2**64 - 1])
def test_an_alignment_that_is_none(plugin: Any, alignment: int) -> None:
    """ImportError that says so."""
    with pytest.raises(ImportError, match="job_alignment is no power of two"):
        plugin(job_alignment=alignment)


@pytest.mark.parametrize(("size", "alignment"), [(2**62, 8), (8, 2**62), (2**61, 2**61)])
def test_a_size_that_cannot_be_had(plugin: Any, executor: Any, size: int, alignment: int) -> None:
    """MemoryError of each call, which leaves nothing behind."""
    function = plugin(job_size=size, job_alignment=alignment)
    for call in CALLS.values():
        assert type(raised_by(call, executor, function)) is MemoryError


@pytest.mark.parametrize("size", [0, 1, 7, 8, 31, 32, 33, 1000, 2**20 + 1])
@pytest.mark.parametrize("alignment", [1, 8, 64, 2**16])
def test_a_jobs_memory_is_as_large_as_was_said(
    plugin: Any, executor: Any, size: int, alignment: int
) -> None:
    """It is all written."""
    function = plugin(job_size=size, job_alignment=alignment, prepare="prepare_and_fill")
    assert function(size) == executor.submit(function, size).result(LIMIT) == 7


# --------------------------------------------------------------------------------------------------
# texts

NOT_UTF8 = b"caf\xe9"


@pytest.mark.parametrize("field", ["name", "module"])
def test_a_name_that_is_not_utf8(plugin: Any, field: str) -> None:
    """ImportError: it is what the function is found by."""
    with pytest.raises(ImportError, match="not UTF-8"):
        function_of(**{field: NOT_UTF8})


def test_a_text_that_is_not_utf8(plugin: Any) -> None:
    """A signature is none then; what is only read is shown as far as it can be."""
    function = plugin(signature=b"(x: caf\xe9) -> int", doc=NOT_UTF8)
    assert function.__doc__ == "caf\ufffd"
    assert repr(function) == "<NativeFunction made_natives.sloppy(x: caf\ufffd) -> int>"
    assert not hasattr(function, "__signature__")
    with pytest.raises(AttributeError, match="caf\ufffd"):
        _ = function.__signature__
    try:
        assert str(inspect.signature(function)) == "(*args, **kwargs)"  # from 3.13 on
    except ValueError:
        assert sys.version_info < (3, 13)
    assert function() == 7


@pytest.mark.parametrize(
    "signature",
    [b"", b"(", b"()", b"(x", b"x: int", b"(x=\xff)", b"(a, a)", b"(\x01)", b"(" * 5000],
)
def test_any_signature_is_one_or_none(plugin: Any, signature: bytes) -> None:
    """inspect never fails of itself."""
    function = plugin(signature=signature)
    repr(function)
    assert hasattr(function, "__signature__") == (signature == b"()")
