"""pool.executor: the executor's door on a pool's own engine, beside pool.submit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from executors import both_sorts
from support import (
    LIMIT,
    Flavour,
    Gate,
    busy,
    check_balance,
    os_threads,
    run_in_new_loop,
    turns,
    until,
)

import offgil
from offgil import examples as ex
from offgil._executor import PoolExecutor


@both_sorts
async def test_both_doors_at_once(pool: offgil.Pool, echo: Callable[[int], int]) -> None:
    """Jobs of both run on the pool's workers, and are counted together."""
    executor = pool.executor
    assert isinstance(executor, offgil.ThreadPoolExecutor)
    assert executor._max_workers == pool.workers
    mine = [pool.submit(echo, i) for i in range(100)]
    theirs = [executor.submit(echo, i) for i in range(100)]
    assert await asyncio.wait_for(asyncio.gather(*mine), LIMIT) == [*range(100)]
    assert [future.result(LIMIT) for future in theirs] == [*range(100)]
    assert all(isinstance(future, concurrent.futures.Future) for future in theirs)
    stats = check_balance(pool)
    assert stats.submitted == stats.completed == 200
    assert executor.stats().submitted == 200


async def test_both_share_the_threads(pool: offgil.Pool) -> None:
    """A Python job by either door runs on the same two threads, and no others are made."""
    executor = pool.executor
    idents = {executor.submit(threading.get_ident).result(LIMIT) for _ in range(50)}
    idents |= {await pool.submit(threading.get_ident) for _ in range(50)}
    assert len(idents) <= 2


async def test_it_serves_a_loop(pool: offgil.Pool) -> None:
    """run_in_executor with it, beside the pool's own futures."""
    loop = asyncio.get_running_loop()
    futures: list[Any] = [loop.run_in_executor(pool.executor, ex.echo, i) for i in range(50)]
    futures += [pool.submit(ex.echo, i) for i in range(50)]
    assert await asyncio.wait_for(asyncio.gather(*futures), LIMIT) == [*range(50)] * 2


async def test_its_shutdown_ends_only_itself(pool: offgil.Pool, gate: Gate) -> None:
    """It waits for its own jobs; the pool goes on, and its waiting jobs are left alone."""
    executor = pool.executor
    futures = [executor.submit(fn, i) for i in range(20) for fn in (ex.echo, abs)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(abs, 1)
    assert await pool.submit(ex.echo, 1) == 1
    held = await gate.occupy(pool)
    waiting = pool.submit(ex.echo, 2)
    executor.shutdown(wait=False, cancel_futures=True)
    await turns()
    assert not waiting.cancelled()
    gate.open()
    assert await asyncio.wait_for(waiting, LIMIT) == 2
    await asyncio.gather(*held)


async def test_its_shutdown_is_prompt(pool: offgil.Pool) -> None:
    """As that of an executor with threads of its own; it was 20 ms later, the beat of a collection.

    The quickest of several tells, as a busy machine holds up most of them.
    """

    def quickest(make: Callable[[], offgil.ThreadPoolExecutor]) -> float:
        took = []
        for _ in range(20):
            executor = make()
            executor.submit(ex.sleep, 0.002)
            begin = time.perf_counter()
            executor.shutdown()
            took.append(time.perf_counter() - begin)
        return min(took)

    own = quickest(lambda: offgil.ThreadPoolExecutor(2))
    assert quickest(lambda: PoolExecutor(pool, "one of many")) < 3 * own


async def test_cancel_futures_takes_only_its_own(pool: offgil.Pool, gate: Gate) -> None:
    """The pool's jobs stay in the queue that they share."""
    executor = pool.executor
    held = await gate.occupy(pool)
    theirs = [executor.submit(ex.echo, 1), executor.submit(abs, -1)]
    mine = pool.submit(ex.echo, 2)
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in theirs)
    gate.open()
    assert await asyncio.wait_for(mine, LIMIT) == 2
    await asyncio.gather(*held)


async def test_aclose_ends_both(make_pool: Callable[..., offgil.Pool]) -> None:
    """It waits for jobs of the executor, too; a submit after it is refused."""
    pool = make_pool(2)
    executor = pool.executor
    futures = [executor.submit(fn, i) for i in range(50) for fn in (ex.echo, abs)]
    await pool.aclose()
    assert all(future.done() for future in futures)
    assert [f.result(0) for f in futures] == [i for i in range(50) for _ in range(2)]
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
    executor.shutdown()


async def test_aclose_that_cancels(make_pool: Callable[..., offgil.Pool], gate: Gate) -> None:
    """The executor's waiting jobs are cancelled with the pool's, and whoever waits is told."""
    pool = make_pool(1)
    held = await gate.occupy(pool)
    theirs = [pool.executor.submit(fn, 1) for fn in (ex.echo, abs)]
    mine = pool.submit(ex.echo, 1)
    closing = asyncio.create_task(pool.aclose(cancel_pending=True))
    await turns()
    gate.open()
    await asyncio.wait_for(closing, LIMIT)
    assert mine.cancelled() and all(future.cancelled() for future in theirs)
    assert await held[0] == "through the gate"
    for future in theirs:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(LIMIT)


