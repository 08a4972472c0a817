"""The parts of the load test: its clock, its counters, the two ways in which jobs come."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import threading
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from loadtest_made_up import a_report, a_result, a_round, histogram
from rich.console import Console
from support import run_in_new_loop

from offgil.loadtest import doors, loads, samples
from offgil.loadtest.call import CannotRun
from offgil.loadtest.lag import LagProbe
from offgil.loadtest.loads import ClosedLoop, OpenLoop, Phase
from offgil.loadtest.progress import Lines, Screen
from offgil.loadtest.recorder import ErrorCount, Recorder
from offgil.loadtest.rounds import PoolCounts, Timeline
from offgil.loadtest.samples import Samples
from offgil.loadtest.timer import PreciseTimer

#: Doors of the standard library's executor, which counts nothing.
_STANDARD = ("run_in_executor", "to_thread")
SECOND = 1_000_000_000

# --------------------------------------------------------------------------------------------------
# timer, lag, samples


async def test_the_timer_is_never_early_and_knows_the_past() -> None:
    """It calls at the time it was set to last; a time that has passed is the next turn."""
    called: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    timer = PreciseTimer(lambda: called.set_result(time.monotonic_ns()))
    try:
        timer.set(time.monotonic_ns() + 3600 * SECOND)
        due = time.monotonic_ns() + 2_500_000
        timer.set(due)
        assert await asyncio.wait_for(called, 10) >= due
        called = asyncio.get_running_loop().create_future()
        timer.set(1)
        await asyncio.wait_for(called, 10)
    finally:
        timer.close()


async def test_a_stall_is_as_many_late_looks_as_it_swallowed() -> None:
    """A loop that stands still for 100 ms was late 20 times, and not once."""
    looked = asyncio.Event()
    probe = LagProbe(looked.set)
    await asyncio.wait_for(looked.wait(), 10)
    probe.restart()
    time.sleep(0.1)
    looked.clear()
    await asyncio.wait_for(looked.wait(), 10)
    probe.close()
    assert probe.histogram.get_max_value() >= 90e6
    late = probe.histogram.get_total_count() * 0.01 * (100 - _share_below(probe, 10e6))
    assert late >= 16
    assert probe.take_worst() >= 90e6
    assert probe.take_worst() == 0


async def test_a_loop_that_stands_still_is_known_to_be_late() -> None:
    """Also before it moves again, to whoever asks on another thread."""
    looked = asyncio.Event()
    probe = LagProbe(looked.set)
    await asyncio.wait_for(looked.wait(), 10)
    probe.take_worst()
    time.sleep(0.05)
    assert probe.take_worst() >= 40e6
    probe.close()


def _share_below(probe: LagProbe, nanoseconds: float) -> float:
    below = sum(
        item.count_at_value_iterated_to
        for item in probe.histogram.get_recorded_iterator()
        if item.value_iterated_to < nanoseconds
    )
    return 100.0 * below / float(probe.histogram.get_total_count())


@pytest.mark.parametrize("chunks", [512, 2], ids=["kept", "counted at once"])
def test_percentiles_are_exact_to_a_thousandth(
    chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or to 64 ns; however many durations there are, and over eight orders of magnitude."""
    monkeypatch.setattr(samples, "_CHUNK", 1_000)
    monkeypatch.setattr(samples, "_MAX_CHUNKS", chunks)
    rng = random.Random(5)
    values = [int(10 ** rng.uniform(3, 11)) for _ in range(20_500)]
    kept = Samples()
    for value in values:
        kept.raw.append(value)
        kept.set_aside()
    assert len(kept) == len(values)
    histogram = kept.histogram()
    assert histogram.get_total_count() == len(values)
    values.sort()
    for percentile in (1, 50, 90, 99, 99.9, 100):
        exact = values[min(len(values) - 1, max(0, round(len(values) * percentile / 100) - 1))]
        assert histogram.get_value_at_percentile(percentile) == pytest.approx(
            exact, rel=3e-3, abs=64
        )


def test_no_duration_is_lost() -> None:
    """Nothing is too short or too long to count."""
    kept = Samples()
    kept.raw.extend([-5, 0, 1, 10**18])
    histogram = kept.histogram()
    assert histogram.get_total_count() == 4
    assert histogram.get_max_value() >= 3600 * SECOND


