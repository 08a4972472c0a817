"""map: results in order, time limit, what is cancelled, and buffersize as Python 3.14's."""

from __future__ import annotations

import gc
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest
from executors import Box, Kind, both_sorts, hold
from support import LIMIT, Gate, block_until, os_threads

import offgil
from offgil import examples as ex


@both_sorts
@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"timeout": LIMIT}], ids=str)
def test_map_is_map(executor: Any, echo: Callable[[int], int], options: dict[str, Any]) -> None:
    """The results in order, like the built-in's."""
    assert list(executor.map(echo, range(300), **options)) == [*range(300)]


def test_several_iterables(executor: Any) -> None:
    """One argument from each; the shortest ends it; none, or an empty one, gives nothing."""
    assert list(executor.map(pow, range(5), itertools.count(2))) == [0, 1, 16, 243, 4096]
    assert list(executor.map(pow, [], [1, 2])) == []
    assert list(executor.map(pow)) == []


def test_all_is_submitted_at_the_call(make_executor: Callable[..., Any]) -> None:
    """Nobody needs to iterate (#11777)."""
    executor = make_executor(2)
    ran: list[int] = []
    executor.map(ran.append, range(10))
    executor.shutdown()
    assert sorted(ran) == [*range(10)]


def test_what_the_iterable_raises_is_raised_at_the_call(executor: Any) -> None:
    """A TypeError for what is no iterable, and an iterable's own exception."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(TypeError):
        executor.map(abs, 5)
    with pytest.raises(OSError, match="no more"):
        executor.map(abs, broken())


@both_sorts
def test_a_failure_comes_at_its_place(executor: Any, echo: Callable[[int], int]) -> None:
    """The results before it first, then the exception; the iterator has ended with it."""
    results = executor.map(lambda x: echo(x) or 1 // x, [2, 1, 0, 5])
    assert [next(results), next(results)] == [2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) in ([], [5])  # CPython has not settled this yet (#108518)


def test_the_time_limit_counts_from_the_call(executor: Any, gate: Gate) -> None:
    """What is not there in time raises TimeoutError, and the rest is cancelled."""
    hold(executor, gate, 2)
    ran: list[int] = []
    results = executor.map(ran.append, range(20), timeout=0.05)
    time.sleep(0.06)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        next(results)
    assert time.monotonic() - start < LIMIT / 2, "it had a limit of its own"
    gate.open()
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1
    executor.shutdown()
    assert ran == []


@pytest.mark.parametrize("how", ["close", "drop", "exception"])
def test_leaving_the_iterator_cancels_the_rest(
    make_executor: Callable[..., Any], gate: Gate, how: str
) -> None:
    """Whichever way it is left, what has not started never runs."""
    executor = make_executor(1)
    ran: list[int] = []

    def job(i: int) -> int:
        ran.append(i)
        if i == 1:
            gate()
        return i

    results = executor.map(job, range(50))
    assert next(results) == 0
    block_until(lambda: ran == [0, 1])
    if how == "close":
        results.close()
    elif how == "drop":
        del results
        gc.collect()
    else:
        with pytest.raises(KeyError):
            results.throw(KeyError())
    gate.open()
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1
    assert ran == [0, 1]


def test_no_references_to_results(executor: Any) -> None:
    """A result that was handed out is the caller's alone (#14406)."""
    for box in executor.map(lambda _: Box(), range(20)):
        ref = weakref.ref(box)
        del box
        assert ref() is None


def test_map_after_shutdown(executor: Any) -> None:
    """RuntimeError at the call, with submit's text."""
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.map(abs, [1])


# --------------------------------------------------------------------------------------------------
# buffersize


@pytest.fixture
def dropped_executors_end() -> Iterator[None]:
    """Wait until the threads of those that a test has dropped are gone."""
    before = os_threads()
    yield
    gc.collect()
    block_until(lambda: os_threads() == before)


@pytest.fixture
def buffering(kind: Kind, make_executor: Callable[..., Any]) -> Any:
    """An executor whose map has buffersize: ours everywhere, the standard one from 3.14 on."""
    if not kind.ours and sys.version_info < (3, 14):
        pytest.skip("a difference: the standard library has buffersize from Python 3.14 on")
    return make_executor(2)


@both_sorts
@pytest.mark.parametrize("size", [1, 2, 7, 1000, None, True])
def test_a_buffer_of_any_size(buffering: Any, echo: Callable[[int], int], size: Any) -> None:
    """The results are the same; chunksize and timeout go along with it."""
    assert list(buffering.map(echo, range(100), buffersize=size)) == [*range(100)]
    options = {"buffersize": size, "chunksize": 5, "timeout": LIMIT}
    assert list(buffering.map(pow, range(9), itertools.repeat(2), **options)) == [
        i * i for i in range(9)
    ]
    assert list(buffering.map(echo, [], buffersize=size)) == []
    assert list(buffering.map(echo, buffersize=size)) == []


