"""Native jobs whose phases take their time, or Python's: made by hand, see made_natives.py."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from executors import PRELUDE, Kind, hold
from made_natives import PATH, made_native
from support import LIMIT, Gate, block_until, check_script

import offgil


@pytest.mark.parametrize("door", ["executor", "pool"])
def test_a_job_is_destroyed_once(door: str, gate: Gate) -> None:
    """As the ABI promises, also where a withdrawn job comes back while it is being destroyed.

    Whoever brought it destroyed it again; and gave its function back, which could be the last
    reference.
    """
    destroyed: list[bool] = []

    def destroy() -> None:
        destroyed.append(function() is not None)
        if len(destroyed) == 1:
            gate.open()
            bring()
        destroyed.append(function() is not None)

    native = made_native(destroy=destroy)
    function = weakref.ref(native)
    if door == "executor":
        executor = offgil.ThreadPoolExecutor(1)
        hold(executor, gate, 1)
        future: Any = executor.submit(native)

        def bring() -> None:
            assert executor.submit(abs, -1).result(LIMIT) == 1
            executor.shutdown()

    else:

        async def submit(fn: offgil.NativeFunction) -> tuple[offgil.Pool, Any]:
            pool = offgil.Pool(1)
            await gate.occupy(pool)
            return pool, pool.submit(fn)

        loop = asyncio.new_event_loop()
        pool, future = loop.run_until_complete(submit(native))
        loop.close()

        def bring() -> None:
            block_until(lambda: pool.stats().dropped == 2)  # each look brings what has arrived

    del native
    assert future.cancel()
    del future
    assert destroyed == [True, True]


# --------------------------------------------------------------------------------------------------
# a thread that converts a result, for others


@pytest.fixture
def converting(gate: Gate, in_thread: Callable[..., threading.Thread]) -> Future[int]:
    """The future of a job whose result a thread converts until the gate is opened."""
    inside = threading.Event()

    def finish() -> int:
        inside.set()
        gate()
        return 42

    with offgil.ThreadPoolExecutor(1) as executor:
        future: Future[int] = executor.submit(made_native(finish=finish))
    thread = in_thread(lambda: future.result(LIMIT))
    assert inside.wait(LIMIT)
    assert thread.is_alive()
    return future


@pytest.mark.parametrize("how", ["result", "exception"])
def test_a_time_limit_while_another_thread_converts(
    converting: Future[int], gate: Gate, how: str
) -> None:
    """TimeoutError in time, and no busy waiting: both were wrong."""
    before = time.thread_time(), time.monotonic()
    with pytest.raises(TimeoutError):
        getattr(converting, how)(timeout=0.5)
    used, passed = time.thread_time() - before[0], time.monotonic() - before[1]
    assert 0.5 <= passed < LIMIT / 2
    assert used < passed / 2
    gate.open()
    assert converting.result(LIMIT) == 42


def test_several_wait_while_another_thread_converts(
    converting: Future[int], gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """All get the one result, with a limit and without."""
    results: list[int] = []
    for timeout in (None, LIMIT):
        in_thread(lambda timeout=timeout: results.append(converting.result(timeout)))
    gate.open()
    block_until(lambda: len(results) == 2)
    assert results == [42, 42]


FORK_WHILE_CONVERTING = (
    PRELUDE
    + """
    import offgil
    from made_natives import made_native

    inside, may_go = threading.Event(), threading.Event()

    def finish():
        inside.set()
        may_go.wait(20)
        return 42

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(made_native(finish=finish))
    thread = threading.Thread(target=future.result)
    thread.start()
    inside.wait(20)

    pid = os.fork()
    if not pid:
        signal.alarm(20)
        for _ in range(2):
            try:
                future.result(10)
            except offgil.PoolBroken:
                x()
        assert isinstance(future.exception(), offgil.PoolBroken) and future.done()
        del future
        sys.exit()
    status = os.waitpid(pid, 0)[1]
    may_go.set()
    thread.join()
    assert status == 0, status
    assert future.result() == 42
    x()
"""
)


def test_a_fork_while_another_thread_converts(only_ours: Kind) -> None:
    """The child finds PoolBroken; it waited for ever for a thread that it does not have."""
    assert check_script(FORK_WHILE_CONVERTING, only_ours.module, **PATH) == "xxx"


# --------------------------------------------------------------------------------------------------
# arguments

A_PARTIAL_THAT_CHANGES = (
    PRELUDE
    + """
    import functools, offgil, offgil.examples as ex

    class Number:
        def __index__(self):
            # The partial lets go of the tuple that the arguments lie in; others take its place.
            call.__setstate__((print, (), {}, None))
            others.extend((float(i), float(i)) for i in range(1000))
            return 1

    class Seconds(float):
        pass

    async def in_a_pool():
        async with offgil.Pool(1) as pool:
            return await pool.submit(call)

    others = []
    with ThreadPoolExecutor(1) as executor:
        for submit in (lambda: executor.submit(call).result(20), lambda: asyncio.run(in_a_pool())):
            for _ in range(20):
                call = functools.partial(ex.expensive, Number(), Seconds(0.0))
                assert submit() == ex.expensive(1, 0.0)
                assert call.func is print
    x()
"""
)


def test_a_partial_that_changes_while_its_arguments_are_converted(only_ours: Kind) -> None:
    """What is converted is what was submitted: it was freed meanwhile."""
    assert check_script(A_PARTIAL_THAT_CHANGES, only_ours.module) == "x"