# --------------------------------------------------------------------------------------------------
# doors


@pytest.mark.parametrize("name", doors.DOORS)
def test_a_door_is_the_one_it_says(name: str) -> None:
    """It goes the way of its name, to the worker threads that it was told to have, and closes."""
    door = doors.open_door(name, 1, 1)

    async def main() -> None:
        submit = door.enter()
        call = submit(threading.get_ident)
        assert asyncio.isfuture(call) == (name not in ("run", "to_thread", "to_thread+install"))
        here = threading.get_ident()
        used = {await call, *await asyncio.gather(*(submit(threading.get_ident) for _ in "abc"))}
        assert len(used) == 1
        assert here not in used
        assert door.waiting() == 0

    run_in_new_loop(main())
    stats = door.stats()
    assert (stats is None) == (name in _STANDARD)
    assert stats is None or stats.completed == 4
    door.close()


@pytest.mark.parametrize("name", [name for name in doors.DOORS if name not in _STANDARD])
def test_workers_that_a_pool_refuses_cannot_run(name: str) -> None:
    """Whichever door it is; the standard library's takes any number."""

    async def main() -> None:
        doors.open_door(name, 40_000, 1).enter()

    with pytest.raises(CannotRun, match="40000"):
        run_in_new_loop(main())


# --------------------------------------------------------------------------------------------------
# closed loop


def a_phase(submit: Any, is_right: Any, **options: Any) -> Phase:
    return Phase(submit=submit, is_right=is_right, start_ns=time.monotonic_ns(), **options)


def closed(submit: Any, is_right: Any = bool, *, clients: int = 4, **options: Any) -> ClosedLoop:
    return ClosedLoop(a_phase(submit, is_right, **options), clients=clients)


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    """Never more than there are clients, and all tickets are used, no more."""
    most = now = 0

    async def job() -> bool:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return True

    load = closed(job, tickets=iter(range(50)))
    await load.run()
    recorder = load.recorder
    assert (most, recorder.completed, len(recorder.latencies)) == (4, 50, 50)
    assert load.in_flight == 0


async def test_what_fails_or_is_wrong_is_counted_apart() -> None:
    """Errors by type with the first text, wrong results with the first one."""
    outcomes: list[Any] = [1, KeyError("a"), 2, KeyError("b"), OSError(5, "c"), 0, 1]

    async def job() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    load = closed(job, lambda x: x == 1, clients=1, tickets=iter(range(7)))
    await load.run()
    recorder = load.recorder
    assert (recorder.completed, recorder.failed, recorder.wrong) == (2, 3, 2)
    assert recorder.errors["KeyError"] == ErrorCount(2, "'a'")
    assert recorder.wrong_example == "2"
    assert len(recorder.latencies) == 2


def test_an_exception_without_a_text_is_counted() -> None:
    """Whatever a stranger's __str__ does."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("do not ask")

    recorder = Recorder()
    recorder.note_error(Mute())
    assert [seen.example for seen in recorder.errors.values()] == [
        "<Mute, whose str raised RuntimeError>"
    ]


async def test_a_submit_that_raises_does_not_stop_the_loop() -> None:
    """As with a full pool: the loop turns between the failures, so that the phase can end."""

    def full() -> Awaitable[Any]:
        raise RuntimeError("full")

    load = closed(full, clients=2)
    asyncio.get_running_loop().call_later(0.05, load.stop)
    await asyncio.wait_for(load.run(), 10)
    assert load.recorder.failed > 2


@pytest.mark.parametrize("kind", ["closed", "open"])
async def test_jobs_that_never_end_are_abandoned(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load test says how many, and does not wait for ever."""
    monkeypatch.setattr(loads, "PATIENCE", 0.05)
    submit = asyncio.get_running_loop().create_future
    load = (
        closed(submit, clients=3, seconds=0.05)
        if kind == "closed"
        else opened(submit, tickets=iter(range(3)), seconds=0.05)
    )
    await asyncio.wait_for(load.run(), 10)
    assert (load.recorder.unfinished, load.recorder.completed) == (3, 0)