@pytest.mark.parametrize("size", [0, -1, False])
def test_a_buffer_that_holds_nothing(buffering: Any, size: Any) -> None:
    """ValueError at the call, with 3.14's text; nothing is taken from the iterable."""
    numbers = iter(range(3))
    with pytest.raises(ValueError, match=r"^buffersize must be None or > 0$"):
        buffering.map(abs, numbers, buffersize=size)
    assert list(numbers) == [0, 1, 2]


@pytest.mark.parametrize("size", ["1", 1.0, [1]])
def test_a_buffer_size_that_is_no_number(buffering: Any, size: Any) -> None:
    """TypeError at the call, with 3.14's text."""
    with pytest.raises(TypeError, match=r"^buffersize must be an integer or None$"):
        buffering.map(abs, [1], buffersize=size)


@both_sorts
def test_no_more_than_the_buffer_is_taken_ahead(buffering: Any, echo: Callable[[int], int]) -> None:
    """An endless iterable: the buffer's size at the call, then one more for each result."""
    numbers = itertools.count()
    results = buffering.map(echo, numbers, buffersize=3)
    assert repr(numbers) == "count(3)"
    for i in range(50):
        assert next(results) == i
        assert repr(numbers) == f"count({i + 4})"
    results.close()
    buffering.shutdown()
    assert repr(numbers) == "count(53)"


def test_a_shutdown_ends_a_buffered_map(buffering: Any) -> None:
    """The next submit that the iterator needs is refused, with the usual text."""
    results = buffering.map(abs, itertools.count(), buffersize=2)
    assert next(results) == 0
    buffering.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        list(results)


@pytest.mark.usefixtures("dropped_executors_end")
@both_sorts
def test_a_buffered_map_keeps_its_executor(only_ours: Kind, echo: Callable[[int], int]) -> None:
    """The executor that nobody else has was collected, and the results behind the buffer were lost.

    The iterator ended early, without a word.
    """
    assert list(only_ours.new(2).map(echo, range(10), buffersize=2)) == [*range(10)]
    assert list(offgil.AsyncioExecutor(2).map(echo, range(10), buffersize=2)) == [*range(10)]
    results = only_ours.new(2).map(echo, itertools.count(), buffersize=2)
    for i in range(10):
        gc.collect()
        assert next(results) == i


@pytest.mark.usefixtures("dropped_executors_end")
@pytest.mark.parametrize("how", ["all submitted", "closed", "dropped"])
def test_a_buffered_map_lets_its_executor_go(only_ours: Kind, how: str) -> None:
    """Once it submits no more."""
    executor: Any = only_ours.new(2)
    ref = weakref.ref(executor)
    results = executor.map(abs, range(4), buffersize=2)
    del executor
    assert [next(results), next(results)] == [0, 1]
    assert ref() is not None
    if how == "all submitted":
        assert next(results) == 2
    elif how == "closed":
        results.close()
    else:
        del results
    block_until(lambda: ref() is None)
    if how == "all submitted":
        assert list(results) == [3]


def test_a_refusal_comes_behind_what_was_accepted(only_ours: Kind) -> None:
    """A shutdown in the middle: what had been submitted is handed out before the error."""
    executor: Any = only_ours.new(2)
    results = executor.map(abs, itertools.count(), buffersize=3)
    taken = [next(results)]
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        taken.extend(results)  # keeps what comes before the error
    assert taken == [0, 1, 2, 3]
    assert list(results) == []


@pytest.mark.usefixtures("dropped_executors_end")
def test_a_pool_that_is_dropped_under_a_map(only_ours: Kind) -> None:
    """The map of its executor ends with an error, behind what was accepted; never in silence."""
    pool: Any = offgil.Pool(2)
    results = pool.executor.map(abs, itertools.count(), buffersize=2)
    taken = [next(results)]
    del pool
    gc.collect()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        taken.extend(results)
    assert taken == [0, 1, 2]


@pytest.mark.usefixtures("dropped_executors_end")
@pytest.mark.parametrize("error", [OSError, RuntimeError, LookupError])
def test_what_the_iterable_raises_later(only_ours: Kind, error: type[Exception]) -> None:
    """Where its next result would stand, as with the built-in map."""

    def broken() -> Iterator[int]:
        yield from range(5)
        raise error("no more")

    taken: list[int] = []
    with pytest.raises(error, match="no more"):
        taken.extend(only_ours.new(2).map(abs, broken(), buffersize=2))
    assert taken == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("dropped_executors_end")
def test_a_map_whose_executor_breaks(only_ours: Kind) -> None:
    """BrokenThreadPool, with and without a buffer."""

    def fail() -> None:
        raise ValueError("the initializer")

    for options in ({}, {"buffersize": 2}):
        executor: Any = only_ours.new(1, initializer=fail)
        with pytest.raises(BrokenThreadPool):
            list(executor.map(abs, range(10), **options))
