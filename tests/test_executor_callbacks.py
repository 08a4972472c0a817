"""Done callbacks: each exactly once, in order, whatever the ones before it raise."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, as_completed, wait
from typing import Any

import pytest
from executors import Kind, both_sorts, hold, hold_callbacks
from support import LIMIT, Gate, block_until

from offgil import examples as ex


@both_sorts
def test_callbacks_run_in_order(executor: Any, gate: Gate, echo: Callable[[int], int]) -> None:
    """Each is given the future, which is done, once."""
    hold(executor, gate, 2)
    future = executor.submit(echo, 7)
    seen: list[Any] = []
    for i in range(50):
        future.add_done_callback(lambda f, i=i: seen.append((i, f is future, f.result(0))))
    assert seen == []
    gate.open()
    block_until(lambda: len(seen) == 50)
    assert seen == [(i, True, 7) for i in range(50)]


@both_sorts
def test_a_late_callback_runs_at_once(executor: Any, echo: Callable[[int], int]) -> None:
    """In the caller's thread, before add_done_callback returns."""
    future = executor.submit(echo, 1)
    assert future.result(LIMIT) == 1
    seen: list[Any] = []
    future.add_done_callback(lambda f: seen.append((f.result(), threading.get_ident())))
    assert seen == [(1, threading.get_ident())]


@both_sorts
def test_a_cancel_calls_back_at_once(executor: Any, gate: Gate, echo: Callable[[int], int]) -> None:
    """In the thread that cancels, before cancel returns, and only once."""
    hold(executor, gate, 2)
    future = executor.submit(echo, 1)
    seen: list[Any] = []
    future.add_done_callback(lambda f: seen.append((f.cancelled(), threading.get_ident())))
    assert future.cancel() and future.cancel()
    assert seen == [(True, threading.get_ident())]
    gate.open()
    assert executor.submit(echo, 2).result(LIMIT) == 2
    assert len(seen) == 1


