"""offgil.Pool: submit, run, back-pressure, drain, close, statistics, loops and Python jobs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import dataclasses
import functools
import gc
import inspect
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEBUG,
    LIMIT,
    LOOPS,
    Flavour,
    Gate,
    block_until,
    blocked_by_threads,
    check_balance,
    check_script,
    open_fds,
    os_threads,
    run_in_new_loop,
    turns,
    until,
)

import offgil
from offgil import examples as ex

MakePool = Callable[..., offgil.Pool]
JOBS = 400 if not DEBUG else 100


class Box:
    """Something a weak reference can point to."""


# --------------------------------------------------------------------------------------------------
# submit and run


async def test_submit_returns_a_future_of_the_result(pool: offgil.Pool) -> None:
    """Native functions and Python callables are jobs alike."""
    assert await pool.submit(ex.echo, -5) == -5
    assert await pool.submit(ex.fibonacci, n=10) == 55
    assert await pool.submit(sorted, [2, 1], reverse=True) == [2, 1]
    assert await pool.submit(len, "four") == 4
    assert await pool.submit(functools.partial(max, 3), 2) == 3
    assert await pool.submit(dict, a=1) == {"a": 1}
    assert await pool.submit("a-b".split, "-") == ["a", "b"]


async def test_run_awaits_the_result(pool: offgil.Pool) -> None:
    """run is a coroutine function with submit's arguments."""
    assert inspect.iscoroutinefunction(pool.run)
    assert await pool.run(ex.echo, x=3) == 3
    assert await pool.run(lambda *a, **k: (a, k), 1, two=2) == ((1,), {"two": 2})
    with pytest.raises(IndexError):
        await pool.run(ex.fail, "out_of_range")


async def test_every_keyword_belongs_to_the_job(pool: offgil.Pool) -> None:
    """No name is taken by submit or run themselves, not even `fn` and `self`."""

    def job(**kwargs: Any) -> Any:
        return kwargs

    taken = {"fn": 1, "self": 2, "timeout": 3, "name": 4, "loop": 5, "context": 6}
    assert await pool.submit(job, **taken) == taken
    assert await pool.run(job, **taken) == taken


async def test_a_job_starts_while_the_loop_is_blocked(pool: offgil.Pool) -> None:
    """Whatever submit collects reaches the workers although the loop's thread never turns."""
    started = threading.Event()
    future = pool.submit(started.set)
    assert started.wait(LIMIT)
    await future
    for _ in range(3):  # also when the functions are known to be short
        futures = [pool.submit(ex.echo, i) for i in range(100)]
        block_until(lambda: pool.stats().pending == pool.stats().running == 0)
        assert await asyncio.gather(*futures) == list(range(100))


async def test_jobs_start_in_the_order_of_submit(make_pool: MakePool) -> None:
    """One worker runs first in, first out."""
    pool = make_pool(1)
    ran: list[int] = []
    futures = [pool.submit(ran.append, i) for i in range(500)]
    await asyncio.gather(*futures)
    assert ran == list(range(500))


async def test_workers_work_at_the_same_time(make_pool: MakePool) -> None:
    """As many jobs run at once as there are workers."""
    pool = make_pool(4)
    assert pool.workers == 4
    barrier = threading.Barrier(4)
    await asyncio.gather(*(pool.submit(barrier.wait, LIMIT) for _ in range(4)))


