"""The workloads of workloads.py for trio, which has no futures: every job is a task's."""

from __future__ import annotations

import time
from collections.abc import Iterable

import trio
from measuring import WrongResultError
from workloads import TASKS, Function, Submit


async def closed_loop(submit: Submit, function: Function, jobs: int) -> float:
    """Return jobs per second with 256 tasks that each wait for one job at a time."""
    numbers = iter(range(jobs))

    async def client(numbers: Iterable[int]) -> None:
        for number in numbers:
            if await submit(function, number) != number:
                raise WrongResultError(f"job {number}")

    started = time.perf_counter()
    async with trio.open_nursery(strict_exception_groups=False) as nursery:
        for _ in range(TASKS):
            nursery.start_soon(client, numbers)
    return jobs / (time.perf_counter() - started)


async def gather(submit: Submit, function: Function, jobs: int) -> float:
    """Return jobs per second when all are started at once, each by a task, and waited for."""
    results: list[int | None] = [None] * jobs

    async def one(number: int) -> None:
        results[number] = await submit(function, number)

    started = time.perf_counter()
    async with trio.open_nursery(strict_exception_groups=False) as nursery:
        for number in range(jobs):
            nursery.start_soon(one, number)
    elapsed = time.perf_counter() - started
    if results != list(range(jobs)):
        raise WrongResultError("gather")
    return jobs / elapsed
