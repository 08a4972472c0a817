"""The rows about what jobs that need the GIL do to everything else that needs it.

Python jobs, and calls of C functions, keep workers busy that always want the GIL. What others wait
for it meanwhile is measured beside the standard executor, under the same jobs, and how fast the
jobs are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import delays
import http_delays
from measuring import Line, Rounds, at_least, at_most, in_rounds
from queued_jobs import EntryPoint, Queue, Watch, WorkedOff, grown_c_calls, python_jobs, work_off
from settings import Settings
from workloads import NO_SLOWER, WORKERS

import offgil

#: How long Python jobs take, and calls of C functions that the pool knows as short ones.
JOB_SECONDS = (0.0001, 0.001, 0.003)
GROWN_SECONDS = 0.007
WORKER_COUNTS = (1, WORKERS)
#: Milliseconds that nothing may wait for the GIL: four switch intervals.
WORST_PAUSE = 20

EntryPoints = Callable[[int], AbstractAsyncContextManager[Sequence[EntryPoint]]]


@dataclass(frozen=True)
class Watched:
    """What is kept waiting, and the ways to submit beside it; the first is the standard one."""

    name: str
    watch: Watch
    entry_points: EntryPoints
    #: Nanoseconds after which it is due again.
    interval: int = delays.INTERVAL


@asynccontextmanager
async def awaiting(workers: int) -> AsyncIterator[Sequence[EntryPoint]]:
    """Open what an event loop submits to."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(workers) as standard, offgil.install(loop, workers=workers) as ours:
        async with offgil.Pool(workers) as pool:
            # Given or the default one, the loop does the same with an executor.
            yield [
                EntryPoint("RIE", partial(loop.run_in_executor, standard), _gathered),
                EntryPoint("install", partial(loop.run_in_executor, ours), _gathered),
                EntryPoint("Pool", pool.submit, _gathered),
            ]


@asynccontextmanager
async def blocking(workers: int) -> AsyncIterator[Sequence[EntryPoint]]:
    """Open what a program without an event loop submits to, and a pool."""
    with ThreadPoolExecutor(workers) as standard, offgil.ThreadPoolExecutor(workers) as ours:
        async with offgil.Pool(workers) as pool:
            yield [
                EntryPoint("TPE", standard.submit, _taken_in_order),
                EntryPoint("executor", ours.submit, _taken_in_order),
                EntryPoint("Pool", pool.submit, _gathered),
            ]


def _gathered(futures: Sequence[Any]) -> asyncio.Future[list[Any]]:
    return asyncio.gather(*futures)


async def _taken_in_order(futures: Sequence[Any]) -> list[Any]:
    return [future.result() for future in futures]


LOOP = Watched("loop", delays.of_the_loop, awaiting)
THREAD = Watched("thread", delays.of_a_thread, blocking)


async def pauses(settings: Settings) -> list[Line]:
    """Measure the pauses of the event loop, and of another thread, beside Python jobs."""
    lines = []
    for seconds in JOB_SECONDS:
        queue = python_jobs(seconds, settings.queued_seconds)
        for watched in (LOOP, THREAD):
            for workers in WORKER_COUNTS:
                what = f"{watched.name}, {seconds * 1e3:g} ms jobs"
                lines += await _beside(settings, "fairness", what, queue, workers, watched)
    return lines


async def grown(settings: Settings) -> list[Line]:
    """Measure the same beside C functions that were quick before and have long arguments now."""
    lines = []
    queue = grown_c_calls(GROWN_SECONDS, settings.queued_seconds)
    for watched in (LOOP, THREAD):
        for workers in WORKER_COUNTS:
            what = f"{watched.name}, C calls grown to {GROWN_SECONDS * 1e3:g} ms"
            lines += await _beside(settings, "fairness-grown", what, queue, workers, watched)
    return lines


async def responses(settings: Settings) -> list[Line]:
    """Measure how long a web server in this process takes to answer another one."""
    lines = []
    seconds = JOB_SECONDS[1]
    queue = python_jobs(seconds, settings.queued_seconds)
    with http_delays.server() as port:
        watched = Watched("http", partial(http_delays.of_responses, port), blocking, 0)
        for workers in WORKER_COUNTS:
            what = f"web server, {seconds * 1e3:g} ms jobs"
            lines += await _beside(settings, "fairness-http", what, queue, workers, watched)
    return lines


async def _beside(
    settings: Settings, row: str, what: str, queue: Queue, workers: int, watched: Watched
) -> list[Line]:
    async with watched.entry_points(workers) as entry_points:
        standard, *ours = (entry.name for entry in entry_points)
        taken = await in_rounds(
            {
                entry.name: partial(work_off, entry, queue, workers, watched.watch)
                for entry in entry_points
            },
            settings.rounds,
            most_extra=0,  # there are many of them: the table says which were disturbed
        )
    what = f"{what}, {workers} worker{'s' if workers > 1 else ''}"
    lines = []
    for name in ours:
        lines += _lines(row, settings.loop, what, taken, name, standard, watched.interval)
    return lines


def _lines(
    row: str,
    loop: str,
    what: str,
    taken: Rounds[WorkedOff],
    name: str,
    standard: str,
    interval: int,
) -> list[Line]:
    worst = taken.samples(lambda one: one.delays.worst)
    rate = taken.samples(lambda one: one.jobs_per_second)
    usual = taken.samples(lambda one: one.delays.percentile(99 if interval else 50, interval))
    percentile = "p99" if interval else "p50"
    theirs = worst.spread(standard)
    return [
        Line(
            row,
            loop,
            f"{what}, {name}",
            "ms at worst",
            worst.spread(name),
            at_most(WORST_PAUSE, always=True) if interval else None,
            f"{percentile} {usual.spread(name).median:.3g}; {standard} {theirs.median:.3g} "
            f"[{theirs.low:.3g} .. {theirs.high:.3g}], {percentile} "
            f"{usual.spread(standard).median:.3g} ms{taken.remark()}",
        ),
        Line(
            row,
            loop,
            f"{what}, {name}",
            "x the standard's jobs",
            rate.ratio(name, standard),
            at_least(NO_SLOWER),
            f"{rate.spread(name).median:.0f} against {rate.spread(standard).median:.0f} jobs/s",
            rate.rate(name),
        ),
    ]