def test_it_needs_no_loop() -> None:
    """The executor of a pool is used where no loop runs; the pool is closed in one."""
    pool = offgil.Pool(1)
    assert pool.executor.submit(ex.echo, 1).result(LIMIT) == 1
    assert list(pool.executor.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    run_in_new_loop(pool.aclose())


async def test_the_pools_bound_holds_for_both(
    make_pool: Callable[..., offgil.Pool], gate: Gate
) -> None:
    """A pool that is full is full by either door; on a loop's thread that is PoolFull."""
    pool = make_pool(1, max_pending=2)
    held = await gate.occupy(pool)
    one, other = pool.submit(ex.echo, 1), pool.executor.submit(ex.echo, 2)
    with pytest.raises(offgil.PoolFull):
        pool.submit(ex.echo, 3)
    with pytest.raises(offgil.PoolFull):
        pool.executor.submit(ex.echo, 3)
    gate.open()
    assert (await one, other.result(LIMIT)) == (1, 2)
    await asyncio.gather(*held)


async def test_a_pools_initializer(make_pool: Callable[..., offgil.Pool]) -> None:
    """It runs once on each worker, before its first job by either door."""
    mine = threading.local()
    idents: list[int] = []

    def initialize(mark: str) -> None:
        mine.mark = mark
        idents.append(threading.get_ident())

    pool = make_pool(2, initializer=initialize, initargs=("set",))
    marks = [await pool.submit(lambda: mine.mark) for _ in range(20)]
    marks += [pool.executor.submit(lambda: mine.mark).result(LIMIT) for _ in range(20)]
    assert set(marks) == {"set"}
    assert len(idents) == len(set(idents)) <= 2
    with pytest.raises(TypeError, match="initializer"):
        offgil.Pool(1, initializer=5)  # type: ignore[arg-type]


async def test_a_pools_initializer_that_fails(
    make_pool: Callable[..., offgil.Pool], caplog: pytest.LogCaptureFixture
) -> None:
    """PoolBroken for what waits and for later submits; the pool can still be closed."""

    def initialize() -> None:
        raise ValueError("no")

    pool = make_pool(1, initializer=initialize)
    for fn, arg in ((ex.echo, 1), (abs, -1)):
        with pytest.raises(offgil.PoolBroken):
            await asyncio.wait_for(pool.submit(fn, arg), LIMIT)
    with pytest.raises(RuntimeError):
        pool.executor.submit(abs, 1).result(LIMIT)


@pytest.mark.parametrize("loops", ["same", "other"])
async def test_a_closed_pool_gives_one_that_refuses(
    flavour: Flavour, loops: str, in_thread: Callable[..., threading.Thread]
) -> None:
    """As after shutdown, and no thread is started for it: none would end before the pool dies."""
    before = os_threads()
    pool = flavour.new_pool(1)
    await pool.submit(ex.echo, 1)
    await pool.aclose()
    await until(lambda: os_threads() == before)
    executor = pool.executor
    assert isinstance(executor, offgil.ThreadPoolExecutor) and executor is pool.executor
    for fn in (ex.echo, abs):
        with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
            executor.submit(fn, 1)
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.map(abs, [1])
    await until(lambda: os_threads() == before)
    assert executor.stats().submitted == 1
    executor.shutdown(cancel_futures=True)
    executor.shutdown(wait=False)
    # Nor by those who only wait for it to be idle, in a loop that it has never seen.
    for wait in (pool.drain, pool.aclose):
        if loops == "same":
            await asyncio.wait_for(wait(), LIMIT)
        else:
            thread = in_thread(run_in_new_loop, wait())
            await until(lambda thread=thread: not thread.is_alive())
    await until(lambda: os_threads() == before)


async def test_a_pool_that_closes_with_jobs_gives_one_that_refuses(
    flavour: Flavour, gate: Gate
) -> None:
    """Its shutdown does not touch the pool's own jobs."""
    pool = flavour.new_pool(1)
    held = await gate.occupy(pool)
    waiting = pool.submit(ex.echo, 2)
    closing = asyncio.create_task(pool.aclose())
    await turns()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        pool.executor.submit(abs, 1)
    pool.executor.shutdown(cancel_futures=True)
    gate.open()
    await asyncio.wait_for(closing, LIMIT)
    assert [await future for future in (*held, waiting)] == ["through the gate", 2]


@pytest.mark.slow
async def test_an_executor_beside_a_close(
    flavour: Flavour, in_thread: Callable[..., threading.Thread], impatient: None
) -> None:
    """Whoever comes first, no thread stays. 368 of 400 pools kept one."""
    before = os_threads()
    refused: list[str] = []

    def ask(pool: offgil.Pool, go: threading.Barrier, microseconds: float) -> None:
        go.wait(LIMIT)
        busy(microseconds)
        try:
            assert pool.executor.submit(abs, -1).result(LIMIT) == 1
        except RuntimeError as error:
            refused.append(str(error))

    pools = []  # so that none dies, which would end what stays
    for i in range(100):
        pool, go = flavour.new_pool(1), threading.Barrier(2)
        pools.append(pool)
        thread = in_thread(ask, pool, go, i)
        go.wait(LIMIT)
        busy(50)
        await pool.aclose()
        thread.join(LIMIT)
    assert set(refused) <= {"cannot schedule new futures after shutdown"}
    await until(lambda: os_threads() == before)
