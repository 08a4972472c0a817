"""The rows about the way there and back: jobs that do nothing, so that only the way costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import workloads
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
from workloads import WORKERS, Contender, contenders, run_in_executor

import offgil
from offgil import examples

#: How long an idle worker of the spinning pool looks for work: several times a round trip.
SPIN_SECONDS = 200e-6
#: What a round trip may cost beyond two wake-ups of a thread.
WAY_MICROSECONDS = 8
#: `submit` is timed in batches of so many, after so many to warm up.
SUBMIT_BATCH = 2_000
WARM_UP_BATCHES = 20


async def closed(settings: Settings) -> list[Line]:
    """Measure a closed loop of 256 tasks."""
    async with contenders() as who:
        run = workloads.closed_loop
        jobs = settings.jobs
        for one in (who.offgil, who.rie, who.bare):
            await run(one.submit, one.echo, 500)
        samples = await take_turns(
            {
                "rie": partial(run, who.rie.submit, who.rie.echo, jobs),
                "bare": partial(run, who.bare.submit, who.bare.echo, jobs),
                "offgil": partial(run, who.offgil.submit, who.offgil.echo, jobs),
            },
            settings.rounds,
            steady_for=settings.steady_for,
        )
    targets = {"asyncio": (at_least(40), at_least(2.0)), "uvloop": (None, at_least(1.4))}
    return _against_both("closed", "closed loop of 256", settings, samples, targets[settings.loop])


async def gather(settings: Settings) -> list[Line]:
    """Measure one gather over all jobs; RIE gets as many."""
    async with contenders() as who:
        run = workloads.gather
        for one in (who.offgil, who.rie, who.bare):
            await run(one.submit, one.echo, 500)
        samples = await take_turns(
            {
                name: partial(run, one.submit, one.echo, settings.burst)
                for name, one in (("rie", who.rie), ("bare", who.bare), ("offgil", who.offgil))
            },
            settings.rounds,
            steady_for=settings.steady_for,
        )
    targets = {"asyncio": (None, at_least(1.9)), "uvloop": (None, at_least(1.4))}
    what = f"gather of {settings.burst:,}"
    return _against_both("gather", what, settings, samples, targets[settings.loop])


async def in_order(settings: Settings) -> list[Line]:
    """Measure futures that are awaited one after another."""
    async with contenders() as who:
        run = workloads.in_order
        for one in (who.offgil, who.bare):
            await run(one.submit, one.echo, 500)
        samples = await take_turns(
            {
                name: partial(run, one.submit, one.echo, settings.burst)
                for name, one in (("bare", who.bare), ("offgil", who.offgil))
            },
            settings.rounds,
            steady_for=settings.steady_for,
        )
    target = at_least(2.0) if settings.loop == "asyncio" else None
    what = f"{settings.burst:,} awaited in order"
    return [_throughput("in-order", what, settings, samples, "bare", target)]


async def python_callable(settings: Settings) -> list[Line]:
    """Measure a closed loop of jobs that are Python."""
    echo: Callable[[int], int] = lambda x: x  # noqa: E731 - a lambda is what is measured
    async with contenders() as who:
        run = workloads.closed_loop
        for one in (who.offgil, who.rie):
            await run(one.submit, echo, 500)
        before = who.pool.stats()
        samples = await take_turns(
            {
                "rie": partial(run, who.rie.submit, echo, settings.jobs),
                "offgil": partial(run, who.offgil.submit, echo, settings.jobs),
            },
            settings.rounds,
            steady_for=settings.steady_for,
        )
        after = who.pool.stats()
    target = at_least(22) if settings.loop == "asyncio" else None
    acquisitions = after.gil_acquisitions - before.gil_acquisitions
    per_job = acquisitions / max(1, after.completed - before.completed)
    remark = f"; the GIL taken {per_job:.3g} times per job"
    return [
        _throughput(
            "lambda", "closed loop, a Python lambda", settings, samples, "rie", target, remark
        )
    ]


async def wakeups(settings: Settings) -> list[Line]:
    """Count how often the event loop is woken under load."""
    per_hundred = []
    async with offgil.Pool(WORKERS) as pool:
        await workloads.closed_loop(pool.submit, examples.echo, 500)
        start = pool.stats()
        for _ in range(settings.rounds):
            before = pool.stats().wakeups
            await workloads.closed_loop(pool.submit, examples.echo, settings.jobs)
            per_hundred.append(100 * (pool.stats().wakeups - before) / settings.jobs)
        end = pool.stats()
    jobs, batches = end.completed - start.completed, end.batches - start.batches
    return [
        Line(
            "wakeups",
            settings.loop,
            "eventfd writes, closed loop of 256",
            "per 100 jobs",
            Spread.of(per_hundred),
            None,
            f"{batches:,} batches for {jobs:,} jobs; "
            f"the GIL taken {end.gil_acquisitions - start.gil_acquisitions} times",
        )
    ]


async def one_at_a_time(settings: Settings) -> list[Line]:
    """Measure single round trips, the loop's thread on one CPU and the workers on another."""
    cpus = usable_cpus()
    if sys.platform != "linux" or len(cpus) < 2:
        print("one at a time: needs Linux and two CPUs, left out", file=sys.stderr)
        return []
    here, there = cpus[:2]
    jobs = 100 if settings.quick else 1_000
    wake_ups = two_wake_ups(here, there, jobs)
    async with (
        offgil.Pool(WORKERS, name="bench-one") as pool,
        offgil.Pool(WORKERS, name="bench-spin", spin=SPIN_SECONDS) as spinning,
    ):
        for pinned_pool, name in ((pool, "bench-one"), (spinning, "bench-spin")):
            # Threads start as jobs find none idle.
            await asyncio.gather(
                *(pinned_pool.submit(examples.sleep, 0.02) for _ in range(WORKERS))
            )
            _pin_threads_named(name, there)
        # Python names its threads for the kernel only from 3.14 on: they pin themselves.
        pin_worker = partial(os.sched_setaffinity, 0, {there})
        with ThreadPoolExecutor(WORKERS, initializer=pin_worker) as executor, pinned(here):
            rie = Contender(run_in_executor(executor), examples.echo_nogil)
            trips = {
                "rie": partial(workloads.one_at_a_time, rie.submit, rie.echo, jobs // 3),
                "offgil": partial(workloads.one_at_a_time, pool.submit, examples.echo, jobs),
                "spin": partial(workloads.one_at_a_time, spinning.submit, examples.echo, jobs),
            }
            for trip in trips.values():
                await trip()
            samples = await take_turns(trips, settings.rounds, steady_for=settings.steady_for)
    return [
        _trip("one job at a time, pinned", settings, samples, "offgil", None),
        Line(
            "one",
            settings.loop,
            "the same, beside two wake-ups alone",
            "us",
            Spread.of(trip * 1e6 for trip in samples.values["offgil"]),
            at_most(wake_ups * 1e6 + WAY_MICROSECONDS),
            f"the target is two wake-ups, {wake_ups * 1e6:.1f} us, and {WAY_MICROSECONDS} us",
        ),
        _trip(f"one at a time, spin={SPIN_SECONDS:g}", settings, samples, "spin", at_most(1 / 15)),
    ]


async def submit(settings: Settings) -> list[Line]:
    """Time `submit` alone, on a warm pool that works meanwhile."""
    calls, batches = [], []
    async with offgil.Pool(WORKERS) as pool:
        submit, echo = pool.submit, examples.echo
        for batch in range(WARM_UP_BATCHES + 30 * settings.rounds):
            started = time.perf_counter()
            futures = [submit(echo, 1) for _ in range(SUBMIT_BATCH)]
            submitted = time.perf_counter()
            results = await asyncio.gather(*futures)
            called = time.perf_counter()
            direct = [echo(1) for _ in range(SUBMIT_BATCH)]
            if batch >= WARM_UP_BATCHES:
                batches.append((submitted - started) / SUBMIT_BATCH * 1e9)
                calls.append((time.perf_counter() - called) / SUBMIT_BATCH * 1e9)
            if results != direct or results != [1] * SUBMIT_BATCH:
                raise WrongResultError("submit")
    return [
        Line(
            "submit",
            settings.loop,
            "submit(echo, 1), warm, its argument included",
            "ns",
            Spread.of(batches),
            at_most(150),
            f"fastest batch {min(batches):.0f} ns; the direct call echo(1) "
            f"{statistics.median(calls):.0f} ns",
        )
    ]


def _pin_threads_named(prefix: str, cpu: int) -> None:
    give_up = time.monotonic() + 5  # a thread names itself, a little after it has started
    while len(found := _threads_named(prefix)) < WORKERS:
        if time.monotonic() > give_up:
            raise RuntimeError(f"found {len(found)} threads named {prefix!r}, not {WORKERS}")
        time.sleep(0.001)
    for thread in found:
        os.sched_setaffinity(thread, {cpu})


def _threads_named(prefix: str) -> list[int]:
    return [
        int(task.name)
        for task in Path("/proc/self/task").iterdir()
        if (task / "comm").read_text().startswith(prefix)
    ]


def _against_both(
    row: str,
    what: str,
    settings: Settings,
    samples: Samples,
    targets: tuple[Target | None, Target | None],
) -> list[Line]:
    return [
        _throughput(row, what, settings, samples, reference, target)
        for reference, target in zip(("rie", "bare"), targets, strict=True)
    ]


def _throughput(
    row: str,
    what: str,
    settings: Settings,
    samples: Samples,
    reference: str,
    target: Target | None,
    remark: str = "",
) -> Line:
    name = {"rie": "RIE", "bare": "the bare loop"}[reference]
    ours, theirs = samples.spread("offgil").median, samples.spread(reference).median
    return Line(
        row,
        settings.loop,
        what,
        f"x {name}",
        samples.ratio("offgil", reference),
        target,
        f"{ours / 1e3:.1f} against {theirs / 1e3:.1f} k jobs/s{remark}{samples.remark()}",
        samples.rate("offgil"),
    )


def _trip(
    what: str, settings: Settings, samples: Samples, name: str, target: Target | None
) -> Line:
    ours, theirs = samples.spread(name).median, samples.spread("rie").median
    return Line(
        "one",
        settings.loop,
        what,
        "of RIE's time",
        samples.ratio(name, "rie"),
        target,
        f"{ours * 1e6:.1f} against {theirs * 1e6:.1f} us{samples.remark()}",
        samples.seconds(name),
    )
