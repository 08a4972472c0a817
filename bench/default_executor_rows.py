"""The rows about ``run_in_executor`` and ``to_thread`` on our executors and the standard one.

Both get as many jobs: with fewer, the start and the end of a closed loop weigh more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import workloads
from measuring import Line, Measure, Samples, Target, at_least, take_turns
from settings import Settings
from workloads import JOBS, NO_SLOWER, WORKER_COUNTS, WORKERS, Function, Job, Submit

import offgil

#: Targets on asyncio with two workers, whichever way the loop's default executor is asked.
INSTALL_TARGETS = {"native": 23, "lambda": 14}
#: How much Python the busy loop's thread computes in each turn: about a tenth of a millisecond.
BUSY_RANGE = 10_000


async def install(settings: Settings) -> list[Line]:
    """Measure the loop's default executor before and after ``offgil.install()``."""
    lines = []
    for job in JOBS:
        for workers in WORKER_COUNTS:
            lines.append(await _install(settings, "run_in_executor", job, workers))
        lines.append(await _install(settings, "to_thread", job, WORKERS))
        lines.append(await _install(settings, "run_in_executor", job, WORKERS, busy=True))
    return lines


async def _install(
    settings: Settings, door: str, job: Job, workers: int, *, busy: bool = False
) -> Line:
    loop = asyncio.get_running_loop()

    def ask_the_loop(function: Function, x: int) -> Awaitable[int]:
        return loop.run_in_executor(None, function, x)

    submit: Submit = ask_the_loop if door == "run_in_executor" else asyncio.to_thread
    with (
        ThreadPoolExecutor(workers) as standard,
        offgil.install(loop, workers=workers) as ours,
    ):

        async def measure(executor: ThreadPoolExecutor, function: Function) -> float:
            loop.set_default_executor(executor)
            run = partial(workloads.closed_loop, submit, function, _jobs(settings, busy))
            return await (beside_busy_task(run) if busy else run())

        samples = await _compare(
            settings, partial(measure, standard, job.plain), partial(measure, ours, job.ours)
        )
    what = _what(f"{door} after install()", job, workers, busy)
    hard = workers == WORKERS and not busy and settings.loop == "asyncio"
    target = at_least(INSTALL_TARGETS[job.name] if hard else NO_SLOWER)
    return _line("install", what, settings, samples, target)


async def run_in_executor(settings: Settings) -> list[Line]:
    """Measure ``run_in_executor`` with a ThreadPoolExecutor of ours that is no loop's own."""
    lines = []
    for job in JOBS:
        for workers in WORKER_COUNTS:
            lines.append(await _run_in_executor(settings, job, workers))
        lines.append(await _run_in_executor(settings, job, WORKERS, busy=True))
    return lines


async def _run_in_executor(
    settings: Settings, job: Job, workers: int, *, busy: bool = False
) -> Line:
    with ThreadPoolExecutor(workers) as standard, offgil.ThreadPoolExecutor(workers) as ours:

        async def measure(executor: ThreadPoolExecutor, function: Function) -> float:
            submit = workloads.run_in_executor(executor)
            run = partial(workloads.closed_loop, submit, function, _jobs(settings, busy))
            return await (beside_busy_task(run) if busy else run())

        samples = await _compare(
            settings, partial(measure, standard, job.plain), partial(measure, ours, job.ours)
        )
    target = at_least(NO_SLOWER)
    what = _what("run_in_executor, executor given", job, workers, busy)
    return _line("run-in-executor", what, settings, samples, target)


async def _compare(settings: Settings, standard: Measure, ours: Measure) -> Samples:
    contenders = {"rie": standard, "offgil": ours}
    for measure in contenders.values():
        await measure()  # starts the threads, warms what learns
    return await take_turns(contenders, settings.rounds, steady_for=settings.steady_for)


def _jobs(settings: Settings, busy: bool) -> int:
    # Beside a task that computes, the standard executor may do no more than ten a second.
    return 50 if busy else settings.burst


async def beside_busy_task(measure: Measure) -> float:
    """Measure while another task computes in Python in each turn of the loop."""
    stopped = False

    async def compute() -> None:
        while not stopped:
            sum(range(BUSY_RANGE))
            await asyncio.sleep(0)

    busy = asyncio.create_task(compute())
    try:
        return await measure()
    finally:
        stopped = True
        await busy


def _what(door: str, job: Job, workers: int, busy: bool) -> str:
    plural = "s" if workers > 1 else ""
    return f"{door}, {job.name}, {workers} worker{plural}{', loop busy' if busy else ''}"


def _line(row: str, what: str, settings: Settings, samples: Samples, target: Target) -> Line:
    ours, theirs = samples.spread("offgil").median, samples.spread("rie").median
    return Line(
        row,
        settings.loop,
        what,
        "x the standard one",
        samples.ratio("offgil", "rie"),
        target,
        f"{ours / 1e3:.1f} against {theirs / 1e3:.1f} k jobs/s{samples.remark()}",
        samples.rate("offgil"),
    )
