"""One round of one configuration, in this process."""

from __future__ import annotations

import asyncio
import itertools
import math
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import offgil
from offgil._machine import CpuWatch
from offgil.loadtest.call import BoundCall, CannotRun
from offgil.loadtest.doors import Door, PoolDoor, open_door
from offgil.loadtest.lag import LagProbe
from offgil.loadtest.loads import Load, clock
from offgil.loadtest.loop_thread import LoopThread, Share
from offgil.loadtest.plan import Configuration
from offgil.loadtest.recorder import ErrorCount, Recorder
from offgil.loadtest.rounds import PoolCounts, Round, Timeline
from offgil.loadtest.samples import HdrHistogram, new_histogram

#: Points of a timeline; more of them disturb what they show.
_POINTS = 100
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 0.02, 1.0
#: Seconds until the loops have to be ready, their warm-up not counted.
_START_LIMIT = 60.0
#: Nanoseconds in which all loops hear when to start.
_HEAD_START = 20_000_000
_SECOND = 1e9

Progress = Callable[[dict[str, Any]], None]


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make an event loop; raises CannotRun where uvloop is asked for and not installed."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ModuleNotFoundError:
        raise CannotRun("uvloop is not installed; get it with: pip install uvloop") from None
    return uvloop.new_event_loop()


def measure(
    configuration: Configuration, call: BoundCall, stop: threading.Event, progress: Progress
) -> Round:
    """Warm up, load, and return what was seen; ``stop`` ends it early, with what there is.

    ``progress`` is called a few times a second with live figures. Loops and workers are left to the
    end of the process: a job of theirs may never end.
    """
    door = open_door(
        configuration.door,
        configuration.workers,
        configuration.loops,
        configuration.pool_options,
    )
    shares = _shares(configuration)
    threads = [
        LoopThread(number, lambda: new_loop(configuration.loop), door, call, share)
        for number, share in enumerate(shares)
    ]
    _await_readiness(threads, configuration.warmup, stop)
    with _traced(door, configuration.trace):
        return _Measurement(configuration, door, threads, stop, progress).run()


def _traced(door: Door, path: str | None) -> AbstractContextManager[object]:
    if path is None:
        return nullcontext()
    assert isinstance(door, PoolDoor)  # `doors.check` has seen to it
    return door.trace(path)


def _shares(configuration: Configuration) -> list[Share]:
    loops = configuration.loops
    tickets: Iterator[int] | None = None
    if configuration.jobs is not None:
        tickets = iter(range(configuration.jobs))  # `next` on it is atomic: the loops share it
    clients = configuration.concurrency
    rate = None if configuration.rate is None else configuration.rate.per_second
    return [
        Share(
            # 10 clients on 4 loops: 3, 3, 2, 2.
            clients=None if clients is None else (clients + loops - 1 - number) // loops,
            rate=None if rate is None else rate / loops,
            warmup=configuration.warmup,
            seconds=configuration.seconds,
            ramp=configuration.ramp,
            tickets=tickets,
        )
        for number in range(loops)
    ]


def _await_readiness(threads: list[LoopThread], warmup: float, stop: threading.Event) -> None:
    give_up = time.monotonic() + warmup + _START_LIMIT
    ready = [thread.ready for thread in threads]
    while wait(ready, timeout=0.05).not_done:
        if stop.is_set():
            for thread in threads:
                thread.stop()
        if time.monotonic() > give_up:
            raise CannotRun("the warm-up does not end: the jobs take too long")
    for future in ready:
        future.result()


@dataclass(frozen=True)
class _Snapshot:
    """Counters at one moment, to be subtracted."""

    when_ns: int
    user: float
    system: float
    loop_cpu: tuple[float, ...]
    stats: offgil.PoolStats | None


