"""Jobs that need the GIL, all queued before the first one starts, and how they are worked off."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from delays import Delays
from measuring import WrongResultError

#: Seconds for the workers to reach the gate, and to be let through, before they count as hung.
LIMIT = 60.0
#: Sizes differ from job to job, by next to nothing, so that one's result is not another's.
VARIANTS = 16
#: So many calls teach a pool that a function is long, and so many with next to nothing that it is
#: short.
FEW, MANY = 4, 1_000

Function = Callable[[Any], Any]
Watch = Callable[[], AbstractAsyncContextManager[Delays]]


@dataclass(frozen=True)
class Queue:
    """Calls of one argument, and what they return; ``lessons`` are worked off before them."""

    calls: Sequence[tuple[Function, Any]]
    results: Sequence[Any]
    lessons: Sequence[tuple[Function, Any]] = ()


@dataclass(frozen=True)
class EntryPoint:
    """A way to submit jobs, and the way to all their results that goes with it."""

    name: str
    submit: Callable[..., Any]
    results_of: Callable[[Sequence[Any]], Awaitable[list[Any]]]


@dataclass(frozen=True)
class WorkedOff:
    """How late something else was while a queue was worked off, and how fast that went."""

    delays: Delays
    jobs_per_second: float


def square_sum(n: int) -> int:
    """Keep the GIL for a while, as plain Python does."""
    return sum(i * i for i in range(n))


def python_jobs(seconds: float, queued: float) -> Queue:
    """Return calls of ``square_sum`` that take so many seconds each, and so many in all."""
    n = _size(square_sum, int, seconds)
    expected = [square_sum(n + more) for more in range(VARIANTS)]
    numbers = [number % VARIANTS for number in range(_jobs(seconds, queued))]
    calls = [(square_sum, n + more) for more in numbers]
    # A pool that has run none yet does not know how long they are.
    return Queue(calls, [expected[more] for more in numbers], calls[:FEW])


def grown_c_calls(seconds: float, queued: float) -> Queue:
    """Return calls of ``sorted`` and ``pickle.dumps``, in turn, much longer than those before."""
    functions: tuple[Function, ...] = (sorted, pickle.dumps)
    arguments: dict[Function, list[Any]] = {}
    expected: dict[Function, list[Any]] = {}
    for function in functions:
        n = _size(function, _pairs, seconds)
        arguments[function] = [_pairs(n + more) for more in range(VARIANTS)]
        expected[function] = [function(argument) for argument in arguments[function]]
    kinds = [(functions[n % 2], n // 2 % VARIANTS) for n in range(_jobs(seconds, queued))]
    return Queue(
        [(function, arguments[function][variant]) for function, variant in kinds],
        [expected[function][variant] for function, variant in kinds],
        [(function, ()) for function in functions] * MANY,
    )


def _jobs(seconds: float, queued: float) -> int:
    return max(1, round(queued / seconds))


def _pairs(n: int) -> list[tuple[float, int]]:
    numbers = random.Random(n)
    return [(numbers.random(), number) for number in range(n)]


def _size(function: Function, argument: Callable[[int], Any], seconds: float) -> int:
    """Return the size of the argument with which a call takes so long."""
    n = 1_000
    for _ in range(4):  # what a call takes does not quite grow with the size
        call = partial(function, argument(n))
        n = max(1, round(n * seconds / min(_seconds(call) for _ in range(5))))
    return n


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class _Gate:
    """Keeps workers until it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._entered: list[None] = []

    def __call__(self) -> None:
        self._entered.append(None)
        if not self._opened.wait(LIMIT):
            raise RuntimeError(f"the gate was not opened within {LIMIT:g} s")

    async def has_entered(self, workers: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self._entered) < workers:
                await asyncio.sleep(0.001)

    def open(self) -> None:
        self._opened.set()


async def work_off(entry: EntryPoint, queue: Queue, workers: int, watch: Watch) -> WorkedOff:
    """Let that many workers work the queue off, and watch something else meanwhile."""
    await entry.results_of([entry.submit(function, x) for function, x in queue.lessons])
    gate = _Gate()
    try:
        held = [entry.submit(gate) for _ in range(workers)]
        await gate.has_entered(workers)
        futures = [entry.submit(function, x) for function, x in queue.calls]
        all_results = entry.results_of(futures)
        async with watch() as delays:
            started = time.perf_counter()
            gate.open()
            results = await all_results
            elapsed = time.perf_counter() - started
    finally:
        gate.open()
    await entry.results_of(held)
    if results != queue.results:
        raise WrongResultError(f"{entry.name}: jobs that were queued")
    return WorkedOff(delays, len(results) / elapsed)
