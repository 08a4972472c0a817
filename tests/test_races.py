"""Races, provoked: what may happen at the same time does, thousands of times."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support import DEBUG, LIMIT, Flavour, Gate, busy, check_balance, run_in_new_loop, turns, until

import offgil
from offgil import examples as ex

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROUNDS = 3000 if not DEBUG else 500


class Box:
    """Something a weak reference can point to."""


@pytest.fixture(params=[1, 2, 3])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def busy_with(_: Box, microseconds: float) -> None:
    busy(microseconds)


def note_end(seen: list[bool], future: asyncio.Future[Any]) -> None:
    seen.append(future.cancelled())


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
async def test_cancel_around_completion(pool: offgil.Pool, native: bool, impatient: None) -> None:
    """However a cancel falls, before, during or after the job, one end is seen and counted."""
    rng = random.Random(1 if native else 2)
    loop = asyncio.get_running_loop()
    refs: list[weakref.ref[Any]] = []
    ends = {"result": 0, "cancelled": 0}
    rounds = ROUNDS if native else ROUNDS // 3

    for i in range(rounds):
        job_time = rng.uniform(0, 30)
        box = Box()
        future: asyncio.Future[Any]
        if native:
            future = pool.submit(ex.spin, job_time)
        else:
            refs.append(weakref.ref(box))
            future = pool.submit(busy_with, box, job_time)
        callbacks: list[bool] = []
        if i % 2:
            future.add_done_callback(partial(note_end, callbacks))
        del box
        how = rng.randrange(4)
        if how == 0:
            busy(rng.uniform(0, 60))
            future.cancel()
        elif how == 1:
            loop.call_soon(future.cancel)
        elif how == 2:
            await turns(rng.randrange(40))
            future.cancel()
        else:
            loop.call_later(rng.uniform(0, 0.002), future.cancel)
        try:
            await future
            ends["result"] += 1
            assert not future.cancelled()
        except asyncio.CancelledError:
            ends["cancelled"] += 1
            assert future.cancelled()
        if i % 2:
            await turns()
            assert callbacks == [future.cancelled()]
        del future

    await pool.drain()
    await turns()
    gc.collect()
    stats = check_balance(pool)
    assert stats.pending == stats.running == 0
    assert stats.submitted == rounds == sum(ends.values())
    assert stats.failed == 0
    assert stats.cancelled <= ends["cancelled"], "an abandoned job may still count as completed"
    assert min(ends.values()) > rounds / 50, f"the race did not take place: {ends}"
    await until(lambda: not any(ref() for ref in refs))


async def test_cancel_of_whole_batches(pool: offgil.Pool, impatient: None) -> None:
    """Tasks that cancel each other across a batch all end, and the counts agree."""
    rng = random.Random(3)
    ends = 0

    async def one(i: int, others: list[asyncio.Task[None]], go: asyncio.Event) -> None:
        nonlocal ends
        try:
            await go.wait()
            for _ in range(3):
                assert await pool.submit(ex.echo, i) == i
                if rng.random() < 0.2:
                    rng.choice(others).cancel()
        finally:
            ends += 1

    rounds = 60 if not DEBUG else 15
    started = 0
    for _ in range(rounds):
        tasks: list[asyncio.Task[None]] = []
        go = asyncio.Event()
        tasks.extend(asyncio.create_task(one(i, tasks, go)) for i in range(50))
        # Each begins before the first may cancel another, so that each runs its `finally`. Without
        # the event that was luck: a drain left from the round before may come between two of them.
        await turns(1)
        go.set()
        started += len(tasks)
        done, pending = await asyncio.wait(tasks, timeout=LIMIT)
        assert not pending
        assert all(t.cancelled() or t.exception() is None for t in done)
    assert ends == started
    await pool.drain()
    check_balance(pool)


async def test_close_while_others_submit(
    flavour: Flavour, impatient: None, in_thread: Callable[..., threading.Thread]
) -> None:
    """Each submit is either refused with PoolClosed, or its job ends: nothing in between."""
    rng = random.Random(4)

    async def push(pool: offgil.Pool, go: threading.Barrier, counts: list[int]) -> None:
        futures: list[asyncio.Future[Any]] = []
        go.wait(LIMIT)
        try:
            for i in range(10_000):
                futures.append(pool.submit(ex.echo, i) if i % 4 else pool.submit(abs, -i))
                if i % 16 == 0:
                    await asyncio.sleep(0)
        except offgil.PoolClosed:
            pass
        results = await asyncio.wait_for(asyncio.gather(*futures), LIMIT)
        assert results == list(range(len(futures)))
        counts.append(len(futures))

    for _ in range(25 if not DEBUG else 8):
        pool, go = flavour.new_pool(2), threading.Barrier(3)
        counts: list[int] = []
        run = partial(push, pool, go, counts)
        threads = [in_thread(lambda run=run: run_in_new_loop(run())) for _ in range(2)]
        go.wait(LIMIT)
        busy(rng.uniform(0, 2000))
        await pool.aclose()
        while any(t.is_alive() for t in threads):
            await asyncio.sleep(0.001)
        stats = check_balance(pool)
        assert len(counts) == 2 and stats.pending == stats.running == 0
        assert stats.submitted == stats.completed == sum(counts)


async def test_aclose_cancels_while_jobs_start_and_end(flavour: Flavour, impatient: None) -> None:
    """cancel_pending at a random moment: each future ends once, with a result or cancelled."""
    rng = random.Random(6)
    cancelled = 0
    for i in range(60 if not DEBUG else 16):
        pool, gate = flavour.new_pool(2), Gate()
        held = await gate.occupy(pool)  # so that it does not matter how long submitting takes
        ran: list[int] = []
        futures: list[Any] = [pool.submit(ran.append, i) for i in range(30)]
        longest = 400 if i % 4 == 0 else 20  # microseconds: more, or less, than the moment below
        futures += [pool.submit(ex.spin, rng.uniform(0, longest)) for _ in range(100)]
        gate.open()
        busy(rng.uniform(0, 1500))
        await pool.aclose(cancel_pending=True)
        assert all(f.done() for f in futures)
        assert sorted(ran) == [i for i, f in enumerate(futures[:30]) if not f.cancelled()]
        stats = check_balance(pool)
        withdrawn = sum(f.cancelled() for f in futures)
        assert (stats.completed, stats.cancelled) == (2 + 130 - withdrawn, withdrawn)
        assert all(f.done() for f in held)
        cancelled += withdrawn
    assert cancelled > 0, "the race did not take place"


async def test_loops_that_close_with_results_under_way(
    pool: offgil.Pool, impatient: None, in_thread: Callable[..., threading.Thread]
) -> None:
    """Loops come and go at random moments; results are delivered or dropped, and counted."""
    delivered = [0, 0]

    def come_and_go(me: int) -> None:
        rng = random.Random(me)

        async def leave() -> list[Any]:
            futures: list[Any] = [pool.submit(ex.spin, rng.uniform(0, 20)) for _ in range(20)]
            futures += [pool.submit(abs, -1) for _ in range(5)]
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            return futures

        for _ in range(60 if not DEBUG else 20):
            futures = run_in_new_loop(leave())
            delivered[me] += sum(f.done() for f in futures)

    threads = [in_thread(come_and_go, me) for me in (0, 1)]
    for i in range(1000):
        assert await pool.submit(ex.echo, i) == i
    await until(lambda: not any(t.is_alive() for t in threads))
    await pool.drain()
    gc.collect()
    stats = check_balance(pool)
    jobs = 2 * 25 * (60 if not DEBUG else 20)
    assert stats.completed == jobs + 1000
    await pool.submit(ex.echo, 1)
    await until(lambda: pool.stats().dropped == jobs - sum(delivered))


async def test_soak(pool: offgil.Pool, seed: int) -> None:
    """A random mix under an aggressive collector: values, ends and counters all agree."""
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    kinds = {"echo": 50, "cancel": 10, "fail": 10, "drop": 5, "set": 5, "cycle": 5, "gather": 5}
    kinds |= {"task": 5, "python": 5}
    counts = dict.fromkeys(kinds, 0)

    async def one(i: int) -> None:
        (kind,) = rng.choices([*kinds], [*kinds.values()])
        counts[kind] += 1
        future: Any
        if kind == "echo":
            assert await pool.submit(ex.echo, i) == i
        elif kind == "python":
            assert await pool.submit(dict, [("a", i)], b="b") == {"a": i, "b": "b"}
        elif kind == "fail":
            with pytest.raises(ValueError):
                await (pool.submit(int, "x") if i % 2 else pool.submit(ex.fail, "domain_error"))
        elif kind == "cancel":
            future = pool.submit(ex.spin, 2)
            if rng.random() < 0.5:
                future.cancel()
            else:
                loop.call_soon(future.cancel)
            await asyncio.wait([future])
            assert future.cancelled() or future.exception() is None
        elif kind == "drop":
            pool.submit(ex.echo, i)
            pool.submit(str, i)
        elif kind == "set":
            future = pool.submit(ex.spin, 1)
            future.set_result("mine")
            assert await future == "mine"
        elif kind == "cycle":
            future = pool.submit(ex.echo, i)
            future.add_done_callback(lambda _, f=future: None)
            future.itself = [future]
        elif kind == "gather":
            futures = [pool.submit(ex.echo, j) for j in range(8)]
            assert await asyncio.gather(*futures) == list(range(8))
            repr(futures)
        else:
            task = asyncio.current_task()
            assert task is not None
            loop.call_soon(task.cancel)
            try:
                await pool.submit(ex.spin, 5)
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                task.uncancel()

    usual = gc.get_threshold()
    gc.set_threshold(23, 2, 2)
    try:
        give_up = time.monotonic() + 0.7
        while time.monotonic() < give_up:
            await asyncio.gather(*(one(i) for i in range(100)))
    finally:
        gc.set_threshold(*usual)
    await pool.drain()
    await turns()
    stats = check_balance(pool)
    assert stats.pending == stats.running == stats.dropped == 0
    assert stats.failed == counts["fail"]
    assert stats.completed >= counts["echo"] + counts["python"] + 8 * counts["gather"]
