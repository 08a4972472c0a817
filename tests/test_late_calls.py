"""Whoever waits for one job, by whatever means, waits for no timer: none has to call a worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from typing import Any

import pytest
from executors import ECHOES
from support import LIMIT, LOOPS, run_in_new_loop

import offgil

ROUNDS = 300


def late_calls(of: Any) -> int:
    count: int = of.stats().late_calls
    return count


def without_late_calls(count: Callable[[], int]) -> Iterator[None]:
    """Let the rounds be played, and fail unless they pass without a late call.

    A system that stops a submitter just before it calls a worker makes one, but not in each of
    three times.
    """
    seen = []
    for _ in range(3):
        before = count()
        yield
        seen.append(count() - before)
        if seen[-1] == 0:
            return
    pytest.fail(f"late calls in {ROUNDS} rounds: {seen}")


Executor = concurrent.futures.Executor
Echo = Callable[[int], int]


def by_result(executor: Executor, echo: Echo, i: int) -> None:
    assert executor.submit(echo, i).result(LIMIT) == i


def by_exception(executor: Executor, echo: Echo, i: int) -> None:
    assert executor.submit(echo, i).exception(LIMIT) is None


def by_wait(executor: Executor, echo: Echo, i: int) -> None:
    assert not wait([executor.submit(echo, i)], LIMIT).not_done


def by_wait_for_the_first(executor: Executor, echo: Echo, i: int) -> None:
    assert wait([executor.submit(echo, i)], LIMIT, FIRST_COMPLETED).done


def by_as_completed(executor: Executor, echo: Echo, i: int) -> None:
    for future in as_completed([executor.submit(echo, i)], LIMIT):
        assert future.result(0) == i


def by_callback(executor: Executor, echo: Echo, i: int) -> None:
    told = threading.Event()
    executor.submit(echo, i).add_done_callback(lambda _: told.set())
    assert told.wait(LIMIT)


def by_chain(executor: Executor, echo: Echo, i: int) -> None:
    told: queue.Queue[int] = queue.Queue()

    def next_one(future: concurrent.futures.Future[int]) -> None:
        executor.submit(echo, future.result(0) + 1).add_done_callback(
            lambda last: told.put(last.result(0))
        )

    executor.submit(echo, i).add_done_callback(next_one)
    assert told.get(timeout=LIMIT) == i + 1


def by_map(executor: Executor, echo: Echo, i: int) -> None:
    assert list(executor.map(echo, [i], timeout=LIMIT)) == [i]


def by_polling(executor: Executor, echo: Echo, i: int) -> None:
    future = executor.submit(echo, i)
    give_up = time.monotonic() + LIMIT
    while not future.done():
        assert time.monotonic() < give_up
        time.sleep(0)


def by_wrap_future(executor: Executor, echo: Echo, i: int) -> Awaitable[int]:
    return asyncio.wrap_future(executor.submit(echo, i))


def by_run_in_executor(executor: Executor, echo: Echo, i: int) -> Awaitable[int]:
    return asyncio.get_running_loop().run_in_executor(executor, echo, i)


BLOCKING = [
    *(by_result, by_exception, by_wait, by_wait_for_the_first, by_as_completed),
    *(by_callback, by_chain, by_map, by_polling),
]
AWAITING = [by_wrap_future, by_run_in_executor]
echoes = pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)


@pytest.fixture(params=["own threads", "a pool's"])
def executor(request: pytest.FixtureRequest) -> Any:
    """One that has its timer, and knows how long its jobs take."""
    pool = offgil.Pool(2)
    made = offgil.ThreadPoolExecutor(2) if request.param == "own threads" else pool.executor
    for echo in ECHOES.values():
        for future in [made.submit(echo, i) for i in range(200)]:
            future.result(LIMIT)
    yield made
    made.shutdown()
    asyncio.run(pool.aclose())


@echoes
@pytest.mark.parametrize("hear", BLOCKING, ids=lambda hear: hear.__name__)
def test_who_blocks(executor: Any, hear: Callable[..., None], echo: Echo) -> None:
    """One job after the other, on an executor."""
    for _ in without_late_calls(lambda: late_calls(executor)):
        for i in range(ROUNDS):
            hear(executor, echo, i)


@echoes
@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("hear", AWAITING, ids=lambda hear: hear.__name__)
def test_who_awaits_an_executor(
    executor: Any, hear: Callable[..., Awaitable[int]], echo: Echo, loop_factory: Any
) -> None:
    """The same on an event loop."""

    async def main() -> None:
        for i in range(ROUNDS):
            assert await asyncio.wait_for(hear(executor, echo, i), LIMIT) == i

    for _ in without_late_calls(lambda: late_calls(executor)):
        run_in_new_loop(main(), loop_factory)


@echoes
@pytest.mark.parametrize("door", ["submit", "run", "install", "to_thread"])
async def test_who_awaits(door: str, echo: Echo) -> None:
    """At the doors that have futures of the loop's."""
    async with offgil.Pool(2) as pool:
        installed = offgil.install(workers=2)
        loop = asyncio.get_running_loop()
        call: Callable[[Echo, int], Any] = {
            "submit": pool.submit,
            "run": pool.run,
            "install": lambda echo, i: loop.run_in_executor(None, echo, i),
            "to_thread": asyncio.to_thread,
        }[door]
        await asyncio.gather(*(call(echo, i) for i in range(200)))
        await asyncio.sleep(0)
        for _ in without_late_calls(lambda: late_calls(pool) + late_calls(installed)):
            for i in range(ROUNDS):
                assert await asyncio.wait_for(call(echo, i), LIMIT) == i