async def test_the_default_is_one_worker_per_usable_cpu(make_pool: MakePool) -> None:
    """At least one, at most the CPUs this process may run on."""
    assert 1 <= make_pool(None).workers <= len(os.sched_getaffinity(0))
    one_cpu = check_script(
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import offgil
        print(offgil.Pool().workers)
        """
    )
    assert one_cpu == "1\n"


async def test_a_job_may_use_the_pool(make_pool: MakePool) -> None:
    """A Python job can run a loop of its own that awaits jobs of the same pool."""
    pool = make_pool(2)

    async def inner() -> int:
        return sum(await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(10))))

    assert await pool.submit(lambda: run_in_new_loop(inner())) == 45


async def test_pending_and_running_tell_where_jobs_are(pool: offgil.Pool, gate: Gate) -> None:
    """running counts the jobs on workers, pending those that wait."""
    assert (pool.pending, pool.running) == (0, 0)
    held = await gate.occupy(pool)
    waiting = [pool.submit(ex.echo, i) for i in range(10)]
    await until(lambda: pool.pending == 10)
    assert pool.running == 2
    gate.open()
    await asyncio.gather(*held, *waiting)
    await pool.drain()
    assert (pool.pending, pool.running) == (0, 0)
    for name in ("workers", "pending", "running"):
        with pytest.raises(AttributeError):
            setattr(pool, name, 1)


# --------------------------------------------------------------------------------------------------
# back-pressure


async def test_a_full_pool_refuses(make_pool: MakePool, gate: Gate) -> None:
    """submit raises PoolFull when max_pending jobs wait, counts it, and queues nothing."""
    pool = make_pool(1, max_pending=3)
    held = await gate.occupy(pool)
    waiting = [pool.submit(ex.echo, i) for i in range(3)]
    for fn in (ex.echo, lambda x: x):
        with pytest.raises(offgil.PoolFull) as raised:
            pool.submit(fn, 1)
        assert "3" in str(raised.value) and "max_pending" in str(raised.value)
    stats = check_balance(pool)
    assert (stats.submitted, stats.pending, stats.rejected) == (4, 3, 2)
    gate.open()
    assert await asyncio.gather(*held, *waiting) == ["through the gate", 0, 1, 2]
    assert await pool.submit(ex.echo, 9) == 9, "there is room again"


async def test_a_cancelled_job_makes_room(make_pool: MakePool, gate: Gate) -> None:
    """The place of a withdrawn job is free at once, on a plain future within two turns."""
    pool = make_pool(1, max_pending=1)
    await gate.occupy(pool)
    for i in range(100):
        future = pool.submit(ex.echo, i)
        with pytest.raises(offgil.PoolFull):
            pool.submit(ex.echo, i)
        future.cancel()
        if type(future) is asyncio.Future:
            await turns(2)
    gate.open()


async def test_run_waits_for_room_in_order(make_pool: MakePool, gate: Gate) -> None:
    """Waiters of a full pool are served first come, first served, and nothing is rejected."""
    pool = make_pool(1, max_pending=2)
    await gate.occupy(pool)
    ran: list[int] = []
    tasks = []
    for i in range(20):
        tasks.append(asyncio.create_task(pool.run(ran.append, i)))
        await turns(2)
    assert pool.pending == 2 and pool.stats().submitted == 3
    gate.open()
    await asyncio.gather(*tasks)
    assert ran == list(range(20))
    assert pool.stats().rejected == 0


async def test_a_cancelled_waiter_leaves_no_trace(make_pool: MakePool, gate: Gate) -> None:
    """Its job never runs and is not counted, its arguments die, and the others keep their order."""
    pool = make_pool(1, max_pending=1)
    await gate.occupy(pool)
    ran: list[Any] = []
    box = Box()
    ref = weakref.ref(box)
    tasks = []
    for i in range(10):
        tasks.append(asyncio.create_task(pool.run(ran.append, box if i == 4 else i)))
        await turns(2)
    del box
    tasks[4].cancel()
    tasks[7].cancel()
    await asyncio.wait([tasks[4], tasks[7]])
    assert tasks[4].cancelled() and tasks[7].cancelled()
    tasks[4] = tasks[7] = asyncio.create_task(asyncio.sleep(0))
    await turns()
    gc.collect()
    assert ref() is None
    gate.open()
    await asyncio.gather(*tasks)
    assert ran == [0, 1, 2, 3, 5, 6, 8, 9]
    await pool.drain()
    stats = check_balance(pool)
    assert (stats.submitted, stats.completed, stats.cancelled) == (9, 9, 0)


async def test_a_waiter_cancelled_as_room_appears_passes_it_on(make_pool: MakePool) -> None:
    """No wake-up is lost: whoever is not cancelled is served, in thousands of random rounds."""
    pool = make_pool(1, max_pending=1)
    rng = random.Random(5)
    served = 0

    async def one(i: int) -> None:
        nonlocal served
        assert await pool.run(ex.echo, i) == i
        served += 1

    rounds = 100 if DEBUG else 300
    kept = 0
    for _ in range(rounds):
        tasks = [asyncio.create_task(one(i)) for i in range(12)]
        await turns(rng.randrange(6))
        cancelled = {t for t in tasks if rng.random() < 0.5 and t.cancel()}
        done, late = await asyncio.wait(tasks, timeout=LIMIT)
        assert not late, "a waiter was forgotten"
        kept += sum(t not in cancelled for t in tasks)
        assert all(t.cancelled() or t.exception() is None for t in done)
    assert served >= kept
    await pool.drain()
    check_balance(pool)


async def test_pending_never_exceeds_the_bound(
    make_pool: MakePool, impatient: None, in_thread: Callable[..., threading.Thread]
) -> None:
    """However many tasks and threads push, at most max_pending jobs wait."""
    pool = make_pool(2, max_pending=5)
    stop = threading.Event()
    seen = {0}

    def watch() -> None:
        while not stop.is_set():
            seen.add(pool.pending)

    async def push_one() -> None:
        await pool.run(ex.spin, 20)
        seen.add(pool.pending)

    async def push() -> None:
        await asyncio.gather(*(push_one() for _ in range(200)))

    in_thread(watch)
    others = [in_thread(lambda: run_in_new_loop(push())) for _ in range(2)]
    try:
        await push()
        await until(lambda: not any(t.is_alive() for t in others))
    finally:
        stop.set()
    assert max(seen) <= 5
    assert pool.stats().completed == 600


async def test_the_bound_can_be_reached(make_pool: MakePool, gate: Gate) -> None:
    """Exactly max_pending jobs wait in a full pool, beside those that run."""
    pool = make_pool(2, max_pending=5)
    await gate.occupy(pool)
    tasks = [asyncio.create_task(pool.run(ex.echo, i)) for i in range(10)]
    await turns()
    assert (pool.pending, pool.running) == (5, 2)
    gate.open()
    assert await asyncio.gather(*tasks) == list(range(10))


# --------------------------------------------------------------------------------------------------
# drain


async def test_drain_waits_for_everything_submitted(pool: offgil.Pool, gate: Gate) -> None:
    """After drain every future is done; the pool goes on taking jobs."""
    held = await gate.occupy(pool)
    futures = [pool.submit(ex.echo, i) for i in range(100)]
    draining = [asyncio.create_task(pool.drain()) for _ in range(3)]
    await turns(10)
    assert not any(d.done() for d in draining)
    gate.open()
    await asyncio.gather(*draining)
    assert all(f.done() for f in [*held, *futures])
    assert await pool.submit(ex.echo, 1) == 1


async def test_drain_of_an_idle_pool_returns(pool: offgil.Pool) -> None:
    """With nothing to wait for it ends within a few turns."""
    for _ in range(3):
        await asyncio.wait_for(pool.drain(), LIMIT)


async def test_a_cancelled_drain_leaves_the_pool_alone(pool: offgil.Pool, gate: Gate) -> None:
    """Cancelling drain cancels only the waiting."""
    held = await gate.occupy(pool)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.drain(), 0.001)
    gate.open()
    assert await asyncio.gather(*held) == ["through the gate"] * 2
    await pool.drain()


# --------------------------------------------------------------------------------------------------
# close


async def test_close_finishes_what_was_submitted(make_pool: MakePool) -> None:
    """aclose returns after the last job, with its results delivered and its threads gone."""
    threads = os_threads()
    pool = make_pool(3)
    ran: list[int] = []
    futures = [pool.submit(ran.append, i) for i in range(200)]
    await pool.aclose()
    assert sorted(ran) == list(range(200))
    assert all(f.done() for f in futures)
    await until(lambda: os_threads() <= threads)


async def test_leaving_the_block_closes(flavour: Flavour) -> None:
    """`async with` gives the pool and closes it, also when the block raises."""
    async with flavour.new_pool() as pool:
        assert isinstance(pool, offgil.Pool)
        future = pool.submit(ex.echo, 3)
    assert future.result() == 3
    ran: list[int] = []
    with pytest.raises(LookupError, match="from the block"):
        async with flavour.new_pool() as pool:
            for i in range(50):
                pool.submit(ran.append, i)
            raise LookupError("from the block")
    assert len(ran) == 50
    with pytest.raises(offgil.PoolClosed):
        pool.submit(ex.echo, 1)


async def test_a_closed_pool_refuses(pool: offgil.Pool) -> None:
    """submit and run raise PoolClosed, a RuntimeError, from the moment closing begins."""
    await pool.aclose()
    with pytest.raises(offgil.PoolClosed):
        pool.submit(ex.echo, 1)
    with pytest.raises(offgil.PoolClosed):
        await pool.run(ex.echo, 1)
    assert issubclass(offgil.PoolClosed, RuntimeError)
    assert (pool.stats().submitted, pool.stats().rejected) == (0, 2)
    await pool.drain()


async def test_closing_refuses_while_it_waits(pool: offgil.Pool, gate: Gate) -> None:
    """While aclose waits for running jobs nothing new is taken."""
    await gate.occupy(pool)
    closing = asyncio.create_task(pool.aclose())
    await turns()
    with pytest.raises(offgil.PoolClosed):
        pool.submit(ex.echo, 1)
    gate.open()
    await closing


async def test_close_is_idempotent_and_concurrent_calls_all_wait(
    pool: offgil.Pool, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """Every aclose, from any loop, returns when the pool has closed, and not before."""
    held = await gate.occupy(pool)
    closing = [asyncio.create_task(pool.aclose()) for _ in range(3)]
    elsewhere = in_thread(lambda: run_in_new_loop(pool.aclose()))
    await turns(10)
    assert not any(c.done() for c in closing) and elsewhere.is_alive()
    gate.open()
    await asyncio.gather(*closing)
    assert all(f.done() for f in held)
    await until(lambda: not elsewhere.is_alive())
    await pool.aclose()


async def test_close_can_cancel_what_waits(pool: offgil.Pool, gate: Gate) -> None:
    """With cancel_pending waiting jobs never run and their futures are cancelled."""
    held = await gate.occupy(pool)
    ran: list[int] = []
    waiting = [pool.submit(ran.append, i) for i in range(50)]
    waiting += [pool.submit(ex.sleep, LIMIT) for _ in range(50)]
    closing = asyncio.create_task(pool.aclose(cancel_pending=True))
    await turns()
    gate.open()
    await closing
    assert ran == []
    assert all(f.cancelled() for f in waiting)
    assert [f.result() for f in held] == ["through the gate"] * 2
    assert check_balance(pool).cancelled == 100


async def test_close_cancels_what_waits_in_every_loop(
    pool: offgil.Pool, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """A task of another loop that waits for a cancelled job sees CancelledError there."""
    await gate.occupy(pool)
    seen: list[str] = []

    async def other() -> None:
        future = pool.submit(ex.sleep, LIMIT)
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")

    thread = in_thread(lambda: run_in_new_loop(other()))
    await until(lambda: pool.pending == 1)
    closing = asyncio.create_task(pool.aclose(cancel_pending=True))
    await until(lambda: not thread.is_alive())
    assert seen == ["cancelled"]
    gate.open()
    await closing


async def test_close_with_a_timeout_names_the_running_jobs(pool: offgil.Pool, gate: Gate) -> None:
    """It raises TimeoutError; the pool stays closing, and a later aclose waits to the end."""

    def a_slow_job() -> str:
        return gate()

    future = pool.submit(a_slow_job)
    await until(lambda: pool.running == 1)
    with pytest.raises(TimeoutError, match="a_slow_job"):
        await pool.aclose(timeout=0.01)
    with pytest.raises(offgil.PoolClosed):
        pool.submit(ex.echo, 1)
    assert not future.done()
    gate.open()
    await pool.aclose()
    assert future.result() == "through the gate"


async def test_a_timeout_that_is_not_needed_changes_nothing(pool: offgil.Pool) -> None:
    """A pool that closes in time raises nothing."""
    future = pool.submit(ex.echo, 1)
    await pool.aclose(timeout=LIMIT)
    assert future.result() == 1


@pytest.mark.parametrize("timeout", [0, 10**400, float("inf")])
async def test_an_idle_pool_closes_within_any_time(make_pool: MakePool, timeout: float) -> None:
    """Also one that has never had a job, in no time; nobody waits longer than for ever."""
    await make_pool(1).aclose(timeout=timeout)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
async def test_a_bad_timeout_closes_nothing(pool: offgil.Pool, timeout: Any) -> None:
    """aclose raises an error that names the argument."""
    with pytest.raises((TypeError, ValueError), match="timeout"):
        await pool.aclose(timeout=timeout)
    assert await pool.submit(ex.echo, 1) == 1


async def test_a_cancelled_close_can_be_called_again(pool: offgil.Pool, gate: Gate) -> None:
    """Cancelling aclose leaves a pool that takes nothing and can be closed."""
    held = await gate.occupy(pool)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.aclose(), 0.001)
    with pytest.raises(offgil.PoolClosed):
        pool.submit(ex.echo, 1)
    gate.open()
    await pool.aclose()
    assert all(f.done() for f in held)


async def test_close_leaves_the_loop_to_an_initializer(make_pool: MakePool) -> None:
    """aclose waits for one that needs the loop, and does not keep the loop from it."""
    loop = asyncio.get_running_loop()
    results: list[int] = []

    def initialize() -> None:
        results.append(asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 7), loop).result(LIMIT))

    pool = make_pool(1, initializer=initialize)
    job = pool.submit(ex.echo, 1)
    await pool.aclose(timeout=LIMIT)
    assert results == [7] and job.result() == 1


async def test_close_leaves_the_loop_to_a_done_callback(make_pool: MakePool) -> None:
    """The same for a callback of the pool's executor, which the pool's own thread calls."""
    loop = asyncio.get_running_loop()
    pool = make_pool(1)
    results: list[int] = []

    def call_back(future: concurrent.futures.Future[Any]) -> None:
        results.append(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, 7), loop).result(LIMIT))

    pool.executor.submit(ex.sleep, 0.05).add_done_callback(call_back)
    await pool.aclose(timeout=LIMIT)
    assert results == [7]


async def test_close_without_a_thread_to_wait_in(
    make_pool: MakePool, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None can be had, as on Python 3.12 after the end of the main thread: the loop looks."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = make_pool(1, initializer=gate)
    pool.submit(ex.echo, 1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        closing = asyncio.create_task(pool.aclose(timeout=LIMIT))
        await asyncio.wait([closing], timeout=0.02)
        assert not closing.done(), "the pool still has its initializer to run"
        gate.open()
        await closing


async def test_close_in_time_names_an_initializer(make_pool: MakePool, gate: Gate) -> None:
    """There is no job that would be named: the one that waits has not begun."""
    pool = make_pool(1, initializer=gate)
    pool.submit(ex.echo, 1)
    with pytest.raises(TimeoutError, match="an initializer"):
        await pool.aclose(timeout=0.01)
    gate.open()
    await pool.aclose(timeout=LIMIT)


async def test_close_in_time_names_a_done_callback(make_pool: MakePool, gate: Gate) -> None:
    """The same for a callback."""
    pool = make_pool(1)
    pool.executor.submit(ex.sleep, 0.05).add_done_callback(lambda _: gate())
    with pytest.raises(TimeoutError, match="a done callback"):
        await pool.aclose(timeout=0.2)
    gate.open()
    await pool.aclose(timeout=LIMIT)


async def test_its_repr_says_that_it_is_closed(make_pool: MakePool) -> None:
    """And how much there is to do."""
    pool = make_pool(2, name="mine")
    assert repr(pool) == "<Pool 'mine' workers=2 pending=0 running=0>"
    await pool.aclose()
    assert repr(pool) == "<Pool 'mine' closed workers=2 pending=0 running=0>"


@pytest.mark.parametrize("door", ["submit", "run", "drain"])
async def test_what_is_given_up_does_not_pile_up(
    make_pool: MakePool, gate: Gate, door: str
) -> None:
    """A service that gives up on a pool that is stuck keeps nothing of it."""
    pool = make_pool(1, max_pending=1 if door == "run" else None)
    held = await gate.occupy(pool)
    if door == "run":
        held.append(pool.submit(ex.echo, 1))
    given_up: list[weakref.ref[Any]] = []
    for i in range(6000):
        future: asyncio.Future[Any]
        if door == "submit":
            future = pool.submit(ex.echo, i)
        elif door == "run":
            future = pool._submit_in_line(ex.echo, i)
        else:
            future = pool._when_idle()
        given_up.append(weakref.ref(future))
        future.cancel()
        del future
        if i % 500 == 0:
            await turns()
    await turns()
    await until(lambda: sum(each() is not None for each in given_up) < 3000)
    assert pool.pending == len(held) - 1
    gate.open()
    await asyncio.gather(*held)


@pytest.mark.parametrize("ends_by", ["aclose", "being dropped"])
def test_a_loop_that_is_only_left_is_not_kept(flavour: Flavour, ends_by: str) -> None:
    """A pool that ends elsewhere asks such a loop to let go, which it will never do.

    uvloop's are never freed unless they are closed.
    """

    def leave_a_loop() -> weakref.ref[Any]:
        loop = LOOPS["asyncio"]()

        async def use_a_pool() -> offgil.Pool:
            pool = flavour.new_pool(1)
            await pool.submit(ex.echo, 1)
            return pool

        pool = loop.run_until_complete(use_a_pool())
        if ends_by == "aclose":
            run_in_new_loop(pool.aclose())
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        left = [leave_a_loop() for _ in range(3)]
        gc.collect()
        gc.collect()
    assert [each() for each in left] == [None] * 3


async def test_close_ends_the_waiters_of_run(make_pool: MakePool, gate: Gate) -> None:
    """Who waits for room in a pool that closes gets PoolClosed; nobody waits for ever."""
    pool = make_pool(1, max_pending=1)
    held = await gate.occupy(pool)
    accepted = pool.submit(ex.echo, 7)
    waiters = [asyncio.create_task(pool.run(ex.echo, i)) for i in range(5)]
    await turns(5)
    closing = asyncio.create_task(pool.aclose())
    await turns(5)
    gate.open()
    await closing
    got = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), LIMIT)
    assert [type(e) for e in got] == [offgil.PoolClosed] * 5
    assert accepted.result() == 7 and held[0].done()


async def test_close_from_a_worker_is_refused(pool: offgil.Pool) -> None:
    """A job that closes its own pool gets RuntimeError and has changed nothing."""

    def close() -> None:
        run_in_new_loop(pool.aclose())

    with pytest.raises(RuntimeError, match="aclose"):
        await pool.submit(close)
    assert await pool.submit(ex.echo, 1) == 1


async def test_a_worker_may_close_another_pool(make_pool: MakePool) -> None:
    """Only the own pool is refused."""
    one, other = make_pool(1), make_pool(1)
    future = other.submit(ex.echo, 2)
    await one.submit(lambda: run_in_new_loop(other.aclose()))
    assert await future == 2


async def test_a_pool_that_is_dropped_lets_its_threads_go(flavour: Flavour) -> None:
    """Without aclose its jobs finish and its threads end, and nothing keeps it alive."""
    threads = os_threads()
    pool = flavour.new_pool(2)
    ran: list[int] = []
    futures = [pool.submit(ran.append, i) for i in range(20)]
    ref = weakref.ref(pool)
    await asyncio.gather(*futures)
    del futures, pool
    await turns()
    gc.collect()
    assert ref() is None
    await until(lambda: os_threads() <= threads)
    assert len(ran) == 20


# --------------------------------------------------------------------------------------------------
# statistics


async def test_stats_count_each_kind_of_end(pool: offgil.Pool, gate: Gate) -> None:
    """completed, failed and cancelled are told apart; expired and dropped stay zero."""
    await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(10)))
    for job in ((ex.fail, "invalid_argument"), (int, "not a number")):
        with pytest.raises(ValueError):
            await pool.submit(*job)
    held = await gate.occupy(pool)
    for _ in range(3):
        pool.submit(ex.echo, 1).cancel()
    await turns(2)
    gate.open()
    await asyncio.gather(*held)
    await pool.drain()
    s = check_balance(pool)
    assert (s.submitted, s.completed, s.failed, s.cancelled) == (17, 12, 2, 3)
    assert (s.expired, s.rejected, s.dropped, s.pending, s.running) == (0, 0, 0, 0, 0)


async def test_stats_are_a_frozen_dataclass(pool: offgil.Pool) -> None:
    """A snapshot cannot be changed and does not change."""
    before = pool.stats()
    assert dataclasses.is_dataclass(before)
    assert type(before) is offgil.PoolStats
    await pool.submit(ex.echo, 1)
    assert before.submitted == 0 and pool.stats().submitted == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.submitted = 5  # type: ignore[misc]


async def test_stats_balance_at_every_moment(
    pool: offgil.Pool, in_thread: Callable[..., threading.Thread]
) -> None:
    """Sampled from another thread under load with failures and cancels, no job is ever missing."""
    stop = threading.Event()
    samples = 0

    def sample() -> None:
        nonlocal samples
        last = 0
        while not stop.is_set():
            stats = check_balance(pool)
            assert stats.submitted >= last, "counters only grow"
            last = stats.submitted
            samples += 1

    async def load(seed: int) -> None:
        rng = random.Random(seed)
        for i in range(60 if DEBUG else 300):
            futures: list[Any] = [pool.submit(ex.spin, rng.randrange(5)) for _ in range(4)]
            futures.append(pool.submit(ex.fail, "range_error"))
            futures.append(pool.submit(abs, i))
            for future in futures:
                if rng.random() < 0.3:
                    future.cancel()
            await asyncio.wait(futures)
            for future in futures:
                future.cancelled() or future.exception()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    thread = in_thread(sample)
    try:
        await asyncio.gather(*(load(seed) for seed in range(4)))
    finally:
        stop.set()
        sys.setswitchinterval(switch)
    await until(lambda: not thread.is_alive())
    assert samples > 20
    await pool.drain()
    stats = check_balance(pool)
    assert stats.pending == stats.running == 0


async def test_stats_measure_time(pool: offgil.Pool, gate: Gate) -> None:
    """Busy seconds per worker and histograms of wait and run time, one entry per job that ran."""
    held = await gate.occupy(pool)
    slow = pool.submit(ex.sleep, 0.02)
    cancelled = pool.submit(ex.sleep, 0.02)
    cancelled.cancel()
    await asyncio.sleep(0.01)
    gate.open()
    await asyncio.gather(slow, *held)
    await pool.drain()
    s = pool.stats()
    assert len(s.worker_busy_seconds) == pool.workers
    assert sum(s.worker_busy_seconds) >= 0.02
    for histogram in (s.wait_seconds, s.run_seconds):
        assert isinstance(histogram, offgil.Histogram)
        assert list(histogram.bounds) == sorted(set(histogram.bounds))
        assert len(histogram.counts) == len(histogram.bounds) + 1, "the last one has no bound"
        assert sum(histogram.counts) == 3
        assert histogram.sum >= 0
    assert s.run_seconds.sum == pytest.approx(sum(s.worker_busy_seconds))
    assert s.wait_seconds.sum >= 0.005


async def test_native_jobs_never_take_the_gil(make_pool: MakePool, flavour: Flavour) -> None:
    """By the eventfd pool threads take the GIL for Python jobs only, by callback to wake the loop.

    That is now and then, and again where the loop is slow to answer; not for each job.
    """
    pool = make_pool(2)
    n = 5000
    await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(n)))
    with pytest.raises(ValueError):
        await pool.submit(ex.fail, "invalid_argument")
    s = pool.stats()
    if flavour.delivery == "eventfd":
        assert s.gil_acquisitions == 0
    else:
        assert 1 <= s.gil_acquisitions <= n / 100
    await pool.submit(len, "x")
    assert pool.stats().gil_acquisitions > s.gil_acquisitions


async def test_many_results_come_with_one_wake_up(make_pool: MakePool) -> None:
    """Under load the loop is woken once per batch, and a batch holds many results."""
    pool = make_pool(2)
    n = 10_000 if not DEBUG else 1_000
    futures = [pool.submit(ex.echo, i) for i in range(n)]
    block_until(lambda: pool.pending == pool.running == 0)
    assert await asyncio.gather(*futures) == list(range(n))
    s = pool.stats()
    assert 1 <= s.wakeups <= n / 100
    assert 1 <= s.batches <= n / 100


# --------------------------------------------------------------------------------------------------
# loops and threads


async def test_many_loops_and_threads_share_one_pool(
    make_pool: MakePool, in_thread: Callable[..., threading.Thread]
) -> None:
    """Every loop gets its own results, on its own thread."""
    pool = make_pool(3)

    async def use(base: int) -> None:
        here = threading.get_ident()

        async def one(i: int) -> None:
            assert await pool.submit(ex.echo, i) == i
            assert await pool.submit(lambda: -i) == -i
            assert threading.get_ident() == here

        for start in range(base, base + JOBS, 50):
            await asyncio.gather(*(one(i) for i in range(start, start + 50)))

    factories = list(LOOPS.values()) * 2
    threads = [
        in_thread(lambda n=n, new=new: run_in_new_loop(use(n * 1000), new))
        for n, new in enumerate(factories)
    ]
    await use(100_000)
    await until(lambda: not any(t.is_alive() for t in threads))
    await pool.drain()
    assert check_balance(pool).completed == 2 * JOBS * (len(factories) + 1)


def test_one_pool_serves_several_loops_in_turn(
    flavour: Flavour, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A pool made outside any loop outlives each, and keeps neither a loop nor its descriptors."""
    pool = flavour.new_pool(2)

    async def use(i: int) -> Any:
        assert await asyncio.gather(*(pool.submit(ex.echo, n) for n in range(50))) == [*range(50)]
        assert await pool.run(lambda: i) == i
        return weakref.ref(asyncio.get_running_loop())

    refs = [run_in_new_loop(use(i), loop_factory) for i in range(3)]
    gc.collect()
    fds, threads = open_fds(), os_threads()
    refs += [run_in_new_loop(use(i), loop_factory) for i in range(20)]
    gc.collect()
    assert (open_fds(), os_threads()) == (fds, threads)
    assert sum(ref() is not None for ref in refs) <= 1, "closed loops are kept alive"
    run_in_new_loop(pool.aclose(), loop_factory)
    assert check_balance(pool).completed == 23 * 51


async def test_another_thread_can_hand_in_work(
    pool: offgil.Pool, in_thread: Callable[..., threading.Thread]
) -> None:
    """asyncio.run_coroutine_threadsafe works with run."""
    loop = asyncio.get_running_loop()
    got: list[int] = []

    def hand_in() -> None:
        for i in range(20):
            got.append(asyncio.run_coroutine_threadsafe(pool.run(ex.echo, i), loop).result(LIMIT))

    thread = in_thread(hand_in)
    await until(lambda: not thread.is_alive())
    assert got == list(range(20))


@pytest.mark.parametrize("ended", ["after", "before"])
def test_results_of_a_closed_loop_are_dropped_and_counted(
    flavour: Flavour,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    gate: Gate,
    capfd: pytest.CaptureFixture[str],
    ended: str,
) -> None:
    """Jobs that end after, or undelivered before, their loop closes say nothing; the pool lives."""
    pool = flavour.new_pool(1)
    loop = loop_factory()
    futures: list[Any] = []

    async def leave() -> None:
        futures.append(pool.submit(gate))
        futures.extend(pool.submit(ex.echo, i) for i in range(5))
        futures.append(pool.submit(ex.fail, "invalid_argument"))
        futures.append(pool.submit(int, "not a number"))

    loop.run_until_complete(leave())
    if ended == "before":
        gate.open()
        block_until(lambda: pool.pending == pool.running == 0)
    loop.close()
    gate.open()
    block_until(lambda: pool.pending == pool.running == 0)
    del loop
    gc.collect()

    async def use() -> None:
        assert await pool.submit(ex.echo, 3) == 3
        await until(lambda: pool.stats().dropped == 8)
        await pool.aclose()

    run_in_new_loop(use(), loop_factory)
    assert not any(f.done() for f in futures)
    del futures[:]
    gc.collect()
    assert check_balance(pool).completed + pool.stats().failed == 9
    assert pool.stats().dropped == 8
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ended", ["after", "before"])
def test_results_of_a_closed_loop_die_though_the_pool_is_idle(
    flavour: Flavour,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    gate: Gate,
    ended: str,
) -> None:
    """Nobody submits, asks the pool for anything, or makes another loop."""

    class Result:
        pass

    alive: list[weakref.ref[Result]] = []

    def job() -> Result:
        made = Result()
        alive.append(weakref.ref(made))
        return made

    pool = flavour.new_pool(1)
    loop = loop_factory()

    async def leave() -> None:
        pool.submit(gate)
        for _ in range(3):
            pool.submit(job)

    loop.run_until_complete(leave())
    if ended == "before":
        gate.open()
        block_until(lambda: len(alive) == 3)
    loop.close()
    gate.open()
    block_until(lambda: len(alive) == 3 and not any(each() for each in alive))
    run_in_new_loop(pool.aclose(), loop_factory)
    assert pool.stats().dropped == 4


def test_a_pool_closes_after_the_loop_that_used_it(
    flavour: Flavour, loop_factory: Callable[[], asyncio.AbstractEventLoop], gate: Gate
) -> None:
    """aclose in a second loop waits for jobs whose own loop has gone."""
    pool = flavour.new_pool(1)
    loop = loop_factory()

    async def leave() -> None:
        for job in (gate, functools.partial(time.sleep, 0)):
            pool.submit(job)

    loop.run_until_complete(leave())
    loop.close()

    async def close() -> None:
        closing = asyncio.create_task(pool.aclose())
        await turns(10)
        assert not closing.done()
        gate.open()
        await closing

    run_in_new_loop(close(), loop_factory)
    stats = check_balance(pool)
    assert (stats.completed, stats.dropped) == (2, 2)


# --------------------------------------------------------------------------------------------------
# Python jobs


async def test_a_python_job_sees_the_submitters_context(pool: offgil.Pool) -> None:
    """Context variables are carried into the job, and what it sets stays there."""
    var = contextvars.ContextVar("var", default="nothing")

    def job() -> str:
        seen = var.get()
        var.set("set in the job")
        return seen

    assert await pool.submit(job) == "nothing"
    var.set("set before")
    future = pool.submit(job)
    var.set("set after")
    assert await future == "set before"
    assert await pool.run(job) == "set after"
    assert var.get() == "set after"


async def test_a_python_exception_keeps_its_traceback(pool: offgil.Pool) -> None:
    """The awaiter sees the very exception, with the frames of the job and a note that names it."""
    thrown = LookupError("from the job")

    def deep() -> None:
        raise thrown

    def a_failing_job() -> None:
        deep()

    with pytest.raises(LookupError) as raised:
        await pool.submit(a_failing_job)
    assert raised.value is thrown
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert frames[-2:] == ["a_failing_job", "deep"]
    assert any("a_failing_job" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("sort", ["ascii", "größer"])
async def test_an_exception_that_is_raised_again_and_again(pool: offgil.Pool, sort: str) -> None:
    """One note for all jobs of a callable: they were added without end."""
    thrown = LookupError("kept by the module that raises it")

    def job() -> None:
        raise thrown

    job.__qualname__ = sort
    for _ in range(5):
        with pytest.raises(LookupError):
            await pool.submit(job)
    assert thrown.__notes__ == [f"in job {sort}"]


def named_jobs(thrown: BaseException, count: int) -> list[Callable[[], None]]:
    """Jobs with names of their own that raise the same exception object."""

    def make(number: int) -> Callable[[], None]:
        def job() -> None:
            raise thrown

        job.__qualname__ = f"job_{number}"
        return job

    return [make(number) for number in range(count)]


async def raise_all(pool: offgil.Pool, jobs: list[Callable[[], None]]) -> None:
    for job in jobs:
        with pytest.raises(LookupError):
            await pool.submit(job)


async def test_an_exception_that_several_jobs_raise_in_turn(pool: offgil.Pool) -> None:
    """Each one's note once; only the last note was looked at, and they were added without end."""
    thrown = LookupError("kept by the module that raises it")
    thrown.add_note("the module's own")
    await raise_all(pool, named_jobs(thrown, 3) * 5)
    names = ["in job job_0", "in job job_1", "in job job_2"]
    assert thrown.__notes__ == ["the module's own", *names]


async def test_an_exception_that_any_number_of_jobs_raise(pool: offgil.Pool) -> None:
    """The first ones' notes: a traceback that can be read, and no raise that looks at them all."""
    thrown = LookupError("kept by the module that raises it")
    await raise_all(pool, named_jobs(thrown, 50) * 2)
    assert thrown.__notes__ == [f"in job job_{n}" for n in range(16)]
    thrown.__notes__ = [f"own {n}" for n in range(1000)]
    await raise_all(pool, named_jobs(thrown, 3))
    assert len(thrown.__notes__) == 1000


@pytest.mark.parametrize("notes", [["a", b"b", None, 5], (), "text", None], ids=repr)
async def test_notes_that_are_no_list_of_texts(pool: offgil.Pool, notes: Any) -> None:
    """They stay as they are, or get one more where that can be."""
    thrown: Any = LookupError()
    thrown.__notes__ = notes
    await raise_all(pool, named_jobs(thrown, 1) * 3)
    assert thrown.__notes__ is notes
    assert notes in (["a", b"b", None, 5, "in job job_0"], (), "text", None)


async def test_the_note_survives_odd_names_and_exceptions(pool: offgil.Pool) -> None:
    """A callable without a name, and an exception that refuses notes, still fail normally."""

    class Nameless:
        def __call__(self) -> None:
            raise LookupError

        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    with pytest.raises(LookupError):
        await pool.submit(Nameless())

    class Stubborn(Exception):
        def add_note(self, note: str) -> None:
            raise ZeroDivisionError

    def stubborn() -> None:
        raise Stubborn

    with pytest.raises(Stubborn):
        await pool.submit(stubborn)


async def test_stop_iteration_becomes_a_runtime_error(pool: offgil.Pool) -> None:
    """A StopIteration cannot be raised into a coroutine: it becomes the cause of RuntimeError."""

    class MyStop(StopIteration):
        pass

    def job(kind: type[BaseException]) -> None:
        raise kind("stop")

    for kind in (StopIteration, MyStop):
        with pytest.raises(RuntimeError) as raised:
            await pool.submit(job, kind)
        assert type(raised.value.__cause__) is kind
    with pytest.raises(RuntimeError):
        await pool.submit(next, iter(()))


async def test_a_falsy_exception_is_raised(pool: offgil.Pool) -> None:
    """An exception class whose instances are false, or empty, is an exception all the same."""

    class Falsy(Exception):
        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

    def job() -> None:
        raise Falsy

    with pytest.raises(Falsy):
        await pool.submit(job)
    assert pool.stats().failed == 1


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException]
)
async def test_a_base_exception_becomes_the_futures(
    make_pool: MakePool, kind: type[BaseException]
) -> None:
    """It ends neither the worker nor the loop."""
    pool = make_pool(1)

    def job() -> None:
        raise kind("from the job")

    future = pool.submit(job)
    await asyncio.wait([future])
    assert not future.cancelled()
    assert type(future.exception()) is kind
    assert await pool.submit(ex.echo, 1) == 1
    assert await pool.submit(len, "alive") == 5
    assert pool.stats().failed == 1


