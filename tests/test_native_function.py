"""offgil.NativeFunction: called directly or as a job, it is a function like any other."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import sys
import threading
import time
from typing import Any

import pytest
from support import LIMIT, check_balance, check_script

import offgil
from offgil import examples as ex

NATIVES = [
    *(ex.echo, ex.fibonacci, ex.expensive, ex.expensive_guarded, ex.spin, ex.sleep, ex.fail),
    ex.gil_held,
]
IDS = [f.__name__ for f in NATIVES]

# --------------------------------------------------------------------------------------------------
# as an object


@pytest.mark.parametrize("fn", NATIVES, ids=IDS)
def test_it_describes_itself(fn: Any) -> None:
    """Name, module, docstring, signature and repr are those of a function."""
    assert isinstance(fn, offgil.NativeFunction)
    assert fn.__name__ == fn.__qualname__
    assert fn.__module__ == "offgil.examples"
    assert getattr(sys.modules[fn.__module__], fn.__name__) is fn
    assert fn.__doc__ and inspect.getdoc(fn)
    assert isinstance(fn.__signature__, inspect.Signature)
    assert inspect.signature(fn) == fn.__signature__
    assert fn.__name__ in repr(fn) and "NativeFunction" in repr(fn)
    assert callable(fn)


@pytest.mark.parametrize(
    ("fn", "names"),
    [
        (ex.echo, ["x"]),
        (ex.fibonacci, ["n"]),
        (ex.expensive, ["n", "seconds"]),
        (ex.expensive_guarded, ["n", "seconds"]),
        (ex.spin, ["microseconds"]),
        (ex.sleep, ["seconds"]),
        (ex.fail, ["kind"]),
        (ex.gil_held, []),
    ],
    ids=IDS,
)
def test_its_signature_names_the_parameters(fn: Any, names: list[str]) -> None:
    """inspect.signature gives the names that keywords may use."""
    assert list(inspect.signature(fn).parameters) == names


@pytest.mark.parametrize("fn", NATIVES, ids=IDS)
def test_it_is_pickled_by_its_name(fn: Any) -> None:
    """A pickle of every protocol, and a copy, give back the very same object."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(fn, protocol)) is fn
    assert copy.copy(fn) is fn and copy.deepcopy(fn) is fn


def test_a_pickle_loads_in_another_process() -> None:
    """A process that has not imported offgil yet can load one and call it."""
    out = check_script(
        """
        import pickle, sys
        print(pickle.loads(bytes.fromhex(sys.argv[1]))(5))
        """,
        pickle.dumps(ex.echo).hex(),
    )
    assert out == "5\n"


def test_it_cannot_be_made_or_changed_by_hand() -> None:
    """NativeFunction() raises TypeError; the type is final; a function stays hashable."""
    with pytest.raises(TypeError):
        offgil.NativeFunction()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        type("Sub", (offgil.NativeFunction,), {})
    with pytest.raises((AttributeError, TypeError)):
        ex.echo.__name__ = "other"
    assert len({ex.echo, ex.echo, ex.fibonacci}) == 2


# --------------------------------------------------------------------------------------------------
# called directly


def test_a_direct_call_gives_the_result() -> None:
    """Positional and keyword arguments, at the edges of their C++ types."""
    for x in (0, 1, -1, 2**63 - 1, -(2**63)):
        assert ex.echo(x) == x and ex.echo(x=x) == x
    assert [ex.fibonacci(n) for n in range(11)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55]
    assert ex.fibonacci(93) == 12200160415121876738, "the largest that fits"
    assert ex.sleep(0) is None  # type: ignore[func-returns-value]
    assert ex.spin(microseconds=1) == 1
    assert ex.expensive(10, 0) == ex.expensive(seconds=0.0, n=10)


async def test_a_job_gives_what_a_direct_call_gives(pool: offgil.Pool) -> None:
    """The pool changes where a function runs, not what it returns."""
    for fn, args in ((ex.fibonacci, (80,)), (ex.expensive, (1000, 0.0)), (ex.echo, (-3,))):
        assert await pool.submit(fn, *args) == fn(*args)


