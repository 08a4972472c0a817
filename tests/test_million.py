"""Many jobs: none lost, none twice, and everything given back afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Any

import pytest
from support import (
    DEBUG,
    FLAVOURS,
    LIMIT,
    Flavour,
    Gate,
    check_balance,
    open_fds,
    os_threads,
    rss_mib,
    turns,
    until,
)

import offgil
from offgil import examples as ex

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MILLION = 1_000_000 if not DEBUG else 10_000  # debug mode keeps a stack for every future
TASKS = 256


async def hammer(pool: offgil.Pool, first: int, count: int) -> bytearray:
    """Await count jobs from many tasks at once; return how often each result was seen."""
    seen = bytearray(count)
    ids = iter(range(first, first + count))

    async def one() -> None:
        for i in ids:
            result = await pool.submit(ex.echo, i)
            assert result == i
            seen[result - first] += 1

    await asyncio.gather(*(one() for _ in range(TASKS)))
    return seen


async def gather(pool: offgil.Pool, first: int, count: int, chunk: int = 10_000) -> bytearray:
    """Gather count jobs in chunks; return how often each result was seen."""
    seen = bytearray(count)
    for start in range(first, first + count, chunk):
        ids = range(start, min(start + chunk, first + count))
        results = await asyncio.gather(*(pool.submit(ex.echo, i) for i in ids))
        assert results == list(ids)
        for result in results:
            seen[result - first] += 1
    return seen


@pytest.mark.parametrize("flavour", ["inline", "plain"], indirect=True)
async def test_a_million_native_jobs(
    pool: offgil.Pool, flavour: Flavour, request: pytest.FixtureRequest
) -> None:
    """Every result is right and comes exactly once, and no pool thread ever takes the GIL."""
    everything = flavour.kind == "inline" and "asyncio" in request.node.name
    n = MILLION if everything else MILLION // 5
    half = n // 2
    seen = await hammer(pool, 0, half) + await gather(pool, half, n - half)
    assert seen == b"\x01" * n
    await pool.drain()
    stats = check_balance(pool)
    assert (stats.completed, stats.failed, stats.cancelled, stats.dropped) == (n, 0, 0, 0)
    assert stats.gil_acquisitions == 0
    assert sum(stats.run_seconds.counts) == sum(stats.wait_seconds.counts) == n
    assert stats.wakeups < n / 10 and stats.batches < n / 10
    if flavour.kind == "inline" and not DEBUG:  # then through the loop
        assert n <= stats.inline_wakeups <= n + 1, "one for each job, and at most one for drain()"
        assert stats.forwarded_callbacks == 0


@pytest.mark.parametrize("flavour", ["callback"], indirect=True)
async def test_the_callback_channel_takes_the_gil_once_per_batch(pool: offgil.Pool) -> None:
    """Under load its one thread takes the GIL far less than once per job."""
    n = MILLION // 5
    seen = await hammer(pool, 0, n // 2) + await gather(pool, n // 2, n // 2)
    assert seen == b"\x01" * n
    stats = check_balance(pool)
    assert stats.completed == n
    assert 0 < stats.gil_acquisitions < n / 10


async def wait_by_the_million(pool: offgil.Pool, n: int) -> float:
    """Let n jobs wait at once, then check every result; return MiB of memory while they waited."""
    gate = Gate()
    held = [pool.submit(gate) for _ in range(pool.workers)]
    await until(lambda: pool.running == pool.workers)
    before = rss_mib()
    futures = [pool.submit(ex.echo, i) for i in range(n)]
    assert pool.pending == n
    used = rss_mib() - before
    gate.open()
    for i, future in enumerate(futures):
        assert await asyncio.wait_for(future, 60) == i if i % 100_000 == 0 else await future == i
    assert await asyncio.gather(*held) == ["through the gate"] * pool.workers
    return used


def trimmed_rss_mib() -> float:
    """Return resident memory in MiB, without what the C library merely keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return rss_mib()


@pytest.mark.parametrize("flavour", ["inline"], indirect=True)
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_million_jobs_wait_at_once(pool: offgil.Pool) -> None:
    """They fit into memory, all end well, and the memory comes back."""
    await wait_by_the_million(pool, MILLION // 10)  # arenas and freelists get their usual size
    before = trimmed_rss_mib()
    used = await wait_by_the_million(pool, MILLION)
    await turns()
    after = trimmed_rss_mib()
    if not DEBUG:
        assert used < 450, f"{used:.0f} MiB for a million waiting jobs"
    assert after - before < 64, f"{after - before:.0f} MiB are gone"
    check_balance(pool)


@pytest.mark.parametrize("flavour", ["inline", "plain", "callback"], indirect=True)
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_long_run_does_not_grow(pool: offgil.Pool) -> None:
    """Job after job of every kind, memory stays where it was."""

    async def mixed() -> None:
        for _ in range(20 if not DEBUG else 2):
            futures: list[Any] = [pool.submit(ex.echo, i) for i in range(500)]
            futures += [pool.submit(ex.fail, "invalid_argument") for _ in range(100)]
            futures += [pool.submit(str, i) for i in range(200)]
            futures += [pool.submit(int, "x") for _ in range(50)]
            for future in futures[::7]:
                future.cancel()
            await asyncio.gather(*futures, return_exceptions=True)

    await mixed()
    before = trimmed_rss_mib()
    objects = len(gc.get_objects())
    for _ in range(3):
        await mixed()
    await turns()
    after = trimmed_rss_mib()
    assert after - before < 16, f"{after - before:.1f} MiB are gone"
    assert len(gc.get_objects()) - objects < 300


@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_two_hundred_pools_leave_nothing(flavour: Flavour) -> None:
    """Threads and descriptors are as before after many pools, used and unused."""

    async def cycle(i: int) -> None:
        async with flavour.new_pool(2) as pool:
            if i % 3:
                assert await pool.submit(ex.echo, i) == i
            if i % 5 == 0:
                assert await pool.submit(len, "ab") == 2

    def counts() -> tuple[int, int]:
        gc.collect()
        return os_threads(), open_fds()

    for i in range(5):
        await cycle(i)
    await turns()
    before = counts()
    for i in range(200):
        await asyncio.wait_for(cycle(i), LIMIT)
    await turns()
    await until(lambda: counts() == before)
