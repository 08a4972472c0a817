"""The row about ordinary programs: a few jobs, however they are used, beside the standard library.

Each program runs with the standard executor, with that again (the control), and with ours, in turn:
who changes the import line must not pay for it.
"""

from __future__ import annotations

import asyncio
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from measuring import Line, WrongResultError, at_most, steady, take_turns
from settings import Settings
from workloads import JOBS, WORKERS, Function, Job

import offgil
from offgil import examples

#: How much of the standard library's time a program may take, after the control.
NO_MORE_THAN = 1.1
#: For how long each program is repeated in each round.
STEADY_SECONDS = 0.05
#: Nobody waits longer for jobs that take milliseconds.
LIMIT = 20.0

#: Runs once, and returns the seconds that count.
Program = Callable[[], float]
Open = Callable[["Library"], AbstractContextManager[Program]]


@dataclass(frozen=True)
class Library:
    """The standard library, or ours."""

    is_ours: bool

    def executor(self, workers: int) -> ThreadPoolExecutor:
        """Make an executor."""
        return (offgil.ThreadPoolExecutor if self.is_ours else ThreadPoolExecutor)(workers)

    def function(self, job: Job) -> Function:
        """Return the job's function as this library's users have it."""
        return job.ours if self.is_ours else job.plain


def timed(run: Callable[[], None]) -> Program:
    """Return a program all of whose time counts."""

    def program() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return program


def _check(results: object, expected: object) -> None:
    if results != expected:
        raise WrongResultError(f"{results!r} instead of {expected!r}")


# -- executors that live as long as a few jobs ---------------------------------------------------


@contextmanager
def with_around_four_jobs(library: Library, workers: int) -> Iterator[Program]:
    """One executor per request."""

    def run() -> None:
        with library.executor(workers) as executor:
            _check(list(executor.map(abs, range(4))), [0, 1, 2, 3])

    yield timed(run)


@contextmanager
def first_job(library: Library, workers: int) -> Iterator[Program]:
    """From making the executor to the first result; its end is not in it."""

    def program() -> float:
        started = time.perf_counter()
        executor = library.executor(workers)
        _check(executor.submit(abs, -1).result(LIMIT), 1)
        seconds = time.perf_counter() - started
        executor.shutdown()
        return seconds

    yield program


@contextmanager
def four_jobs_on_a_loop(library: Library) -> Iterator[Program]:
    """A loop that has a pool, or an executor, for four jobs."""

    async def with_pool() -> list[int]:
        async with offgil.Pool(WORKERS) as pool:
            return await asyncio.gather(*(pool.submit(abs, number) for number in range(4)))

    async def with_executor() -> list[int]:
        loop = asyncio.get_running_loop()
        with library.executor(WORKERS) as executor:
            jobs = (loop.run_in_executor(executor, abs, number) for number in range(4))
            return await asyncio.gather(*jobs)

    main = with_pool if library.is_ours else with_executor
    yield timed(lambda: _check(asyncio.run(main()), [0, 1, 2, 3]))


@contextmanager
def one_to_thread(library: Library) -> Iterator[Program]:
    """A loop that runs for one job."""

    async def main() -> int:
        if library.is_ours:
            offgil.install()
        return await asyncio.to_thread(abs, -1)

    yield timed(lambda: _check(asyncio.run(main()), 1))


# -- callbacks -----------------------------------------------------------------------------------


@contextmanager
def blocking_callbacks(library: Library, job: Job, seconds: float) -> Iterator[Program]:
    """64 jobs, each with a done callback that blocks, on eight workers: until all have returned."""
    function, workers, jobs = library.function(job), 8, 64
    with library.executor(workers) as executor:

        def program() -> float:
            returned = threading.Semaphore(0)

            def block(_: object) -> None:
                time.sleep(seconds)
                returned.release()

            gate = threading.Event()  # or the first jobs would have ended before
            for _ in range(workers):
                executor.submit(gate.wait, LIMIT)
            for number in range(jobs):
                executor.submit(function, number).add_done_callback(block)
            started = time.perf_counter()
            gate.set()
            for _ in range(jobs):
                _check(returned.acquire(timeout=LIMIT), True)
            return time.perf_counter() - started

        yield program


