"""Many small jobs: what the way to a worker thread and back costs, through each door."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import offgil
from offgil import examples

#: So many tasks each wait for one job at a time.
TASKS = 256
#: The jobs are run in so many portions, the doors taken in turn, so that all see the same machine.
ROUNDS = 4
STEPS = ROUNDS

RUN_IN_EXECUTOR = "loop.run_in_executor"
TO_THREAD = "asyncio.to_thread"
OFFGIL = "offgil.Pool.submit"

Announce = Callable[[str], None]
Submit = Callable[[int], Awaitable[int]]


@dataclass(frozen=True)
class Door:
    """One way to run the jobs; medians over the rounds, ``ratio`` to ``run_in_executor``.

    The counts are per job, as ``Pool.stats()`` has them; the standard library counts nothing.
    """

    label: str
    jobs: int
    jobs_per_second: float
    ratio: float
    wrong: int
    gil_acquisitions_per_job: float | None = None
    wakeups_per_job: float | None = None


@dataclass(frozen=True)
class SmallJobs:
    """The table; every door had the same number of worker threads."""

    workers: int
    tasks: int
    doors: tuple[Door, ...]

    @property
    def correct(self) -> bool:
        """Whether every job returned its own argument."""
        return all(door.wrong == 0 for door in self.doors)


def measure(jobs: int, announce: Announce) -> SmallJobs:
    """Run ``jobs`` do-nothing jobs through each door, from one asyncio loop, 256 at a time."""
    return asyncio.run(_measure(jobs, announce))


async def _measure(jobs: int, announce: Announce) -> SmallJobs:
    loop = asyncio.get_running_loop()
    async with offgil.Pool() as pool:
        workers = pool.workers
        # asyncio.run shuts the default executor down.
        loop.set_default_executor(ThreadPoolExecutor(workers))
        with ThreadPoolExecutor(workers) as executor:
            doors: dict[str, Submit] = {
                RUN_IN_EXECUTOR: lambda x: loop.run_in_executor(executor, examples.echo_nogil, x),
                TO_THREAD: lambda x: asyncio.to_thread(examples.echo_nogil, x),
                OFFGIL: lambda x: pool.submit(examples.echo, x),
            }
            for submit in doors.values():
                await _closed_loop(submit, TASKS)
            before = pool.stats()
            portions = await _take_turns(doors, jobs, announce)
            after = pool.stats()
    gil = (after.gil_acquisitions - before.gil_acquisitions) / jobs
    wakeups = (after.wakeups - before.wakeups) / jobs
    return SmallJobs(
        workers=workers,
        tasks=TASKS,
        doors=tuple(
            _summarize(label, portions, gil, wakeups)
            if label == OFFGIL
            else _summarize(label, portions)
            for label in doors
        ),
    )


@dataclass(frozen=True)
class _Portion:
    jobs: int
    seconds: float
    wrong: int

    @property
    def jobs_per_second(self) -> float:
        return self.jobs / self.seconds


_Round = dict[str, _Portion]


async def _take_turns(doors: dict[str, Submit], jobs: int, announce: Announce) -> list[_Round]:
    rounds = []
    for number in range(ROUNDS):
        announce(f"small jobs: round {number + 1} of {ROUNDS}")
        portion = (jobs * (number + 1)) // ROUNDS - (jobs * number) // ROUNDS
        if portion:
            rounds.append({k: await _closed_loop(submit, portion) for k, submit in doors.items()})
    return rounds


async def _closed_loop(submit: Submit, jobs: int) -> _Portion:
    numbers = iter(range(jobs))

    async def client() -> int:
        right = 0
        for number in numbers:
            result = await submit(number)
            right += result == number
        return right

    started = time.perf_counter()
    right = sum(await asyncio.gather(*(client() for _ in range(TASKS))))
    return _Portion(jobs, time.perf_counter() - started, jobs - right)


def _summarize(
    label: str,
    rounds: list[_Round],
    gil_acquisitions_per_job: float | None = None,
    wakeups_per_job: float | None = None,
) -> Door:
    return Door(
        label=label,
        jobs=sum(portions[label].jobs for portions in rounds),
        jobs_per_second=statistics.median(p[label].jobs_per_second for p in rounds),
        ratio=statistics.median(
            p[label].jobs_per_second / p[RUN_IN_EXECUTOR].jobs_per_second for p in rounds
        ),
        wrong=sum(portions[label].wrong for portions in rounds),
        gil_acquisitions_per_job=gil_acquisitions_per_job,
        wakeups_per_job=wakeups_per_job,
    )
