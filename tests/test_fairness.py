"""Python jobs leave the GIL to the event loop and to other threads.

Each job takes a millisecond. Counted, not timed, is how many end between two turns of another.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support import LIMIT, busy

import offgil

JOBS = 400
#: The machine may keep a thread from running in some of them, whatever the pool does.
ATTEMPTS = 3


class Counted:
    """A callable that keeps the GIL for a millisecond, and counts its calls."""

    def __init__(self) -> None:
        self._calls: list[None] = []

    def __call__(self) -> None:
        busy(1000)
        self._calls.append(None)

    @property
    def ended(self) -> int:
        return len(self._calls)


def most_between(seen: list[int]) -> int:
    """Return how many jobs ended between two entries at most; the last one was made at the end."""
    assert seen[-1] == JOBS
    return max(after - before for before, after in itertools.pairwise([0, *seen]))


async def turns_of_the_loop(job: Counted, workers: int, submit: Callable[..., Any]) -> list[int]:
    """Return how many jobs had ended at each of the loop's turns, once all are queued."""
    all_queued = threading.Event()
    held = [submit(all_queued.wait, LIMIT) for _ in range(workers)]
    everything = asyncio.gather(*held, *(submit(job) for _ in range(JOBS)))
    all_queued.set()
    seen = [job.ended]
    while not everything.done():
        await asyncio.sleep(0.001)
        seen.append(job.ended)
    await asyncio.wait_for(everything, LIMIT)
    return seen


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_loop_turns_beside_jobs_of_a_pool(workers: int) -> None:
    async with offgil.Pool(workers) as pool:
        seen = [await turns_of_the_loop(Counted(), workers, pool.submit) for _ in range(ATTEMPTS)]
    assert min(map(most_between, seen)) < JOBS / 4


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_loop_turns_beside_jobs_of_its_default_executor(workers: int) -> None:
    submit = partial(asyncio.get_running_loop().run_in_executor, None)
    offgil.install(workers=workers)
    seen = [await turns_of_the_loop(Counted(), workers, submit) for _ in range(ATTEMPTS)]
    assert min(map(most_between, seen)) < JOBS / 4


@pytest.mark.parametrize("workers", [1, 2])
def test_another_thread_runs_beside_jobs_of_an_executor(workers: int) -> None:
    def turns_of_a_thread(executor: offgil.ThreadPoolExecutor) -> list[int]:
        job = Counted()
        seen: list[int] = []

        def look() -> None:
            while job.ended < JOBS:
                time.sleep(0.001)
                seen.append(job.ended)

        watching = threading.Thread(target=look, daemon=True)
        for _ in range(JOBS):
            executor.submit(job)
        watching.start()
        watching.join(LIMIT)
        assert not watching.is_alive()
        return seen

    with offgil.ThreadPoolExecutor(workers) as executor:
        seen = [turns_of_a_thread(executor) for _ in range(ATTEMPTS)]
    assert min(map(most_between, seen)) < JOBS / 4


async def test_the_gil_is_left_after_each_job_that_takes_long(pool: offgil.Pool) -> None:
    """Jobs that were short were claimed together, and ran to the end of them in one stay."""
    before = pool.stats().gil_acquisitions
    await asyncio.gather(*(pool.submit(busy, 0) for _ in range(1000)))
    learned = pool.stats().gil_acquisitions
    assert learned - before < 1000
    await asyncio.gather(*(pool.submit(busy, 5000) for _ in range(20)))
    # But for the first of each worker, which may not have left yet after the short ones.
    assert pool.stats().gil_acquisitions - learned >= 20 - pool.workers