@contextmanager
def chain(library: Library, job: Job) -> Iterator[Program]:
    """Fifty jobs, each submitted by the done callback of the one before."""
    function, jobs = library.function(job), 50
    with library.executor(WORKERS) as executor:

        def run() -> None:
            last: queue.SimpleQueue[int] = queue.SimpleQueue()

            def next_one(future: object, number: int) -> None:
                if number == jobs:
                    last.put(number)
                else:
                    submit(number + 1)

            def submit(number: int) -> None:
                executor.submit(function, number).add_done_callback(
                    partial(next_one, number=number)
                )

            submit(1)
            _check(last.get(timeout=LIMIT), jobs)

        yield timed(run)


# -- a few jobs at a time ------------------------------------------------------------------------


@contextmanager
def clients(library: Library, job: Job, count: int) -> Iterator[Program]:
    """So many tasks, each with one job after the other in run_in_executor()."""
    function, jobs = library.function(job), 40
    with library.executor(WORKERS) as executor:

        async def client() -> None:
            loop = asyncio.get_running_loop()
            for number in range(jobs):
                _check(await loop.run_in_executor(executor, function, number), number)

        async def main() -> None:
            await asyncio.gather(*(client() for _ in range(count)))

        yield timed(lambda: asyncio.run(main()))


@contextmanager
def bursts(library: Library, job: Job) -> Iterator[Program]:
    """Ten jobs at once, ten times, each time until wait() has all."""
    function = library.function(job)
    with library.executor(WORKERS) as executor:

        def run() -> None:
            for _ in range(10):
                futures = [executor.submit(function, number) for number in range(10)]
                _check(len(wait(futures, LIMIT).done), 10)

        yield timed(run)


@contextmanager
def first_of_twenty(library: Library, job: Job) -> Iterator[Program]:
    """Twenty jobs at once, ten times, each time until wait() has the first."""
    function = library.function(job)
    with library.executor(WORKERS) as executor:

        def program() -> float:
            seconds = 0.0
            for _ in range(10):
                started = time.perf_counter()
                futures = [executor.submit(function, number) for number in range(20)]
                wait(futures, LIMIT, FIRST_COMPLETED)
                seconds += time.perf_counter() - started
                _check(len(wait(futures, LIMIT).done), 20)
            return seconds

        yield program


# -- jobs that wait ------------------------------------------------------------------------------


@contextmanager
def waits_for_the_next(library: Library) -> Iterator[Program]:
    """A job that waits for an Event which the next one sets, a hundred times: p95."""
    with library.executor(WORKERS) as executor:

        def program() -> float:
            times = []
            for _ in range(100):
                event = threading.Event()
                started = time.perf_counter()
                waiting, setting = executor.submit(event.wait, LIMIT), executor.submit(event.set)
                _check((waiting.result(LIMIT), setting.result(LIMIT)), (True, None))
                times.append(time.perf_counter() - started)
            return sorted(times)[95]

        yield program


@contextmanager
def leaves(library: Library) -> Iterator[Program]:
    """A job that submits four others and waits for their results, twenty times."""
    with library.executor(WORKERS) as executor:

        def sum_of_leaves() -> int:
            return sum(each.result(LIMIT) for each in [executor.submit(abs, -1) for _ in range(4)])

        def run() -> None:
            for _ in range(20):
                _check(executor.submit(sum_of_leaves).result(LIMIT), 4)

        yield timed(run)


@contextmanager
def polls(library: Library) -> Iterator[Program]:
    """400 calls of a C method that waits 5 ms, on 64 workers, after short ones of it."""
    with library.executor(64) as executor:
        short = [executor.submit(select.poll().poll, 0) for _ in range(500)]
        wait(short, LIMIT)

        def run() -> None:
            futures = [executor.submit(select.poll().poll, 5) for _ in range(400)]
            _check(all(future.result(LIMIT) == [] for future in futures), True)

        yield timed(run)


