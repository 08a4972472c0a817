"""bench/overhead.py: its rows have every line, find what they are there for, and compare builds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import busy

BENCH = Path(__file__).resolve().parent.parent / "bench"
LIMIT = 100.0
pytestmark = pytest.mark.timeout(LIMIT + 10)  # on a busy machine; seconds on a quiet one
#: How long something is kept waiting, in milliseconds, and what of it must be seen: what waits may
#: have begun its millisecond of sleep just before.
PAUSE, SEEN = 50, 48


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def run_overhead(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "overhead.py"), "--quick", "--loop", "asyncio", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def lines_of(*args: str, report: Path, least: float | None = 0) -> list[dict[str, Any]]:
    done = run_overhead(*args, "--json", str(report))
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = json.loads(report.read_text())["lines"]
    assert lines
    for line in lines:
        assert line["figure"]["low"] <= line["figure"]["median"] <= line["figure"]["high"]
        assert least is None or line["figure"]["low"] > least
        assert line["what"] in done.stdout
    return lines


AWAITED, BLOCKING = ("install", "Pool"), ("executor", "Pool")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "kept_waiting"),
    [
        (
            "fairness",
            {
                (f"{who}, {size} ms jobs", ways)
                for who, ways in (("loop", AWAITED), ("thread", BLOCKING))
                for size in ("0.1", "1", "3")
            },
        ),
        (
            "fairness-grown",
            {
                ("loop, C calls grown to 7 ms", AWAITED),
                ("thread, C calls grown to 7 ms", BLOCKING),
            },
        ),
        ("fairness-http", {("web server, 1 ms jobs", BLOCKING)}),
    ],
)
def test_a_row_has_a_pause_and_a_rate_for_each_way_and_number_of_workers(
    row: str, kept_waiting: set[tuple[str, tuple[str, ...]]], tmp_path: Path
) -> None:
    lines = lines_of("--row", row, "--queued", "0.003", report=tmp_path / "rows.json")
    expected = {
        (f"{what}, {workers}, {way}", unit)
        for what, ways in kept_waiting
        for way in ways
        for workers in ("1 worker", "2 workers")
        for unit in ("ms at worst", "x the standard's jobs")
    }
    assert len(lines) == len(expected)
    assert {(line["what"], line["unit"]) for line in lines} == expected
    for line in lines:
        assert line["row"] == row
        if line["unit"] == "ms at worst":
            assert (line["target"] is None) == (row == "fairness-http")
        else:
            assert line["absolute"]["figure"]["median"] > 0


@pytest.mark.slow
def test_latency_has_each_way_of_hearing(tmp_path: Path) -> None:
    """With native and Python jobs, at p50 and p90; and how many waits a timer has ended: none."""
    *lines, waits = lines_of("--row", "latency", report=tmp_path / "rows.json", least=None)
    ways = {
        *("result()", "wait()", "as_completed()", "done callback", "map()", "polling done()"),
        *("wrap_future()", "run_in_executor()", "to_thread() after install()"),
        *("Pool.submit()", "Pool.run()", "offgil.to_thread()"),
    }
    expected = {
        f"{way}, {job}{rate}, {percentile}"
        for way in ways
        for job in ("native", "lambda")
        for rate in (("", ", 2,000/s") if way == "done callback" else ("",))
        for percentile in ("p50", "p90")
    }
    assert {line["what"] for line in lines} == expected and len(lines) == len(expected)
    assert all("whose two runs differ" in line["note"] for line in lines)
    assert (waits["what"], waits["target"]["limit"]) == ("waits ended by a timer", 0)


async def test_latency_counts_what_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """One way that takes ten times as long on one executor."""
    import latency_rows
    from settings import Settings
    from workloads import JOBS

    async def one(executor: Any, function: Any) -> list[float]:
        return [10.0 if executor is late else 1.0] * 10

    early, late = object(), object()
    settings = Settings.chosen("asyncio", 3, quick=True)
    for ours, met in ((early, True), (late, False)):
        three: Any = latency_rows.Three(early, early, ours)  # type: ignore[arg-type]
        lines = await latency_rows._lines(settings, "made up", three, one, JOBS[0])
        assert [line.met for line in lines] == [met, met]


@pytest.mark.slow
def test_programs_are_all_there(tmp_path: Path) -> None:
    """Twenty and more, each with a control."""
    lines = lines_of("--row", "programs", report=tmp_path / "rows.json")
    names = {line["what"] for line in lines}
    assert len(names) == len(lines) >= 20
    for line in lines:
        assert "control" in line["note"] and line["target"]["limit"] >= 1.1


async def test_a_program_with_a_wrong_result_is_an_error() -> None:
    import program_rows
    from measuring import WrongResultError
    from settings import Settings

    @contextlib.contextmanager
    def wrong(library: Any) -> Iterator[Any]:
        yield program_rows.timed(lambda: program_rows._check(library.is_ours, False))

    settings = Settings.chosen("asyncio", 1, quick=True)
    with pytest.raises(WrongResultError, match="True instead of False"):
        await program_rows._line(settings, "made up", wrong)


def test_a_target_for_always_is_missed_by_one_round() -> None:
    from measuring import Spread, at_most

    assert at_most(20).met_by(Spread(10, 5, 21))
    assert not at_most(20, always=True).met_by(Spread(10, 5, 21))
    assert at_most(20, always=True).met_by(Spread(10, 5, 20))
    assert str(at_most(20, always=True)) == "<= 20, always"


def test_what_a_pause_swallows_counts() -> None:
    """A hundred wake-ups in time and one pause of 200 ms are not one late wake-up in a hundred."""
    from delays import INTERVAL, Delays

    delays = Delays()
    delays.noted = [0] * 100 + [200_000_000]
    assert delays.worst == 200
    assert delays.percentile(50) == pytest.approx(0, abs=0.001)
    # 300 of them, 200 late, by 200 ms, 199, 198...
    assert delays.percentile(50, INTERVAL) == pytest.approx(50, rel=0.05)
    assert delays.percentile(99, INTERVAL) == pytest.approx(197, rel=0.05)


async def test_a_pause_of_the_loop_that_ends_with_the_block_is_seen() -> None:
    from delays import of_the_loop

    async with asyncio.timeout(LIMIT), of_the_loop() as delays:
        threading.Event().wait(PAUSE / 1e3)
    assert delays.worst >= SEEN


@pytest.fixture
def nobody_is_let_in() -> Iterator[None]:
    """Keep Python from making a running thread give up the GIL."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(LIMIT)
    yield
    sys.setswitchinterval(before)


