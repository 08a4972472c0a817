"""The rows about what a pool full of work does to memory, to the event loop and to the CPUs."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import (
    Absolute,
    Line,
    Spread,
    WrongResultError,
    at_least,
    at_most,
    take_turns,
)
from settings import Settings
from workloads import WORKERS

import offgil
from offgil import examples
from offgil._machine import CpuWatch

#: How long one job of the saturated pool spins, and how many tasks keep jobs ready.
JOB_MICROSECONDS = 2_000
FEEDERS = 6
#: After which the scheduler looks whose turn it is: the resolution of the kernel's coarse clocks.
TICK_MILLISECONDS = time.clock_getres(6) * 1e3 if sys.platform == "linux" else 10.0
#: How long one CPU-bound job should take.
COMPUTE_SECONDS = 0.25

Spin = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Memory:
    """Resident bytes with jobs waiting."""

    per_job: float
    total: int
    left_over: int


async def memory(settings: Settings) -> list[Line]:
    """Measure what a waiting job takes, its future included, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        seen = await asyncio.get_running_loop().run_in_executor(
            child, _memory_in_child, settings.waiting_jobs, settings.loop
        )
    what = f"{settings.waiting_jobs:,} waiting native jobs"
    left = f"{seen.left_over / 1e6:.0f} MB more than before once they have ended"
    total = seen.total / 1e6
    lines = [
        Line(
            "memory",
            settings.loop,
            what,
            "B per job with its future",
            Spread.of([seen.per_job]),
            at_most(260),
            left,
        )
    ]
    if not settings.quick:
        whole = Spread.of([total])
        lines.append(Line("memory", settings.loop, what, "MB resident", whole))
    return lines


def _memory_in_child(jobs: int, loop: str) -> Memory:
    settings = Settings.chosen(loop, 1, quick=True)
    with asyncio.Runner(loop_factory=settings.loop_factory()) as runner:
        return runner.run(_waiting_memory(jobs))


async def _waiting_memory(jobs: int) -> Memory:
    async with offgil.Pool(1) as pool:
        await asyncio.gather(*(pool.submit(examples.echo, number) for number in range(1_000)))
        futures: list[asyncio.Future[int] | None] = [None] * jobs
        done_before = pool.stats().completed
        gc.collect()
        before = _resident_bytes()
        # Long enough to submit the rest behind it: several times what a submit takes.
        blocker = pool.submit(examples.sleep, 1 + 4e-6 * jobs)
        for number in range(jobs):
            # Small integers only: they are shared, so that none is counted as ours.
            futures[number] = pool.submit(examples.echo, number & 255)
        full = _resident_bytes()
        if pool.stats().completed != done_before:
            raise RuntimeError("the blocking job ended before the others were submitted")
        await blocker
        for number in range(jobs):
            future = futures[number]
            if future is None or await future != number & 255:
                raise WrongResultError(f"job {number}")
        del futures, future
        gc.collect()
        return Memory((full - before) / jobs, full, _resident_bytes() - before)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def lag(settings: Settings) -> list[Line]:
    """Measure how late the loop's timers come while both workers spin."""
    async with (
        offgil.Pool(WORKERS) as pool,
        offgil.Pool(WORKERS, nice=19) as nice,
    ):
        with ThreadPoolExecutor(WORKERS) as executor:
            loop = asyncio.get_running_loop()
            jobs: dict[str, Spin] = {
                "rie": lambda: loop.run_in_executor(executor, examples.spin, JOB_MICROSECONDS),
                "offgil": lambda: pool.submit(examples.spin, JOB_MICROSECONDS),
                "nice": lambda: nice.submit(examples.spin, JOB_MICROSECONDS),
            }
            seconds = settings.lag_seconds
            samples = await take_turns(
                {"idle": partial(_p99_lag, None, seconds)}
                | {name: partial(_p99_lag, job, seconds) for name, job in jobs.items()},
                settings.rounds,
                steady_for=settings.steady_for,
            )
    p99 = {name: samples.spread(name).median for name in samples.values}
    absolute = ", ".join(f"{name} {value:.2f}" for name, value in p99.items())
    what = f"p99 lag, {WORKERS} workers spin"
    return [
        Line(
            "lag",
            settings.loop,
            what,
            "of RIE's",
            samples.ratio("offgil", "rie"),
            None,
            f"{absolute} ms{samples.remark()}",
            Absolute(samples.spread("offgil"), "ms"),
        ),
        Line(
            "lag",
            settings.loop,
            what,
            "ms",
            samples.spread("offgil"),
            at_most(p99["idle"] + TICK_MILLISECONDS),
            f"the target is an idle loop's and a tick of the scheduler, {TICK_MILLISECONDS:g} ms; "
            f"with nice=19 {p99['nice']:.2f}",
        ),
    ]


async def _p99_lag(job: Spin | None, seconds: float) -> float:
    """Return the 99th percentile, in milliseconds, of how late a timer comes."""
    stopped = False
    lags: list[float] = []

    async def feed(job: Spin) -> None:
        while not stopped:
            if await job() != JOB_MICROSECONDS:
                raise WrongResultError("spin")

    async def probe() -> None:
        pause = 0.001
        while not stopped:
            started = time.perf_counter()
            await asyncio.sleep(pause)
            lags.append(time.perf_counter() - started - pause)

    tasks = [asyncio.create_task(probe())]
    if job is not None:
        tasks += [asyncio.create_task(feed(job)) for _ in range(FEEDERS)]
    await asyncio.sleep(seconds)
    stopped = True
    await asyncio.gather(*tasks)
    lags.sort()
    return lags[int(len(lags) * 0.99)] * 1e3


class _ExpectedFibonacci(dict[int, int]):
    """The numbers as plain pybind11 computes them, each only once."""

    def __missing__(self, n: int) -> int:
        self[n] = examples.fibonacci_nogil(n)
        return self[n]


async def parallel(settings: Settings) -> list[Line]:
    """Measure whether two CPU-bound jobs take the time of one."""
    expected = _ExpectedFibonacci()
    async with offgil.Pool(WORKERS) as pool:

        async def compute(n: int, jobs: int) -> float:
            started = time.perf_counter()
            results = await asyncio.gather(
                *(pool.submit(examples.fibonacci, n) for _ in range(jobs))
            )
            elapsed = time.perf_counter() - started
            if set(results) != {expected[n]}:
                raise WrongResultError(f"fibonacci({n})")
            return jobs / elapsed

        n = 1_000_000
        while (rate := await compute(n, 1)) > 8 / COMPUTE_SECONDS:
            n *= 2
        n = round(n * COMPUTE_SECONDS * rate)
        watch = CpuWatch()
        samples = await take_turns(
            {"one": partial(compute, n, 1), "two": partial(compute, n, 2)},
            settings.rounds,
            steady_for=settings.steady_for,
        )
    return [
        Line(
            "parallel",
            settings.loop,
            "two CPU-bound jobs on 2 workers",
            "x the work of one",
            samples.ratio("two", "one"),
            at_least(0.95 * WORKERS),
            f"one takes {1 / samples.spread('one').median:.3f} s; others used "
            f"{watch.cpus_used_by_others():.2f} CPUs{samples.remark()}",
        )
    ]