@contextmanager
def few_blockers(library: Library) -> Iterator[Program]:
    """1 000 jobs of a function that takes a microsecond, or 20 ms in one of a hundred."""
    with library.executor(8) as executor:

        def work(number: int) -> int:
            if number % 100 == 50:
                time.sleep(0.02)
            return number

        def run() -> None:
            futures = [executor.submit(work, number) for number in range(1_000)]
            _check([future.result(LIMIT) for future in futures], list(range(1_000)))

        yield timed(run)


# -- long results --------------------------------------------------------------------------------


@contextmanager
def long_lists(library: Library) -> Iterator[Program]:
    """50 native results of 200 000 floats as lists: the event loop's longest pause."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        if library.is_ours:
            offgil.install(workers=WORKERS)
        else:
            loop.set_default_executor(ThreadPoolExecutor(WORKERS))
        jobs = [loop.run_in_executor(None, examples.numbers, 200_000) for _ in range(50)]
        longest, last, pending = 0.0, time.perf_counter(), asyncio.gather(*jobs)
        while not pending.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        _check({len(each) for each in await pending}, {200_000})
        return longest

    yield lambda: asyncio.run(main())


# ------------------------------------------------------------------------------------------------

NATIVE, LAMBDA = JOBS
PROGRAMS: dict[str, Open] = {
    **{
        f"with around four jobs, {workers} workers": partial(with_around_four_jobs, workers=workers)
        for workers in (1, 8, 32)
    },
    **{
        f"the first job of {workers} workers": partial(first_job, workers=workers)
        for workers in (8, 32, 200)
    },
    "a loop's pool for four jobs": four_jobs_on_a_loop,
    "a loop with one to_thread()": one_to_thread,
    **{
        f"callbacks that block {seconds * 1e3:g} ms, {job.name}": partial(
            blocking_callbacks, job=job, seconds=seconds
        )
        for seconds in (0.0002, 0.001, 0.005)
        for job in JOBS
    },
    "a chain of callbacks, native": partial(chain, job=NATIVE),
    **{
        f"{count} clients of run_in_executor(), native": partial(clients, job=NATIVE, count=count)
        for count in (2, 4, 8, 16)
    },
    "bursts of ten, native": partial(bursts, job=NATIVE),
    "the first of twenty, native": partial(first_of_twenty, job=NATIVE),
    "a job waits for the next, p95": waits_for_the_next,
    "a job waits for four others": leaves,
    "400 poll(5) on 64 workers": polls,
    "one in a hundred blocks": few_blockers,
    "long lists: the loop's longest pause": long_lists,
}


async def programs(settings: Settings) -> list[Line]:
    """Run each program on a thread of its own, where no event loop runs."""
    return [await _line(settings, name, open_it) for name, open_it in PROGRAMS.items()]


async def _line(settings: Settings, name: str, open_it: Open) -> Line:
    seconds = 0.0 if settings.quick else max(STEADY_SECONDS, settings.steady_for)
    with (
        ThreadPoolExecutor(1) as aside,
        open_it(Library(is_ours=False)) as standard,
        open_it(Library(is_ours=False)) as again,
        open_it(Library(is_ours=True)) as ours,
    ):
        run = partial(asyncio.get_running_loop().run_in_executor, aside)
        contenders = {"standard": standard, "again": again, "offgil": ours}
        for program in contenders.values():
            await run(program)
        samples = await take_turns(
            {
                who: partial(steady, partial(run, program), seconds)
                for who, program in contenders.items()
            },
            settings.rounds,
        )
    control = samples.ratio("again", "standard").median
    theirs = samples.spread("standard").median
    return Line(
        "programs",
        "-",
        name,
        "of the standard's time",
        samples.ratio("offgil", "standard"),
        at_most(NO_MORE_THAN * max(1.0, control)),
        f"{samples.spread('offgil').median * 1e3:.3g} against {theirs * 1e3:.3g} ms; control "
        f"{control:.2f}{samples.remark()}",
        samples.seconds("offgil"),
    )