@pytest.mark.parametrize("kind", ["closed", "open"])
async def test_a_job_that_raises_cancelled_error_is_an_error(kind: str) -> None:
    """Its client in a closed loop goes on; it once was gone, and nothing told of it."""
    numbers = itertools.count(1)

    async def job() -> bool:
        if next(numbers) % 2:
            raise asyncio.CancelledError
        return True

    tickets = iter(range(20))
    load = (
        closed(job, clients=2, tickets=tickets)
        if kind == "closed"
        else opened(job, tickets=tickets, rate=1e5)
    )
    await asyncio.wait_for(load.run(), 10)
    recorder = load.recorder
    assert (recorder.completed, recorder.failed, recorder.unfinished) == (10, 10, 0)
    assert list(recorder.errors) == ["asyncio.exceptions.CancelledError"]
    assert load.in_flight == 0


# --------------------------------------------------------------------------------------------------
# open loop


def opened(submit: Any, is_right: Any = bool, *, rate: float = 1000.0, **options: Any) -> OpenLoop:
    return OpenLoop(a_phase(submit, is_right, **options), rate=rate)


def starts(load: OpenLoop, number: int) -> list[float]:
    """Return the intended starts, in seconds from the beginning."""
    schedule = load._schedule()
    return [(next(schedule) - load._start) / SECOND for _ in range(number)]


async def test_an_open_loop_has_a_fixed_schedule() -> None:
    """The k-th job is meant to start at k / rate."""
    load = opened(None, rate=250.0)
    assert starts(load, 1000) == pytest.approx([k / 250 for k in range(1000)], abs=1e-8)


async def test_a_ramp_rises_to_the_rate() -> None:
    """Half as many jobs as without, ever closer, and then one every 1 / rate."""
    times = starts(opened(None, rate=100.0, ramp=2.0), 150)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert sum(t < 2.0 for t in times) == 100
    assert all(a > b for a, b in itertools.pairwise(gaps[:99]))
    assert gaps[101:] == pytest.approx([0.01] * len(gaps[101:]), abs=1e-6)


async def test_a_stall_of_the_generator_is_in_the_corrected_latencies_only() -> None:
    """Jobs that could not be submitted in time waited all the same."""
    number = 0

    async def job() -> bool:
        nonlocal number
        number += 1
        if number == 20:
            asyncio.get_running_loop().call_soon(time.sleep, 0.2)
        return True

    load = opened(job, rate=100.0, tickets=iter(range(60)))
    await asyncio.wait_for(load.run(), 20)
    assert load.recorder.completed == 60
    corrected, plain = load.recorder.corrected.raw, load.recorder.latencies.raw
    # Twenty jobs were due in that time, ten of them in its first half. A machine that stands still
    # for a moment of its own adds to both.
    late = sum(a - b > 90e6 for a, b in zip(corrected, plain, strict=True))
    assert late >= 9
    assert sum(a > 90e6 for a in corrected) >= sum(b > 90e6 for b in plain) + 9