async def test_references_are_dropped_when_the_job_has_ended(pool: offgil.Pool) -> None:
    """Function, arguments and result die with their last user, while the pool lives on."""

    def job(*args: Any, **kwargs: Any) -> Box:
        return Box()

    def failing(*args: Any) -> None:
        raise LookupError(args)

    arg, named = Box(), Box()
    refs: list[Any] = [weakref.ref(thing) for thing in (job, arg, named)]
    future = pool.submit(job, arg, named=named)
    del job, arg, named
    result = await future
    refs.append(weakref.ref(result))
    await turns()
    await until(lambda: [r() for r in refs[:3]] == [None] * 3)
    del future, result
    assert refs[3]() is None, "the result died with its future, without a collection"

    arg = Box()
    refs = [weakref.ref(failing), weakref.ref(arg)]
    with pytest.raises(LookupError):
        await pool.submit(failing, arg)
    del failing, arg
    await turns()
    gc.collect()
    await until(lambda: [r() for r in refs] == [None] * 2)


async def test_a_dropped_result_dies(pool: offgil.Pool, gate: Gate) -> None:
    """The result of an abandoned job is let go, under the GIL."""
    refs: list[Any] = []

    def job() -> Box:
        gate()
        box = Box()
        refs.append(weakref.ref(box))
        return box

    future = pool.submit(job)
    await until(lambda: pool.running == 1)
    future.cancel()
    gate.open()
    await pool.drain()
    await until(lambda: refs and refs[0]() is None)


