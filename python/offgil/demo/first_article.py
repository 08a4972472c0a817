"""The first article: five jobs that sleep on five threads, and what the event loop did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import offgil
from offgil import examples
from offgil.demo.ticker import LoopActivity, Ticker

JOBS = 5
#: A millisecond of adding up before the sleep, so that there is some computing to see.
TERMS = 1_000_000

_ON_EXECUTOR = (
    ("ThreadPoolExecutor, naive", examples.expensive_naive),
    ("ThreadPoolExecutor, call_guard", examples.expensive_call_guard),
    ("ThreadPoolExecutor, scoped guard", examples.expensive_scoped_guard),
)
_ON_POOL = (
    # The function that the row above runs, unchanged: only offgil::def stands for m.def.
    ("offgil.Pool, scoped guard", examples.expensive_guarded),
    ("offgil.Pool", examples.expensive),
)
STEPS = 1 + len(_ON_EXECUTOR) + len(_ON_POOL)

Announce = Callable[[str], None]
Submit = Callable[[int], Awaitable[int]]


@dataclass(frozen=True)
class Row:
    """One way to run the five jobs."""

    label: str
    wall_seconds: float
    loop: LoopActivity
    correct: bool


@dataclass(frozen=True)
class FirstArticle:
    """The table; ``idle`` is what the loop managed while nothing ran at all."""

    seconds: float
    idle: LoopActivity
    rows: tuple[Row, ...]

    @property
    def correct(self) -> bool:
        """Whether every job returned the right sum."""
        return all(row.correct for row in self.rows)


def measure(seconds: float, announce: Announce) -> FirstArticle:
    """Run the five jobs each way, from an asyncio loop; each job sleeps for ``seconds``."""
    return asyncio.run(_measure(seconds, announce))


async def _measure(seconds: float, announce: Announce) -> FirstArticle:
    announce("first article: the event loop with nothing to do")
    idle = await _watch_idle_loop(seconds)
    rows = []
    for label, function in _ON_EXECUTOR:
        announce(f"first article: {label}")
        rows.append(await _run_on_executor(label, function, seconds))
    for label, function in _ON_POOL:
        announce(f"first article: {label}")
        rows.append(await _run_on_pool(label, function, seconds))
    return FirstArticle(seconds, idle, tuple(rows))


async def _watch_idle_loop(seconds: float) -> LoopActivity:
    async with Ticker() as ticker:
        await asyncio.sleep(seconds)
    return ticker.activity


async def _run_on_executor(
    label: str, function: Callable[[int, float], int], seconds: float
) -> Row:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(JOBS) as executor:
        return await _run_jobs(
            label, lambda n: loop.run_in_executor(executor, function, n, seconds)
        )


async def _run_on_pool(label: str, function: Callable[[int, float], int], seconds: float) -> Row:
    async with offgil.Pool(JOBS) as pool:
        return await _run_jobs(label, lambda n: pool.submit(function, n, seconds))


async def _run_jobs(label: str, submit: Submit) -> Row:
    numbers = range(TERMS, TERMS + JOBS)
    async with Ticker() as ticker:
        started = time.perf_counter()
        sums = await asyncio.gather(*(submit(n) for n in numbers))
        wall = time.perf_counter() - started
    correct = sums == [n * (n - 1) // 2 for n in numbers]
    return Row(label, wall, ticker.activity, correct)