class _Measurement:
    """Watches the loops from the main thread, which sleeps but for one look per interval."""

    def __init__(
        self,
        configuration: Configuration,
        door: Door,
        threads: list[LoopThread],
        stop: threading.Event,
        progress: Progress,
    ) -> None:
        self._configuration = configuration
        self._door = door
        self._threads = threads
        self._stop = stop
        self._progress = progress
        self._timeline = Timeline([], [], [], [], [], [])
        seconds = configuration.seconds
        self._interval = _SHORTEST_INTERVAL
        if seconds is not None:
            self._interval = min(max(seconds / _POINTS, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)

    def run(self) -> Round:
        # Before any loop hears of the start: a hundred quick jobs are over before we awake.
        before, watch = self._snapshot(), CpuWatch()
        start = clock() + _HEAD_START
        for thread in self._threads:
            thread.start_ns.set_result(start)
        begun = [thread.begun.result(_START_LIMIT) for thread in self._threads]
        self._loads: list[Load] = [load for load, _ in begun]
        self._probes: list[LagProbe] = [probe for _, probe in begun]
        self._sleep_until(start)
        self._start, self._ended_then, begin = start, 0, start
        self._looked: float = start
        self._busy_then = before.stats.worker_busy_seconds if before.stats else ()
        if self._configuration.ramp:
            self._watch_until(start + self._configuration.ramp * _SECOND)
            for load in self._loads:
                load.recorder = Recorder()
            for probe in self._probes:
                probe.restart()
            self._ended_then, begin = 0, clock()
            before, watch = self._snapshot(), CpuWatch()
        end = math.inf
        if self._configuration.seconds is not None:
            end = start + self._configuration.seconds * _SECOND
        self._watch_until(end)
        after = self._snapshot()
        # This thread may have come late, but what ended after the end did not count.
        seconds = (min(end, after.when_ns) - begin) / _SECOND
        others, stolen = watch.cpus_used_by_others(), watch.cpus_stolen()
        lag = new_histogram()
        for probe in self._probes:
            lag.add(probe.histogram)
        self._await_end()
        return self._round(seconds, before, after, lag, others, stolen)

    def _watch_until(self, end: float) -> None:
        """Look once per interval until then, or until the loops have ended or have to."""
        ended = [thread.ended for thread in self._threads]
        for number in itertools.count(1):
            now = clock()
            look = min(end, max(now, self._looked + int(self._interval * _SECOND)))
            wait(ended, timeout=max(0.0, (look - now) / _SECOND))
            self._look(min(clock(), end))
            if clock() >= end or all(future.done() for future in ended):
                return
            if self._stop.is_set():
                for thread in self._threads:
                    thread.stop()
                return
            if number % max(1, round(0.2 / self._interval)) == 0:
                self._tell()

    def _look(self, now: float) -> None:
        elapsed = max((now - self._looked) / _SECOND, 1e-9)
        if elapsed < self._interval / 2 and self._timeline.seconds:
            return  # the last one, of too short a time to say anything
        ended = sum(load.recorder.ended for load in self._loads)
        line = self._timeline
        line.seconds.append(round((now - self._start) / _SECOND, 6))
        line.throughput.append(round((ended - self._ended_then) / elapsed, 3))
        line.in_flight.append(sum(load.in_flight for load in self._loads))
        line.waiting.append(self._door.waiting())
        worst = max(probe.take_worst() for probe in self._probes)
        line.lag.append(worst / _SECOND)
        if stats := self._door.stats():
            busy = stats.worker_busy_seconds
            then = self._busy_then or (0.0,) * len(busy)
            line.busy.append([round((b - a) / elapsed, 4) for a, b in zip(then, busy, strict=True)])
            self._busy_then = busy
        self._looked, self._ended_then = now, ended
        if self._configuration.seconds is None:  # nobody knows how long it will take
            longer = (now - self._start) / _SECOND / _POINTS
            self._interval = min(max(self._interval, longer), _LONGEST_INTERVAL)

    def _tell(self) -> None:
        latest: list[int] = []
        for load in self._loads:
            recorder = load.recorder
            kept = recorder.corrected if len(recorder.corrected) else recorder.latencies
            latest += kept.latest(1_000)
        latest.sort()
        errors = sum(load.recorder.failed + load.recorder.wrong for load in self._loads)
        self._progress(
            {
                "seconds": self._timeline.seconds[-1],
                "throughput": self._timeline.throughput[-1],
                "p50": latest[len(latest) // 2] / _SECOND if latest else None,
                "p99": latest[int(len(latest) * 0.99)] / _SECOND if latest else None,
                "errors": errors,
            }
        )

    def _await_end(self) -> None:
        ended: list[Future[None]] = [thread.ended for thread in self._threads]
        while wait(ended, timeout=0.1).not_done:
            if self._stop.is_set():
                for thread in self._threads:
                    thread.stop()
        for future in ended:
            future.result()

    def _snapshot(self) -> _Snapshot:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return _Snapshot(
            clock(),
            usage.ru_utime,
            usage.ru_stime,
            tuple(thread.cpu_seconds for thread in self._threads),
            self._door.stats(),
        )

    def _round(
        self,
        seconds: float,
        before: _Snapshot,
        after: _Snapshot,
        lag: HdrHistogram,
        others: float,
        stolen: float,
    ) -> Round:
        recorders = [load.recorder for load in self._loads]
        latencies, corrected = new_histogram(), new_histogram()
        errors: dict[str, ErrorCount] = {}
        for recorder in recorders:
            latencies.add(recorder.latencies.histogram())
            corrected.add(recorder.corrected.histogram())
            for name, seen in recorder.errors.items():
                errors.setdefault(name, ErrorCount(0, seen.example)).count += seen.count
        wrong_examples = [r.wrong_example for r in recorders if r.wrong_example is not None]
        rate = self._configuration.rate
        pool = None
        if before.stats is not None and after.stats is not None:
            pool = PoolCounts.between(before.stats, after.stats)
        cpu = [b - a for a, b in zip(before.loop_cpu, after.loop_cpu, strict=True)]
        return Round(
            seconds=seconds,
            completed=sum(recorder.completed for recorder in recorders),
            errors=errors,
            wrong=sum(recorder.wrong for recorder in recorders),
            wrong_example=wrong_examples[0] if wrong_examples else None,
            unfinished=sum(recorder.unfinished for recorder in recorders),
            dropped=sum(recorder.dropped for recorder in recorders),
            target_rate=None if rate is None else rate.per_second,
            latencies=_encoded(latencies),
            corrected=None if self._configuration.closed else _encoded(corrected),
            lag=_encoded(lag),
            cpu_user=after.user - before.user,
            cpu_system=after.system - before.system,
            loop_cpu=max(cpu) * _SECOND / (after.when_ns - before.when_ns),
            pool=pool,
            cpus_used_by_others=others,
            cpus_stolen=stolen,
            interrupted=self._stop.is_set(),
            timeline=self._timeline,
        )

    def _sleep_until(self, when_ns: int) -> None:
        time.sleep(max(0.0, (when_ns - clock()) / _SECOND))


def _encoded(histogram: Any) -> str:
    text: bytes = histogram.encode()
    return text.decode()