async def test_finalizers_run_where_python_is_allowed(pool: offgil.Pool) -> None:
    """A __del__ of an argument or result may use Python and the pool, wherever it runs."""
    deaths: list[str] = []

    class Mortal:
        def __del__(self) -> None:
            deaths.append(f"{pool.pending >= 0} {threading.current_thread() is not None}")

    def job(_: Any) -> Mortal:
        return Mortal()

    for _ in range(50):
        await pool.submit(job, Mortal())
        pool.submit(job, Mortal()).cancel()
    await pool.drain()
    await turns()
    gc.collect()
    await until(lambda: len(deaths) >= 100)
    assert set(deaths) == {"True True"}


# --------------------------------------------------------------------------------------------------
# worker threads


async def test_signals_on_pool_threads(make_pool: MakePool) -> None:
    """A worker blocks what the pool's maker did: a process that a native starts inherits that.

    Signals go to the main thread, as ever.
    """
    makers = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pool = make_pool(1, name="masked")
    await pool.submit(ex.echo, 1)
    assert blocked_by_threads("masked-0") == {"masked-0": makers}
    assert await pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []) == makers
    assert signal.SIGINT not in makers


async def test_threads_carry_the_pools_name(make_pool: MakePool) -> None:
    """A process list tells whose threads they are."""
    pool = make_pool(1, name="digger")
    comm = await pool.submit(
        lambda: Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text()
    )
    assert comm.startswith("digger")


async def test_nice_is_added_to_the_workers_only(make_pool: MakePool) -> None:
    """Workers give way; the thread that made them keeps its niceness."""
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pool = make_pool(1, nice=5)
    assert await pool.submit(
        lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    ) == min(mine + 5, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine


async def test_a_spinning_pool_gives_the_same_results(make_pool: MakePool) -> None:
    """spin changes when a worker sleeps and nothing else."""
    pool = make_pool(2, spin=0.0005)
    for i in range(50):
        assert await pool.submit(ex.echo, i) == i
    assert await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(500))) == [*range(500)]


def test_endless_recursion_in_a_job_is_a_recursion_error() -> None:
    """A worker's stack is deep enough for Python's own limit."""
    out = check_script(
        """
        import asyncio, offgil

        def dig(n):
            return dig(n + 1)

        async def main():
            async with offgil.Pool(1) as pool:
                try:
                    await pool.submit(dig, 0)
                except RecursionError:
                    print("RecursionError")

        asyncio.run(main())
        """
    )
    assert out == "RecursionError\n"
