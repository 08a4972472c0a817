"""What the benchmarks run: who is compared, and how the jobs come. Every result is checked."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from measuring import WrongResultError

import offgil
from offgil import examples

WORKERS = 2
#: The rows about executors are measured with each of these.
WORKER_COUNTS = (1, WORKERS, 4)
#: What two equally fast things reach at least, in spite of noise.
NO_SLOWER = 0.95
#: And how much later than the slower of two runs of one thing another one may be.
NOT_LATER = 1.2
#: The closed loop: so many tasks, each waiting for one job at a time.
TASKS = 256

Function = Callable[[int], int]
Submit = Callable[[Function, int], Awaitable[int]]


@dataclass(frozen=True)
class Contender:
    """A way to run a function elsewhere and await it, and one that returns its argument."""

    submit: Submit
    echo: Function


@dataclass(frozen=True)
class Job:
    """A function that returns its argument: as offgil gets it, and as any other executor does."""

    name: str
    ours: Function
    plain: Function


_LAMBDA: Function = lambda x: x  # noqa: E731 - a lambda is what is measured
JOBS = (
    Job("native", examples.echo, examples.echo_nogil),
    Job("lambda", _LAMBDA, _LAMBDA),
)


@dataclass(frozen=True)
class Contenders:
    """Who is compared; ``pool`` is the one behind ``offgil``."""

    pool: offgil.Pool
    offgil: Contender
    rie: Contender
    bare: Contender


@asynccontextmanager
async def contenders() -> AsyncIterator[Contenders]:
    """Open a pool, an executor with as many threads, and the loop without either."""
    async with offgil.Pool(WORKERS, name="bench") as pool:
        with ThreadPoolExecutor(WORKERS) as executor:
            yield Contenders(
                pool,
                Contender(pool.submit, examples.echo),
                Contender(run_in_executor(executor), examples.echo_nogil),
                Contender(BareLoop().submit, examples.echo_nogil),
            )


def run_in_executor(executor: ThreadPoolExecutor) -> Submit:
    """Return ``loop.run_in_executor`` on this executor, as an application calls it."""
    loop = asyncio.get_running_loop()

    def submit(function: Function, x: int) -> Awaitable[int]:
        return loop.run_in_executor(executor, function, x)

    return submit


class BareLoop:
    """Futures that one callback per batch resolves, with no threads and no work at all.

    What a pool built on ``asyncio.Future`` could reach if everything but the futures were free.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[asyncio.Future[int], int]] = []

    def submit(self, function: Function, x: int) -> asyncio.Future[int]:
        """Return a future that the loop's next turn resolves with ``x``."""
        future: asyncio.Future[int] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._resolve)
        self._waiting.append((future, x))
        return future

    def _resolve(self) -> None:
        batch, self._waiting = self._waiting, []
        for future, x in batch:
            future.set_result(x)


async def closed_loop(submit: Submit, function: Function, jobs: int) -> float:
    """Return jobs per second with 256 tasks that each wait for one job at a time."""
    numbers = iter(range(jobs))

    async def client() -> None:
        for number in numbers:
            if await submit(function, number) != number:
                raise WrongResultError(f"job {number}")

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(TASKS)))
    return jobs / (time.perf_counter() - started)


async def gather(submit: Submit, function: Function, jobs: int) -> float:
    """Return jobs per second when all are submitted at once and gathered."""
    started = time.perf_counter()
    results = await asyncio.gather(*[submit(function, number) for number in range(jobs)])
    elapsed = time.perf_counter() - started
    if results != list(range(jobs)):
        raise WrongResultError("gather")
    return jobs / elapsed


async def in_order(submit: Submit, function: Function, jobs: int) -> float:
    """Return jobs per second when all are submitted at once and awaited one after another."""
    started = time.perf_counter()
    futures = [submit(function, number) for number in range(jobs)]
    for number, future in enumerate(futures):
        if await future != number:
            raise WrongResultError(f"job {number}")
    return jobs / (time.perf_counter() - started)


async def one_at_a_time(submit: Submit, function: Function, jobs: int) -> float:
    """Return the median time of a round trip, in seconds, with nothing else under way."""
    trips = []
    for number in range(jobs):
        started = time.perf_counter()
        result = await submit(function, number)
        trips.append(time.perf_counter() - started)
        if result != number:
            raise WrongResultError(f"job {number}")
    return statistics.median(trips)
