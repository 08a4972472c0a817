"""One turn of one peer, in a process of its own: the child of peers.py.

    python bench/peer_turn.py awaited|synchronous PEER WORKLOAD JOBS SECONDS

Prints one line of JSON: the figure and the versions, or why there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import awaited_peers
import synchronous_peers
import workloads
from measuring import WrongResultError, steady, usable_cpus
from peer import AwaitedPeer, Batch, Door_co, Peer, SynchronousPeer, UnavailableError

WARM_UP_JOBS = 500


def main() -> None:
    """Measure what the arguments say and print the answer."""
    kind, title, workload, jobs, seconds = sys.argv[1:]
    answer: dict[str, Any]
    try:
        if kind == "awaited":
            awaited = _named(title, awaited_peers.PEERS)
            run = _runner(awaited.loop)
            value = run(_awaited(awaited, workload, int(jobs), float(seconds)))
            versions = awaited.versions()
        else:
            synchronous = _named(title, synchronous_peers.PEERS)
            value = asyncio.run(_batches(synchronous, int(jobs), float(seconds)))
            versions = synchronous.versions()
        answer = {"value": value, "versions": versions}
    except (ImportError, UnavailableError) as why:
        answer = {"unavailable": str(why)}
    except WrongResultError as what:
        answer = {"wrong": str(what)}
    print(json.dumps(answer), flush=True)


def _named(title: str, peers: tuple[Peer[Door_co], ...]) -> Peer[Door_co]:
    return next(peer for peer in peers if peer.title == title)


def _runner(loop: str) -> Callable[[Coroutine[Any, Any, float]], float]:
    if loop == "trio":
        import trio

        return lambda main: trio.run(lambda: main)
    if loop == "uvloop":
        import uvloop

        return lambda main: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main)
    return asyncio.run


async def _awaited(peer: AwaitedPeer, workload: str, jobs: int, seconds: float) -> float:
    if peer.loop == "trio":
        import trio_workloads

        closed_loop, gather = trio_workloads.closed_loop, trio_workloads.gather
    else:
        closed_loop, gather = workloads.closed_loop, workloads.gather
    run = {"closed": closed_loop, "gather": gather, "one": workloads.one_at_a_time}[workload]
    async with peer.open() as who:
        await run(who.submit, who.echo, min(jobs, WARM_UP_JOBS))
        if workload == "one":
            _keep_workers_apart()
        return await steady(lambda: run(who.submit, who.echo, jobs), seconds)


def _keep_workers_apart() -> None:
    """Pin the event loop's thread to one CPU and all others to another.

    A round trip takes several times as long, or as short, where the scheduler happens to put both.
    """
    cpus = usable_cpus()
    if sys.platform != "linux" or len(cpus) < 2:
        return
    for task in Path("/proc/self/task").iterdir():
        thread = int(task.name)
        with contextlib.suppress(ProcessLookupError):  # some make a thread for a moment
            os.sched_setaffinity(thread, {cpus[0 if thread == os.getpid() else 1]})


async def _batches(peer: SynchronousPeer, jobs: int, seconds: float) -> float:
    with peer.open() as batch:
        _batch(batch, min(jobs, WARM_UP_JOBS))

        async def measure() -> float:
            return _batch(batch, jobs)

        return await steady(measure, seconds)


def _batch(batch: Batch, jobs: int) -> float:
    """Return jobs per second when all are submitted before the first result is taken."""
    started = time.perf_counter()
    results = batch(range(jobs))
    elapsed = time.perf_counter() - started
    if results != list(range(jobs)):
        raise WrongResultError("batch")
    return jobs / elapsed


if __name__ == "__main__":
    main()
