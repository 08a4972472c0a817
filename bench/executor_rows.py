"""The rows about ``offgil.ThreadPoolExecutor`` beside the standard one (TPE), without asyncio."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import (
    Line,
    Samples,
    Spread,
    Target,
    WrongResultError,
    at_least,
    at_most,
    pinned,
    take_turns,
    usable_cpus,
)
from settings import Settings
from wake_ups import two_wake_ups
from workloads import JOBS, NO_SLOWER, NOT_LATER, WORKER_COUNTS, WORKERS, Function, Job

import offgil

#: How long a job that blocks sleeps, and the one that the short ones stand behind.
NAP_SECONDS = 0.001
LONG_NAP_SECONDS = 0.05
#: What a job that reads a file reads: enough for the call to be worth releasing the GIL.
FILE_BYTES = 65_536
#: Targets of the two kinds of job, two workers, the main thread idle.
BURST_TARGETS = {"native": 35, "lambda": 24}


@dataclass(frozen=True)
class Executors:
    """The standard executor and ours, with as many workers."""

    standard: ThreadPoolExecutor
    ours: offgil.ThreadPoolExecutor


@contextmanager
def executors(workers: int, initializer: Callable[[], object] | None = None) -> Iterator[Executors]:
    """Open both executors; they end their threads when the row is done."""
    with (
        ThreadPoolExecutor(workers, initializer=initializer) as standard,
        offgil.ThreadPoolExecutor(workers, initializer=initializer) as ours,
    ):
        yield Executors(standard, ours)


# -- submit everything, then ask for every result ------------------------------------------------


async def burst(settings: Settings) -> list[Line]:
    """Measure submitting everything and then taking every result, as a program without asyncio."""
    lines = []
    for job in JOBS:
        for workers in WORKER_COUNTS:
            lines += await _burst(settings, job, workers, busy=False)
        lines += await _burst(settings, job, WORKERS, busy=True)
    return lines


async def _burst(settings: Settings, job: Job, workers: int, *, busy: bool) -> list[Line]:
    with executors(workers) as both:
        contenders = {"tpe": (both.standard, job.plain), "offgil": (both.ours, job.ours)}
        # Each time a thread wants the GIL from the busy one, it waits for a switch interval.
        jobs = settings.burst // 5 if busy else settings.burst

        async def measure(executor: ThreadPoolExecutor, function: Function) -> float:
            run = partial(submit_all, executor, function, jobs)
            return beside_busy_main(run) if busy else run()

        for executor, function in contenders.values():
            submit_all(executor, function, 500)
        before = both.ours.stats()
        samples = await take_turns(
            {name: partial(measure, *contender) for name, contender in contenders.items()},
            settings.rounds,
            steady_for=settings.steady_for,
        )
        after = both.ours.stats()
    counts = workers == WORKERS and not busy
    what = f"{job.name}, {_workers(workers)}, main thread {'busy' if busy else 'idle'}"
    target = at_least(BURST_TARGETS[job.name] if counts else NO_SLOWER)
    lines = [_throughput("executor", what, samples, target)]
    if counts:
        acquisitions = after.gil_acquisitions - before.gil_acquisitions
        per_job = acquisitions / max(1, after.completed - before.completed)
        figure = Spread.of([per_job])
        lines.append(Line("executor", "-", f"{what}: GIL taken", "times per job", figure))
    return lines


def submit_all(executor: ThreadPoolExecutor, function: Function, jobs: int) -> float:
    """Return jobs per second when all are submitted and then all results taken, in order."""
    submit = executor.submit
    started = time.perf_counter()
    futures = [submit(function, number) for number in range(jobs)]
    results = [future.result() for future in futures]
    elapsed = time.perf_counter() - started
    if results != list(range(jobs)):
        raise WrongResultError("submit and result")
    return jobs / elapsed


def beside_busy_main(measure: Callable[[], float]) -> float:
    """Measure in another thread while this one computes in Python, and so always wants the GIL."""
    with ThreadPoolExecutor(1) as client:
        measured = client.submit(measure)
        while not measured.done():
            sum(range(1_000))
        return measured.result()


# -- one job at a time ---------------------------------------------------------------------------


async def one_at_a_time(settings: Settings) -> list[Line]:
    """Measure single round trips, the main thread on one CPU and the workers on another."""
    cpus = usable_cpus()
    if sys.platform != "linux" or len(cpus) < 2:
        print("one at a time: needs Linux and two CPUs, left out", file=sys.stderr)
        return []
    here, there = cpus[:2]
    jobs = 100 if settings.quick else 1_000
    pin_worker = partial(os.sched_setaffinity, 0, {there})
    wake_ups = two_wake_ups(here, there, jobs)
    lines = []
    with executors(WORKERS, pin_worker) as both, pinned(here):
        for job in JOBS:
            trips = {
                "tpe": partial(_trips, both.standard, job.plain, jobs),
                "offgil": partial(_trips, both.ours, job.ours, jobs),
            }
            for trip in trips.values():
                await trip()
            samples = await take_turns(trips, settings.rounds, steady_for=settings.steady_for)
            what = f"one {job.name} job at a time, pinned"
            remark = f"us; two wake-ups alone {wake_ups * 1e6:.1f} us"
            target = at_most(NOT_LATER)
            lines.append(_time("executor-one", what, samples, target, 1e6, remark))
    return lines


async def _trips(executor: ThreadPoolExecutor, function: Function, jobs: int) -> float:
    """Return the median time of a round trip, in seconds."""
    times = []
    for number in range(jobs):
        started = time.perf_counter()
        result = executor.submit(function, number).result()
        times.append(time.perf_counter() - started)
        if result != number:
            raise WrongResultError(f"job {number}")
    return Spread.of(times).median


# -- jobs that block -----------------------------------------------------------------------------


async def blocking(settings: Settings) -> list[Line]:
    """Measure Python callables that block: the workers must overlap as the standard ones do."""
    naps, reads = (50, 300) if settings.quick else (200, 2_000)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_bytes(bytes(FILE_BYTES))

        def read(number: int) -> int:
            return number if len(file.read_bytes()) == FILE_BYTES else -1

        for name, function, jobs in (
            (f"sleep {NAP_SECONDS * 1e3:g} ms", nap, naps),
            (f"read {FILE_BYTES // 1024} KiB", read, reads),
        ):
            for workers in WORKER_COUNTS:
                with executors(workers) as both:

                    async def measure(
                        executor: ThreadPoolExecutor,
                        function: Function = function,
                        jobs: int = jobs,
                    ) -> float:
                        return submit_all(executor, function, jobs)

                    for executor in (both.standard, both.ours):
                        await measure(executor)
                    samples = await take_turns(
                        {
                            "tpe": partial(measure, both.standard),
                            "offgil": partial(measure, both.ours),
                        },
                        settings.rounds,
                        steady_for=settings.steady_for,
                    )
                what = f"{name}, {_workers(workers)}"
                lines.append(_throughput("blocking", what, samples, at_least(NO_SLOWER)))
    return lines


async def behind(settings: Settings) -> list[Line]:
    """Measure short jobs that stand behind one that blocks, while another worker is free."""
    lines = []
    for what, long in (
        ("behind one that sleeps", sleep_long),
        ("behind one of their own function that sleeps", short_or_long),
    ):
        with executors(WORKERS) as both:

            async def measure(executor: ThreadPoolExecutor, long: Function = long) -> float:
                return short_ones_behind(executor, long, 200)

            for executor in (both.standard, both.ours):
                submit_all(executor, short_or_long, 500)
            samples = await take_turns(
                {"tpe": partial(measure, both.standard), "offgil": partial(measure, both.ours)},
                settings.rounds,
                steady_for=settings.steady_for,
            )
        what = f"200 short ones {what} {LONG_NAP_SECONDS * 1e3:g} ms"
        lines.append(_time("behind", what, samples, at_most(1 / NO_SLOWER), 1e3, "ms"))
    return lines


def short_ones_behind(executor: ThreadPoolExecutor, long: Function, jobs: int) -> float:
    """Return the seconds until the short jobs have ended that were submitted after a long one."""
    started = time.perf_counter()
    blocker = executor.submit(long, -1)
    futures = [executor.submit(short_or_long, number) for number in range(jobs)]
    results = [future.result() for future in futures]
    elapsed = time.perf_counter() - started
    if results != list(range(jobs)) or blocker.result() != -1:
        raise WrongResultError("behind a blocking one")
    return elapsed


def nap(number: int) -> int:
    """Sleep a little, then return the number."""
    time.sleep(NAP_SECONDS)
    return number


def sleep_long(number: int) -> int:
    """Sleep for long, then return the number."""
    time.sleep(LONG_NAP_SECONDS)
    return number


def short_or_long(number: int) -> int:
    """Return the number: at once, unless it is negative. No estimate from before foresees that."""
    return sleep_long(number) if number < 0 else number


# ------------------------------------------------------------------------------------------------


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _throughput(row: str, what: str, samples: Samples, target: Target) -> Line:
    ours, theirs = samples.spread("offgil").median, samples.spread("tpe").median
    return Line(
        row,
        "-",
        what,
        "x TPE",
        samples.ratio("offgil", "tpe"),
        target,
        f"{ours / 1e3:.1f} against {theirs / 1e3:.1f} k jobs/s{samples.remark()}",
        samples.rate("offgil"),
    )


def _time(
    row: str, what: str, samples: Samples, target: Target, per_second: float, unit: str
) -> Line:
    ours, theirs = samples.spread("offgil").median, samples.spread("tpe").median
    return Line(
        row,
        "-",
        what,
        "of TPE's time",
        samples.ratio("offgil", "tpe"),
        target,
        f"{ours * per_second:.3g} against {theirs * per_second:.3g} {unit}{samples.remark()}",
        samples.seconds("offgil"),
    )