@pytest.mark.parametrize("job", [(ex.spin, 1), (abs, -1), (ex.fail, "int"), (int, "x")], ids=str)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_failing_callback_is_logged(
    executor: Any, gate: Gate, caplog: pytest.LogCaptureFixture, job: tuple[Any, ...], late: bool
) -> None:
    """'exception calling callback for <the future>', with the traceback; the rest still run."""
    hold(executor, gate, 2)
    future = executor.submit(*job)
    seen: list[Any] = []
    if late:
        gate.open()
        future.exception(LIMIT)
    future.add_done_callback(seen.append)
    future.add_done_callback(lambda _: 1 // 0)
    future.add_done_callback(seen.append)
    gate.open()
    block_until(lambda: len(seen) == 2)
    assert seen == [future, future]
    (record,) = (r for r in caplog.records if r.name == "concurrent.futures")
    assert record.getMessage() == f"exception calling callback for {future!r}"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


@both_sorts
def test_callbacks_may_use_the_executor(executor: Any, echo: Callable[[int], int]) -> None:
    """A callback submits the next job, a hundred times over, and asks a future that is done."""
    ended = threading.Event()
    results: list[int] = []

    def again(future: Future[int]) -> None:
        results.append(future.result())
        if len(results) < 100:
            executor.submit(echo, len(results)).add_done_callback(again)
        else:
            ended.set()

    executor.submit(echo, 0).add_done_callback(again)
    assert ended.wait(LIMIT)
    assert results == [*range(100)]


def test_a_callback_may_end_the_executor(make_executor: Callable[..., Any]) -> None:
    """shutdown(wait=False) in a callback, on the worker, lets what waits finish."""
    executor = make_executor(1)
    told = threading.Event()

    def end(_: Future[Any]) -> None:
        executor.shutdown(wait=False)
        told.set()

    first = executor.submit(told.wait, 0)
    rest = [executor.submit(abs, -i) for i in range(20)]
    first.add_done_callback(end)
    assert told.wait(LIMIT)
    assert [future.result(LIMIT) for future in rest] == [*range(20)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_a_python_jobs_callbacks_run_on_its_worker(executor: Any, gate: Gate) -> None:
    """So that they see the thread's own data that the job left behind."""
    hold(executor, gate, 2)
    mine = threading.local()
    seen: list[Any] = []

    def job() -> int:
        mine.mark = object()
        return threading.get_ident()

    future = executor.submit(job)
    future.add_done_callback(lambda _: seen.append((threading.get_ident(), hasattr(mine, "mark"))))
    gate.open()
    worker = future.result(LIMIT)
    block_until(lambda: seen)
    assert seen == [(worker, True)]


@both_sorts
def test_a_callback_may_wait_for_another_future(
    make_executor: Callable[..., Any], gate: Gate, echo: Callable[[int], int]
) -> None:
    """While there is a worker for it, also for one that has callbacks itself.

    Of native jobs all callbacks come from one thread, which waited for itself.
    """
    executor = make_executor(2)
    hold(executor, gate, 2)
    first = executor.submit(echo, 1)
    others = [executor.submit(echo, i) for i in range(10)]
    seen: list[Any] = []
    order: list[int] = []
    for other in others:
        other.add_done_callback(lambda f: order.append(f.result(0)))
    first.add_done_callback(lambda _: seen.append([f.result(LIMIT) for f in reversed(others)]))
    first.add_done_callback(lambda _: seen.append(others[0].exception(LIMIT)))
    gate.open()
    block_until(lambda: len(seen) == 2 and len(order) == 10)
    assert seen == [[*reversed(range(10))], None]
    assert sorted(order) == [*range(10)]


def test_a_callback_that_blocks_holds_back_nobody(
    make_executor: Callable[..., Any], gate: Gate
) -> None:
    """Its worker had taken the next short jobs along, and they waited for the callback."""
    executor = make_executor(2)
    for _ in range(300):  # let the executor know how short they are
        executor.submit(int).result(LIMIT)
    hold(executor, gate, 2)
    first = executor.submit(int)
    until_told, entered = threading.Event(), threading.Event()

    def block(_: Future[int]) -> None:
        entered.set()
        until_told.wait(LIMIT)

    first.add_done_callback(block)
    behind = [executor.submit(int) for _ in range(20)]
    gate.open()
    assert entered.wait(LIMIT)
    try:
        assert wait(behind, LIMIT / 2).not_done == set()
        later = [executor.submit(int) for _ in range(20)]
        assert wait(later, LIMIT / 2).not_done == set()
    finally:
        until_told.set()


def test_what_a_callback_raises_in_shutdown_is_told(
    make_executor: Callable[..., Any], gate: Gate, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    """The standard one raises it from shutdown and leaves the rest waiting; ours logs it."""
    if not kind.ours:
        pytest.skip("it raises")
    executor = make_executor(1)
    hold(executor, gate, 1)
    executor.submit(int)  # what a worker would have begun is spared
    futures = [executor.submit(int) for _ in range(3)]

    def interrupt(_: Future[int]) -> None:
        raise KeyboardInterrupt

    for future in futures:
        future.add_done_callback(interrupt)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open()
    assert wait(futures, LIMIT).not_done == set()
    cancelled = [future for future in futures if future.cancelled()]
    assert cancelled

    def logged() -> list[logging.LogRecord]:
        return [r for r in caplog.records if r.name == "concurrent.futures"]

    block_until(lambda: len(logged()) >= len(futures))  # who waits is told before the callbacks
    told = logged()
    assert len(told) == len(futures)
    assert all(r.exc_info is not None and r.exc_info[0] is KeyboardInterrupt for r in told)


# --------------------------------------------------------------------------------------------------
# kept beside the job, or with the base


@both_sorts
async def test_a_callback_makes_no_condition(
    only_ours: Kind, echo: Callable[[int], int], gate: Gate
) -> None:
    """Nor does asyncio's wrapper, whose callback asks for all there is to know.

    The base's fields cost more than the job; run_in_executor() was slow by them.
    """
    loop = asyncio.get_running_loop()
    with only_ours.new(1) as executor:
        hold(executor, gate, 1)
        wrapped = [executor.submit(echo, 1), executor.submit(echo, 2)]
        awaited = [asyncio.wrap_future(future) for future in wrapped]
        awaited[1].cancel()
        await asyncio.sleep(0)
        gate.open()
        assert await awaited[0] == 1
        assert [vars(future) for future in wrapped] == [{}, {}]
        assert await loop.run_in_executor(executor, echo, 3) == 3


LOOKS: dict[str, Callable[[Future[int]], object]] = {
    "repr": repr,
    "wait": lambda future: wait([future], 0),
    "field": lambda future: future._state,
}


@both_sorts
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_callbacks_before_and_after_a_look(
    executor: Any, gate: Gate, echo: Callable[[int], int], look: Callable[[Future[int]], object]
) -> None:
    """In order and once, whoever looks at the future between two of them."""
    hold(executor, gate, 2)
    future = executor.submit(echo, 1)
    seen: list[Any] = []
    for i in range(3):
        future.add_done_callback(lambda f, i=i: seen.append((i, f.done(), f.result(0))))
    look(future)
    for i in range(3, 6):
        future.add_done_callback(lambda f, i=i: seen.append((i, f.done(), f.result(0))))
    gate.open()
    assert wait([future], LIMIT).done == {future}
    block_until(lambda: len(seen) == 6)
    assert seen == [(i, True, 1) for i in range(6)]
    assert list(as_completed([future], LIMIT)) == [future]


@both_sorts
def test_a_callback_may_look_and_add_others(
    executor: Any, gate: Gate, echo: Callable[[int], int]
) -> None:
    """What a callback adds runs at once, within it; wait() in a callback finds the future done."""
    hold(executor, gate, 2)
    future = executor.submit(echo, 1)
    seen: list[Any] = []

    def first(f: Future[int]) -> None:
        f.add_done_callback(lambda _: seen.append("inner"))
        seen.append((wait([f], LIMIT).done == {f}, list(as_completed([f], LIMIT)) == [f]))
        f.add_done_callback(lambda _: seen.append("inner"))

    future.add_done_callback(first)
    future.add_done_callback(lambda _: seen.append("second"))
    gate.open()
    block_until(lambda: "second" in seen)
    assert seen == ["inner", (True, True), "inner", "second"]


def test_who_looks_before_the_callbacks_run(only_ours: Kind) -> None:
    """Between the end of a native job and its callbacks the future is done for everybody.

    The base's fields, made then, say so; and the callbacks run all the same, once.
    """
    executor = only_ours.new(1)
    told = threading.Event()
    hold_callbacks(executor, told)
    gate = Gate()
    hold(executor, gate, 1)
    future = executor.submit(ex.echo, 1)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    gate.open()
    try:
        block_until(future.done)
        assert wait([future], LIMIT).done == {future}
        assert future.done() and future.result(0) == 1 and not future.cancel()
        future.add_done_callback(lambda _: seen.append("late"))
        assert seen == ["late"]
    finally:
        told.set()
    block_until(lambda: len(seen) == 2)
    executor.shutdown()
    assert seen == ["late", future]


def test_cancel_tells_who_looks_and_who_is_called(executor: Any, gate: Gate) -> None:
    """Each once, in whatever order the future was looked at, called back and cancelled."""
    hold(executor, gate, 2)
    futures = [executor.submit(ex.echo, i) for i in range(4)]
    seen: list[Any] = []
    for i, future in enumerate(futures):
        if i & 1:
            repr(future)
        future.add_done_callback(seen.append)
        if i & 2:
            repr(future)
        assert future.cancel() and future.cancelled() and future.done()
        assert seen == futures[: i + 1]
    gate.open()
    assert wait(futures, LIMIT).done == set(futures)
    assert seen == futures


def test_who_cancels_may_tell_those_who_wait(executor: Any, gate: Gate) -> None:
    """set_running_or_notify_cancel() says that the future was cancelled; a second time is an error.

    So is one for a job that runs, or has ended.
    """
    held = hold(executor, gate, 2)
    looked_at, other = executor.submit(ex.echo, 1), executor.submit(abs, 1)
    repr(looked_at)
    for future in (looked_at, other):
        assert future.cancel()
        assert future.set_running_or_notify_cancel() is False
        assert wait([future], LIMIT).done == {future}
    gate.open()
    wait(held, LIMIT)
    for future in (looked_at, other, held[0]):
        with pytest.raises(RuntimeError):
            future.set_running_or_notify_cancel()


def test_who_tells_that_a_job_runs_is_late(executor: Any, gate: Gate) -> None:
    """It runs already: the executor has told."""
    (held, _) = hold(executor, gate, 2)
    with pytest.raises(RuntimeError):
        held.set_running_or_notify_cancel()
    gate.open()
    assert held.result(LIMIT) == "through the gate"


def test_an_interrupt_in_a_callback_of_cancel(executor: Any, gate: Gate) -> None:
    """It is raised from cancel(): it may be the user's own Ctrl-C."""
    hold(executor, gate, 2)
    future = executor.submit(int)

    def interrupt(_: Future[int]) -> None:
        raise KeyboardInterrupt

    future.add_done_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert future.cancelled()
    gate.open()


@both_sorts
def test_an_interrupt_in_a_late_callback(executor: Any, echo: Callable[[int], int]) -> None:
    """It is raised from add_done_callback()."""
    future = executor.submit(echo, 1)
    assert future.result(LIMIT) == 1

    def interrupt(_: Future[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        future.add_done_callback(interrupt)


def test_the_arguments_of_add_done_callback(executor: Any) -> None:
    """One, by position or by name."""
    future = executor.submit(abs, -1)
    assert future.result(LIMIT) == 1
    seen: list[Any] = []
    future.add_done_callback(fn=seen.append)
    assert seen == [future]
    for args, kwargs in (((), {}), ((1, 2), {}), ((), {"callback": print})):
        with pytest.raises(TypeError):
            future.add_done_callback(*args, **kwargs)


def test_kept_callbacks_are_shown_to_the_collector(only_ours: Kind, gate: Gate) -> None:
    """As all that a future refers to."""
    with only_ours.new(1) as executor:
        hold(executor, gate, 1)
        future = executor.submit(int)
        mark = object()
        future.add_done_callback(lambda _, mark=mark: None)
        assert gc.is_tracked(future)
        (kept,) = (each for each in gc.get_referents(future) if isinstance(each, list))
        assert mark in kept[0].__defaults__
        gate.open()
