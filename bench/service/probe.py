"""The light endpoint's latency in an open loop: requests start when due, come what may."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import aiohttp
from measuring import WrongResultError
from service.load import clients

#: A response later than this is a failure.
TIMEOUT = 30.0
PROBE_NICENESS = -10


@dataclass(frozen=True)
class Latencies:
    """Seconds, sorted: from when a request was due to its response, and to its real start."""

    response: list[float]
    start: list[float]


def percentile(ordered: list[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed."""
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


@contextmanager
def ahead_of_the_service() -> Iterator[None]:
    """Raise this process's priority where it may be raised: a real client has its own machine.

    Children started before keep theirs.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PROBE_NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


async def probe(base: str, rate: float, seconds: float) -> Latencies:
    """Send requests at a fixed rate for so long and check every response.

    A latency counts from the moment a request was due: what a stall makes wait is not left out.
    """
    responses: list[float] = []
    starts: list[float] = []
    async with clients(connections=0, timeout=TIMEOUT) as client:

        async def one(n: int, due: float) -> None:
            starts.append(time.perf_counter() - due)
            try:
                async with client.get(f"{base}/light", params={"n": n}) as response:
                    answer = response.status, await response.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise WrongResultError(f"/light did not answer: {error!r}") from None
            responses.append(time.perf_counter() - due)
            if answer != (200, f'{{"n":{n}}}'):
                raise WrongResultError(f"/light answered {answer}")

        begin = time.perf_counter() + 0.01
        async with asyncio.TaskGroup() as requests:
            for n in range(max(1, round(rate * seconds))):
                due = begin + n / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                requests.create_task(one(n, due))
    return Latencies(sorted(responses), sorted(starts))