def test_a_direct_call_releases_the_gil() -> None:
    """While a native runs in one thread, Python runs in another."""
    assert ex.gil_held() is False
    go, ran = threading.Event(), threading.Event()

    def other() -> None:
        go.wait(LIMIT)
        ran.set()

    thread = threading.Thread(target=other)
    thread.start()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(LIMIT)  # nobody is made to hand over the GIL
    try:
        go.set()
        for _ in range(1000):
            if ran.is_set():
                break
            ex.sleep(0.001)
        else:
            pytest.fail("the native kept the GIL")
    finally:
        sys.setswitchinterval(switch)
        thread.join(LIMIT)


async def test_a_job_never_holds_the_gil(pool: offgil.Pool) -> None:
    """PyGILState_Check() is 0 inside a native job, on every worker, every time."""
    assert await asyncio.gather(*(pool.submit(ex.gil_held) for _ in range(500))) == [False] * 500


async def test_natives_run_while_the_gil_is_held_elsewhere(pool: offgil.Pool) -> None:
    """Jobs end although the loop's thread never lets the GIL go."""
    futures = [pool.submit(ex.echo, i) for i in range(200)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(LIMIT)
    give_up = time.monotonic() + 5
    try:
        while pool.pending or pool.running:  # no call in here releases the GIL
            assert time.monotonic() < give_up, "the jobs waited for the GIL"
    finally:
        sys.setswitchinterval(switch)
    assert await asyncio.gather(*futures) == list(range(200))


# --------------------------------------------------------------------------------------------------
# arguments


class Index:
    """An object whose __index__ fails."""

    def __index__(self) -> int:
        raise LookupError("from __index__")


BAD_ARGUMENTS: list[tuple[Any, tuple[Any, ...], dict[str, Any], type[Exception], list[str]]] = [
    # wrong type: function and parameter are named
    (ex.echo, ("1",), {}, TypeError, ["echo()", "'x'"]),
    (ex.echo, (None,), {}, TypeError, ["echo()", "'x'"]),
    (ex.echo, (1.5,), {}, TypeError, ["echo()", "'x'"]),
    (ex.echo, (1.0,), {}, TypeError, ["echo()", "'x'"]),
    (ex.echo, ([],), {}, TypeError, ["echo()", "'x'"]),
    (ex.echo, (), {"x": b"1"}, TypeError, ["echo()", "'x'"]),
    (ex.fibonacci, (object(),), {}, TypeError, ["fibonacci()", "'n'"]),
    (ex.expensive, (1, "2"), {}, TypeError, ["expensive()", "'seconds'"]),
    (ex.expensive, ("1", 2.0), {}, TypeError, ["expensive()", "'n'"]),
    (ex.sleep, (1j,), {}, TypeError, ["sleep()", "'seconds'"]),
    (ex.sleep, (None,), {}, TypeError, ["sleep()", "'seconds'"]),
    (ex.fail, (3,), {}, TypeError, ["fail()", "'kind'"]),
    (ex.fail, (None,), {}, TypeError, ["fail()", "'kind'"]),
    # out of the C++ type's range
    (ex.echo, (2**63,), {}, OverflowError, ["echo()", "'x'"]),
    (ex.echo, (-(2**63) - 1,), {}, OverflowError, ["echo()", "'x'"]),
    (ex.echo, (10**100,), {}, OverflowError, ["echo()", "'x'"]),
    (ex.fibonacci, (-1,), {}, OverflowError, ["fibonacci()", "'n'"]),
    (ex.fibonacci, (2**64,), {}, OverflowError, ["fibonacci()", "'n'"]),
    # count and names
    (ex.echo, (), {}, TypeError, ["echo()", "'x'"]),
    (ex.expensive, (1,), {}, TypeError, ["expensive()", "'seconds'"]),
    (ex.expensive, (), {"seconds": 1.0}, TypeError, ["expensive()", "'n'"]),
    (ex.echo, (1, 2), {}, TypeError, ["echo()", "2"]),
    (ex.gil_held, (1,), {}, TypeError, ["gil_held()"]),
    (ex.echo, (), {"y": 1}, TypeError, ["echo()", "'y'"]),
    (ex.echo, (1,), {"y": 1}, TypeError, ["echo()", "'y'"]),
    (ex.echo, (1,), {"x": 1}, TypeError, ["echo()", "'x'"]),
    (ex.gil_held, (), {"x": 1}, TypeError, ["gil_held()", "'x'"]),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "error", "named"), BAD_ARGUMENTS)