async def test_a_pause_of_a_thread_that_ends_with_the_block_is_seen(nobody_is_let_in: None) -> None:
    from delays import of_a_thread

    async with of_a_thread() as delays:
        busy(PAUSE * 1e3)
    assert delays.worst >= SEEN


async def test_a_late_response_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was asked for in the block and comes after it."""
    import http_delays

    asked, may_answer = threading.Event(), threading.Event()
    answer = http_delays._Handler.do_GET

    def do_GET(handler: http_delays._Handler) -> None:
        if handler.path != "/0":  # with which the client finds the server
            asked.set()
            may_answer.wait(LIMIT)
        answer(handler)

    monkeypatch.setattr(http_delays._Handler, "do_GET", do_GET)
    with http_delays.server() as port:
        async with http_delays.of_responses(port) as delays:
            assert await asyncio.to_thread(asked.wait, LIMIT)
            asyncio.get_running_loop().call_later(PAUSE / 1e3, may_answer.set)
    assert delays.worst >= SEEN


@pytest.mark.parametrize(
    ("right", "why"), [((), "has not come to be ready"), (("/0",), "client ended with 1")]
)
async def test_a_wrong_response_is_an_error(
    right: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import http_delays
    from measuring import WrongResultError

    answer = http_delays._Handler.do_GET

    def do_GET(handler: http_delays._Handler) -> None:
        handler.path = handler.path if handler.path in right else "/wrong"
        answer(handler)

    monkeypatch.setattr(http_delays._Handler, "do_GET", do_GET)
    with http_delays.server() as port:
        with pytest.raises(WrongResultError, match=why):
            async with http_delays.of_responses(port):
                pass


async def test_nothing_starts_before_all_is_queued() -> None:
    """And the lessons have all ended: both is what the gate is for."""
    from delays import of_a_thread
    from queued_jobs import EntryPoint, Queue, work_off

    started: list[int] = []
    submitted: list[int] = []

    def job(number: int) -> tuple[int, int]:
        started.append(number)
        return number, len(submitted)

    async def results_of(futures: Any) -> list[Any]:
        return [future.result(LIMIT) for future in futures]

    with ThreadPoolExecutor(2) as executor:

        def submit(function: Callable[..., Any], *args: Any) -> Any:
            submitted.extend(args)
            return executor.submit(function, *args)

        numbers = range(100)
        everything = [(number, len(numbers) + 1) for number in numbers]
        queue = Queue([(job, number) for number in numbers], everything, [(job, -1)])
        done = await work_off(EntryPoint("a way", submit, results_of), queue, 2, of_a_thread)
    assert sorted(started) == [-1, *numbers]
    assert done.jobs_per_second > 0
    assert done.delays.noted


@pytest.mark.parametrize("make", ["python_jobs", "grown_c_calls"])
async def test_wrong_results_are_an_error(make: str) -> None:
    """Even right ones that belong to other jobs."""
    import queued_jobs
    from delays import of_a_thread
    from measuring import WrongResultError

    queue = getattr(queued_jobs, make)(0.0001, 0.002)

    async def in_order(futures: Any) -> list[Any]:
        return [future.result(LIMIT) for future in futures]

    async def exchanged(futures: Any) -> list[Any]:
        return (await in_order(futures))[::-1]

    with ThreadPoolExecutor(1) as executor:
        right = queued_jobs.EntryPoint("right", executor.submit, in_order)
        await queued_jobs.work_off(right, queue, 1, of_a_thread)
        wrong = queued_jobs.EntryPoint("wrong", executor.submit, exchanged)
        with pytest.raises(WrongResultError, match="wrong"):
            await queued_jobs.work_off(wrong, queue, 1, of_a_thread)


# -- two builds ----------------------------------------------------------------------------------


def line(
    what: str,
    figure: float,
    *,
    at_most: bool | None,
    absolute: float | None,
    unit: str = "x TPE",
) -> Any:
    """Return a line as a process writes it."""
    return {
        "row": "made-up",
        "loop": "-",
        "what": what,
        "unit": unit,
        "figure": {"median": figure},
        "target": None if at_most is None else {"limit": 1.0, "at_most": at_most},
        "absolute": absolute and {"figure": {"median": absolute}, "unit": "jobs/s"},
    }


def made_up_build(folder: Path, name: str, *lines: Any, status: int = 0) -> Path:
    """Write what looks like the interpreter of an environment, and measures nothing."""
    answer = json.dumps({"lines": lines})
    interpreter = folder / name
    interpreter.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if '--json' in sys.argv: open(sys.argv[-1], 'w').write({answer!r})\n"
        f"if {status}: sys.exit('it is broken')\n"
    )
    interpreter.chmod(0o755)
    return interpreter


async def test_what_is_short_is_repeated_and_its_median_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import measuring

    now = 0.0
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now)

    async def passes(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(measuring, "CpuWatch", QuietMachine)
    contenders = {name: partial(passes, t) for name, t in (("short", 1.0), ("long", 5.0))}
    samples = await measuring.take_turns(contenders, 2, steady_for=3.0)
    assert samples.values == {"short": [2, 10], "long": [8, 16]}
    samples = await measuring.take_turns(contenders, 1)
    assert samples.values == {"short": [17], "long": [22]}


class QuietMachine:
    """A machine that nobody else uses."""

    def cpus_used_by_others(self) -> float:
        return 0.0


async def test_builds_are_compared_by_what_was_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builds

    before = made_up_build(
        tmp_path,
        "before",
        line("a rate", 30, at_most=False, absolute=1_000),
        line("a rate", 2, at_most=False, absolute=1_000, unit="x another"),
        line("a time", 10, at_most=True, absolute=None),
        line("neither", 10, at_most=None, absolute=None),
        line("nothing", 0, at_most=True, absolute=None),
        line("gone", 1, at_most=True, absolute=None),
    )
    after = made_up_build(
        tmp_path,
        "after",
        line("a rate", 40, at_most=False, absolute=900),
        line("a rate", 3, at_most=False, absolute=900, unit="x another"),
        line("a time", 9, at_most=True, absolute=None),
        line("neither", 20, at_most=None, absolute=None),
        line("nothing", 1, at_most=True, absolute=None),
        line("new", 1, at_most=True, absolute=None),
    )
    monkeypatch.setattr(sys, "executable", str(after))
    lines = await builds.compare(builds.other_build(str(before)), ["--row", "made-up"], 2)
    seen = {line.what: (line.figure.median, str(line.target), line.met) for line in lines}
    assert seen == {
        "a rate": (0.9, ">= 0.95", False),
        "a time": (0.9, "<= 1.05", True),
        "neither": (2, "None", None),
    }
    assert [line.unit for line in lines] == ["x before"] * 3
    assert lines[0].note.startswith("900 against 1000 jobs/s")


async def test_a_build_that_cannot_be_measured_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    import builds

    broken = made_up_build(tmp_path, "broken", status=1)
    with pytest.raises(builds.UnusableError, match=r"broken .* ended with 1: it is broken"):
        await builds.compare(broken, ["--row", "made-up"], 1)
    with pytest.raises(argparse.ArgumentTypeError, match="broken': it is broken"):
        builds.other_build(str(broken))
    with pytest.raises(argparse.ArgumentTypeError, match="nowhere': No such file"):
        builds.other_build(str(tmp_path / "nowhere"))
    empty = made_up_build(tmp_path, "empty")
    monkeypatch.setattr(sys, "executable", str(empty))
    with pytest.raises(builds.UnusableError, match="nothing was measured by --row made-up"):
        await builds.compare(empty, ["--row", "made-up"], 1)


@pytest.mark.slow
def test_a_build_is_compared_with_itself(tmp_path: Path) -> None:
    same = ("--before", sys.executable, "--rounds", "1", "--row", "in-order")
    (line,) = lines_of(*same, report=tmp_path / "builds.json")
    assert (line["row"], line["loop"], line["unit"]) == ("in-order", "asyncio", "x before")


@pytest.mark.parametrize("argument", ["0", "11", "nan", "long"])
def test_what_cannot_be_queued_is_refused(argument: str) -> None:
    done = run_overhead("--row", "fairness", f"--queued={argument}")
    assert done.returncode == 2
    assert "--queued: must be above 0, 10 at most" in done.stderr