async def test_an_open_loop_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far too many in flight are not made more, but counted."""
    monkeypatch.setattr(loads, "_MOST_IN_FLIGHT", 5)
    monkeypatch.setattr(loads, "PATIENCE", 0.05)
    load = opened(asyncio.get_running_loop().create_future, rate=1e5, tickets=iter(range(20)))
    await asyncio.wait_for(load.run(), 10)
    assert (load.recorder.dropped, load.recorder.unfinished) == (15, 5)


async def test_stop_ends_an_open_loop() -> None:
    """From any thread, long before its time."""
    load = opened(lambda: asyncio.sleep(0, True), seconds=3600.0)
    asyncio.get_running_loop().call_later(0.05, load.stop)
    await asyncio.wait_for(load.run(), 10)
    assert load.in_flight == 0


# --------------------------------------------------------------------------------------------------
# figures and warnings


def test_the_figures_of_several_rounds() -> None:
    """Throughput is the median, latencies are those of all, costs are per job."""
    found = a_result(a_round(), a_round(completed=80), a_round(seconds=0.5))
    figures = found.figures
    assert (figures["jobs"], figures["throughput"]) == (280, 100)
    assert (figures["throughput_low"], figures["throughput_high"]) == (80, 200)
    assert figures["p50"] == pytest.approx(0.050, rel=2e-3)
    assert found.figure("p97.5") == pytest.approx(0.098, rel=2e-3)
    assert figures["max"] == pytest.approx(0.1, rel=2e-3)
    assert figures["cpu_per_job"] == pytest.approx(0.9 / 280)
    assert figures["wakeups_per_job"] == pytest.approx(0.1)
    assert figures["worker_busy"] == pytest.approx(3.0 / (2.5 * 2))
    assert (figures["waiting_mean"], figures["waiting_max"]) == (2, 3)
    assert figures["uncorrected_p99"] is None
    with pytest.raises(LookupError):
        found.figure("p101")


def test_a_job_that_failed_has_its_share_of_the_costs() -> None:
    """What the pool did for it was done, whatever came of it."""
    half = PoolCounts(50, 5, 10, 20, 1.0, 2, failed=50)
    figures = a_result(a_round(pool=half)).figures
    assert figures["gil_acquisitions_per_job"] == pytest.approx(0.05)
    assert figures["wakeups_per_job"] == pytest.approx(0.1)
    assert figures["batches_per_job"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("seen", "warning"),
    [
        ({"completed": 0, "errors": {"KeyError": ErrorCount(7, "x")}}, "every call failed, all 7"),
        ({"completed": 0, "unfinished": 9}, "no job ended in time, 9 were abandoned"),
        ({"wrong": 2, "wrong_example": "13"}, "2 results were wrong, such as 13"),
        ({"target_rate": 200.0, "corrected": histogram(1)}, "the rate was not reached: 100/s of"),
        ({"unfinished": 3}, "3 jobs were abandoned"),
        ({"dropped": 3}, "3 jobs were never submitted"),
        ({"loop_cpu": 0.95}, "the event loop was the bottleneck"),
        ({"loop_cpu": 0.95, "pool": None}, "the event loop was the bottleneck"),
        ({"cpus_used_by_others": 0.8}, "other processes used up to 0.80 CPUs"),
        ({"cpus_stolen": 0.3}, "steal time"),
    ],
)
def test_what_makes_figures_worth_less_is_said(seen: dict[str, Any], warning: str) -> None:
    """One warning for each, and none where nothing is the matter."""
    assert any(warning in text for text in a_report(a_result(a_round(**seen))).warnings())
    assert not [text for text in a_report(a_result(a_round())).warnings() if warning in text]


def test_a_busy_generator_with_busy_workers_is_no_bottleneck() -> None:
    """Both are at their limit then."""
    busy = PoolCounts(100, 0, 0, 0, 1.9, 2)
    assert not a_result(a_round(loop_cpu=0.99, pool=busy)).warnings()


@pytest.mark.parametrize(
    ("fact", "warning"),
    [
        ({"optimized_build": False}, "offgil is a debug build"),
        ({"python_debug": True}, "Python is a debug build"),
        ({"usable_cpus": 1}, "only one CPU"),
    ],
)
def test_the_environment_is_judged(fact: dict[str, Any], warning: str) -> None:
    """A debug build's figures are marked as such."""
    report = a_report(a_result(a_round()))
    report.environment = replace(report.environment, **fact)
    assert any(warning in text for text in report.warnings())


def test_long_jobs_are_drawn_where_they_ran() -> None:
    """A worker's time is counted when its job ends; the timeline spreads it backwards."""
    line = Timeline([1, 2, 3], [0] * 3, [0] * 3, [0] * 3, [0] * 3, [[0, 0.5], [0, 0.5], [2.5, 0]])
    assert line.spread_busy() == [[0.5, 0.5], [1, 0.5], [1, 0]]


# --------------------------------------------------------------------------------------------------
# on a terminal, and elsewhere


def test_a_terminal_shows_live_figures_and_a_pipe_gets_lines() -> None:
    """Both end with a line per round."""
    configuration = a_result(command="builtins:len [1,2] --door pool").configuration
    seen = {"seconds": 0.5, "throughput": 1234.0, "p50": 0.001, "p99": 0.002, "errors": 3}
    texts = {}
    for kind in (Lines, Screen):
        file = io.StringIO()
        console = Console(file=file, force_terminal=kind is Screen, width=120, color_system=None)
        with kind(console, 2) as watching:
            watching.begin(1, configuration)
            watching.progress(seen)
            watching.end(a_round())
        texts[kind] = file.getvalue()
        assert "len([1, 2]), pool" in texts[kind]
        assert "100 jobs/s, p50 50 ms" in texts[kind]
    assert "1,234 jobs/s" in texts[Screen]
    assert "3 errors" in texts[Screen]
    assert texts[Lines].count("\n") == 1
