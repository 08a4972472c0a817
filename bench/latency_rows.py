"""The row about one job at a time: how long it takes to hear of its end, by whatever means.

One job after the other, and an open loop of 2 000 a second, on the standard executor, on the same
again (what two runs of one thing differ by), and on ours. Besides, how many of the waits were ended
by a timer of the pool's: none may be.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from functools import partial

from measuring import Line, Rounds, Spread, WrongResultError, at_most, in_rounds
from settings import Settings
from workloads import JOBS, NOT_LATER, WORKERS, Function, Job

import offgil

#: Jobs per second of the open loop.
RATE = 2_000
#: Nobody waits longer for a job that does nothing.
LIMIT = 20.0

Times = Sequence[float]


@dataclass(frozen=True)
class Way:
    """A way to submit a job and to hear of its end; it checks the result."""

    name: str
    hear: Callable[[Executor, Function, int], None]


@dataclass(frozen=True)
class AwaitedWay:
    """The same on an event loop."""

    name: str
    hear: Callable[[Executor, Function, int], Awaitable[int]]


def by_result(executor: Executor, function: Function, number: int) -> None:
    """Wait in result()."""
    _check(executor.submit(function, number).result(LIMIT), number)


def by_wait(executor: Executor, function: Function, number: int) -> None:
    """Wait in concurrent.futures.wait()."""
    future = executor.submit(function, number)
    wait([future], LIMIT)
    _check(future.result(0), number)


def by_as_completed(executor: Executor, function: Function, number: int) -> None:
    """Wait in as_completed()."""
    for future in as_completed([executor.submit(function, number)], LIMIT):
        _check(future.result(0), number)


def by_callback(executor: Executor, function: Function, number: int) -> None:
    """Be told by a done callback."""
    told = threading.Event()
    future = executor.submit(function, number)
    future.add_done_callback(lambda _: told.set())
    if not told.wait(LIMIT):
        raise WrongResultError("a callback that never came")
    _check(future.result(0), number)


def by_map(executor: Executor, function: Function, number: int) -> None:
    """Take it from map()."""
    (result,) = executor.map(function, [number], timeout=LIMIT)
    _check(result, number)


def by_polling(executor: Executor, function: Function, number: int) -> None:
    """Ask done() over and over."""
    future = executor.submit(function, number)
    while not future.done():
        time.sleep(0)
    _check(future.result(0), number)


def by_wrap_future(executor: Executor, function: Function, number: int) -> Awaitable[int]:
    """Await asyncio.wrap_future()."""
    return asyncio.wrap_future(executor.submit(function, number))


def by_run_in_executor(executor: Executor, function: Function, number: int) -> Awaitable[int]:
    """Await loop.run_in_executor()."""
    return asyncio.get_running_loop().run_in_executor(executor, function, number)


def by_to_thread(executor: Executor, function: Function, number: int) -> Awaitable[int]:
    """Await asyncio.to_thread(), of a loop that has this default executor."""
    return asyncio.to_thread(function, number)


WAYS = (
    Way("result()", by_result),
    Way("wait()", by_wait),
    Way("as_completed()", by_as_completed),
    Way("done callback", by_callback),
    Way("map()", by_map),
    Way("polling done()", by_polling),
)
AWAITED_WAYS = (
    AwaitedWay("wrap_future()", by_wrap_future),
    AwaitedWay("run_in_executor()", by_run_in_executor),
)


def _check(result: int, number: int) -> None:
    if result != number:
        raise WrongResultError(f"job {number}")


# ------------------------------------------------------------------------------------------------


async def latency(settings: Settings) -> list[Line]:
    """Measure each way with native and Python jobs, and each entry point of an event loop."""
    jobs = 50 if settings.quick else 300
    lines, late_calls = [], 0
    for job in JOBS:
        with (
            ThreadPoolExecutor(WORKERS) as standard,
            ThreadPoolExecutor(WORKERS) as again,
            offgil.ThreadPoolExecutor(WORKERS) as ours,
        ):
            three = Three(standard, again, ours)
            for way in WAYS:
                one: One = partial(_in_turn, way, jobs=jobs)
                lines += await _lines(settings, f"{way.name}, {job.name}", three, one, job)
            for awaited in AWAITED_WAYS:
                one = partial(_awaited, awaited, jobs=jobs)
                lines += await _lines(settings, f"{awaited.name}, {job.name}", three, one, job)
            paced = partial(_open_loop, jobs=jobs)
            what = f"done callback, {job.name}, {RATE:,}/s"
            lines += await _lines(settings, what, three, paced, job)
            late_calls += ours.stats().late_calls
        more, more_late_calls = await _entry_points(settings, job, jobs)
        lines += more
        late_calls += more_late_calls
    waits = Spread.of([late_calls])
    lines.append(Line("latency", "-", "waits ended by a timer", "in all", waits, at_most(0)))
    return lines


@dataclass(frozen=True)
class Three:
    """The standard executor, the same again, and ours."""

    standard: ThreadPoolExecutor
    again: ThreadPoolExecutor
    ours: ThreadPoolExecutor


One = Callable[[Executor, Function], Awaitable[Times]]


async def _lines(settings: Settings, what: str, three: Three, one: One, job: Job) -> list[Line]:
    contenders = {
        "standard": partial(one, three.standard, job.plain),
        "again": partial(one, three.again, job.plain),
        "offgil": partial(one, three.ours, job.ours),
    }
    return await _compared(settings, what, contenders)


async def _compared(
    settings: Settings, what: str, contenders: Mapping[str, Callable[[], Awaitable[Times]]]
) -> list[Line]:
    for measure in contenders.values():
        await measure()
    taken = await in_rounds(contenders, settings.rounds)
    return [_line(what, taken, percent) for percent in (50, 90)]


def _line(what: str, taken: Rounds[Times], percent: int) -> Line:
    own, control = "offgil", ("standard", "again")
    at = taken.samples(partial(_percentile, percent=percent))
    slower = [max(pair) for pair in zip(*(at.values[name] for name in control), strict=True)]
    faster = [min(pair) for pair in zip(*(at.values[name] for name in control), strict=True)]
    ratios = [ours / theirs for ours, theirs in zip(at.values[own], slower, strict=True)]
    noise = Spread.of(one / other for one, other in zip(slower, faster, strict=True))
    p99 = taken.samples(partial(_percentile, percent=99))
    return Line(
        "latency",
        "-",
        f"{what}, p{percent}",
        "of the standard's slower run",
        Spread.of(ratios),
        at_most(NOT_LATER),
        f"{at.spread(own).median * 1e6:.0f} against {Spread.of(slower).median * 1e6:.0f} us, whose "
        f"two runs differ {noise.median:.2f} times; p99 {p99.spread(own).median * 1e6:.0f} against "
        f"{p99.spread('standard').median * 1e6:.0f}{taken.remark()}",
        at.seconds(own),
    )


def _percentile(times: Times, *, percent: int) -> float:
    return sorted(times)[len(times) * percent // 100]


async def _in_turn(way: Way, executor: Executor, function: Function, *, jobs: int) -> Times:
    times = []
    for number in range(jobs):
        started = time.perf_counter()
        way.hear(executor, function, number)
        times.append(time.perf_counter() - started)
    return times


async def _awaited(way: AwaitedWay, executor: Executor, function: Function, *, jobs: int) -> Times:
    times = []
    for number in range(jobs):
        started = time.perf_counter()
        result = await way.hear(executor, function, number)
        times.append(time.perf_counter() - started)
        _check(result, number)
    return times


async def _open_loop(executor: Executor, function: Function, *, jobs: int) -> Times:
    """Submit at a fixed rate; each is timed from when it was due until its callback is called."""
    ended: dict[int, float] = {}
    all_ended = threading.Event()
    lock = threading.Lock()

    def note(number: int, _: object) -> None:
        with lock:
            ended[number] = time.perf_counter()
            if len(ended) == jobs:
                all_ended.set()

    begin = time.perf_counter()
    for number in range(jobs):
        while (left := begin + number / RATE - time.perf_counter()) > 0:
            time.sleep(left)
        future = executor.submit(function, number)
        future.add_done_callback(partial(note, number))
    if not all_ended.wait(LIMIT):
        raise WrongResultError("a callback that never came")
    return [ended[number] - begin - number / RATE for number in range(jobs)]


# -- what has futures of the loop's --------------------------------------------------------------


async def _entry_points(settings: Settings, job: Job, jobs: int) -> tuple[list[Line], int]:
    loop = asyncio.get_running_loop()
    lines = []
    with (
        ThreadPoolExecutor(WORKERS) as standard,
        ThreadPoolExecutor(WORKERS) as again,
        offgil.install(loop, workers=WORKERS) as installed,
    ):

        async def to_thread(executor: ThreadPoolExecutor, function: Function) -> Times:
            loop.set_default_executor(executor)
            return await _awaited(
                AwaitedWay("to_thread()", by_to_thread), executor, function, jobs=jobs
            )

        async def calls(call: Callable[[Function, int], Awaitable[int]]) -> Times:
            loop.set_default_executor(installed)
            times = []
            for number in range(jobs):
                started = time.perf_counter()
                result = await call(job.ours, number)
                times.append(time.perf_counter() - started)
                _check(result, number)
            return times

        async with offgil.Pool(WORKERS) as pool:
            for name, measure in {
                "to_thread() after install()": partial(to_thread, installed, job.ours),
                "Pool.submit()": partial(calls, pool.submit),
                "Pool.run()": partial(calls, pool.run),
                "offgil.to_thread()": partial(calls, offgil.to_thread),
            }.items():
                contenders = {
                    "standard": partial(to_thread, standard, job.plain),
                    "again": partial(to_thread, again, job.plain),
                    "offgil": measure,
                }
                lines += await _compared(settings, f"{name}, {job.name}", contenders)
            late_calls = pool.stats().late_calls + installed.stats().late_calls
        loop.set_default_executor(installed)
    return lines, late_calls