def test_a_bad_argument_of_a_direct_call(
    fn: Any, args: Any, kwargs: Any, error: type[Exception], named: list[str]
) -> None:
    """The error names the function and the parameter."""
    with pytest.raises(error) as raised:
        fn(*args, **kwargs)
    assert type(raised.value) is error
    for word in named:
        assert word in str(raised.value)


async def test_bad_arguments_are_refused_at_submit(pool: offgil.Pool) -> None:
    """The same errors come from submit and run, at once, and nothing is queued."""
    for fn, args, kwargs, error, named in BAD_ARGUMENTS:
        with pytest.raises(error) as raised:
            pool.submit(fn, *args, **kwargs)
        for word in named:
            assert word in str(raised.value)
        with pytest.raises(error):
            await pool.run(fn, *args, **kwargs)
    stats = check_balance(pool)
    assert (stats.submitted, stats.pending, stats.running) == (0, 0, 0)


async def test_arguments_that_fail_to_convert(pool: offgil.Pool) -> None:
    """An __index__ that raises, and a string that is no Unicode, are errors at submit."""
    with pytest.raises((TypeError, LookupError)):
        pool.submit(ex.echo, Index())  # type: ignore[arg-type]
    with pytest.raises((TypeError, UnicodeError)):
        pool.submit(ex.fail, "\ud800")
    assert pool.stats().submitted == 0


async def test_an_argument_may_submit_while_it_is_converted(pool: offgil.Pool) -> None:
    """Python code that runs inside the conversion may use the pool."""
    inner: list[Any] = []

    class Reenters:
        def __index__(self) -> int:
            inner.append(pool.submit(ex.echo, 1))
            return 2

    assert await pool.submit(ex.echo, Reenters()) == 2  # type: ignore[arg-type]
    assert await inner[0] == 1


# --------------------------------------------------------------------------------------------------
# exceptions

EXCEPTIONS = [
    ("invalid_argument", ValueError),
    ("domain_error", ValueError),
    ("length_error", ValueError),
    ("range_error", ValueError),
    ("out_of_range", IndexError),
    ("overflow_error", OverflowError),
    ("bad_alloc", MemoryError),
    ("runtime_error", RuntimeError),
    ("logic_error", RuntimeError),
    ("int", offgil.NativeError),
    ("no such kind", ValueError),
]


@pytest.mark.parametrize(("kind", "expected"), EXCEPTIONS)
async def test_a_cpp_exception_becomes_a_python_one(
    pool: offgil.Pool, kind: str, expected: type[Exception]
) -> None:
    """As pybind11 maps them, from a direct call and from a job; the job's has a note."""
    with pytest.raises(expected) as direct:
        ex.fail(kind)
    with pytest.raises(expected) as job:
        await pool.submit(ex.fail, kind)
    assert type(direct.value) is type(job.value) is expected
    assert str(direct.value) == str(job.value)
    assert any("fail" in note for note in job.value.__notes__)


@pytest.mark.parametrize("in_pool", [False, True], ids=["direct", "job"])
async def test_an_unknown_exception_tells_its_cpp_type(pool: offgil.Pool, in_pool: bool) -> None:
    """`throw 42` is a NativeError that says int."""
    with pytest.raises(offgil.NativeError, match=r"\bint\b"):
        if in_pool:
            await pool.submit(ex.fail, "int")
        else:
            ex.fail("int")


async def test_every_failure_is_its_own_exception(pool: offgil.Pool) -> None:
    """Two failed jobs never share an exception object, nor its traceback and notes."""
    futures = [pool.submit(ex.fail, "bad_alloc") for _ in range(20)]
    errors = await asyncio.gather(*futures, return_exceptions=True)
    assert len({id(e) for e in errors}) == 20
    assert all(isinstance(e, MemoryError) and len(e.__notes__) == 1 for e in errors)
