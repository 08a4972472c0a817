"""The report on a terminal, or as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offgil.loadtest.plan import shared_aspects
from offgil.loadtest.quantity import count, duration
from offgil.loadtest.report import Report
from offgil.loadtest.results import Result

_BARS = 12
_BAR_WIDTH = 40
#: Histograms of more configurations would bury the tables.
_MOST_HISTOGRAMS = 4

Column = tuple[str, Callable[[Result], str]]


def _time(name: str) -> Callable[[Result], str]:
    return lambda result: duration(result.figures[name])


def _count(name: str, decimals: int | None = None) -> Callable[[Result], str]:
    def write(result: Result) -> str:
        value = result.figures[name]
        return count(value if value is None or decimals is None else round(value, decimals))

    return write


def _share(name: str) -> Callable[[Result], str]:
    def write(result: Result) -> str:
        value = result.figures[name]
        return "-" if value is None else f"{value:.0%}"

    return write


def _range(result: Result) -> str:
    low, high = result.figures["throughput_low"], result.figures["throughput_high"]
    return f"{count(round(low or 0))} - {count(round(high or 0))}"


_PERCENTILES = ("p50", "p90", "p99", "p99.9", "p99.99", "max")
_LATENCY: Sequence[Column] = (
    ("jobs/s", _count("throughput", 0)),
    *((name, _time(name)) for name in _PERCENTILES),
    ("errors", _count("errors")),
    ("wrong", _count("wrong")),
)
_COST: Sequence[Column] = (
    ("CPU", _time("cpu_per_job")),
    ("user", _time("cpu_user_per_job")),
    ("system", _time("cpu_system_per_job")),
    ("GIL acquisitions", _count("gil_acquisitions_per_job")),
    ("wake-ups", _count("wakeups_per_job")),
    ("batches", _count("batches_per_job")),
)
_MEANWHILE: Sequence[Column] = (
    ("lag p50", _time("lag_p50")),
    ("lag p99", _time("lag_p99")),
    ("lag max", _time("lag_max")),
    ("loop's CPU", _share("loop_cpu")),
    ("workers busy", _share("worker_busy")),
    ("jobs waiting", _count("waiting_mean")),
    ("at most", _count("waiting_max")),
)


def show(console: Console, report: Report) -> None:
    """Print tables, histograms, errors and warnings."""
    results = report.results
    if not results:
        console.print("nothing was measured")
        return
    of_all = results[0].configuration.aspects()
    # A single one has its name in the title.
    shared = set(of_all)
    if len(results) > 1:
        shared = shared_aspects([result.configuration for result in results])
    common = ", ".join(of_all[key] for key in of_all if key in shared)
    closed = [result.configuration.closed for result in results]
    _table(console, f"Latency: {common}", shared, results, _LATENCY)
    if any(closed):
        console.print(
            "closed: a job is submitted when another one has ended, so that latency is what "
            "so many in flight cost, and not what callers would wait."
        )
    if not all(closed):
        console.print("open: from the intended start (corrected for coordinated omission).")
        open_ones = [result for result in results if not result.configuration.closed]
        columns: Sequence[Column] = (
            ("target/s", _count("target_rate", 0)),
            ("in time/s", _count("throughput", 0)),
            *((name, _time(f"uncorrected_{name}")) for name in _PERCENTILES),
        )
        _table(console, "The same, uncorrected: from the actual submit", shared, open_ones, columns)
    if any(len(result.rounds) > 1 for result in results):
        _table(console, "Range of the rounds", shared, results, (("jobs/s", _range),))
    _table(console, "What a job cost", shared, results, _COST)
    _table(
        console, "The event loop, the workers and the queue meanwhile", shared, results, _MEANWHILE
    )
    if len(results) <= _MOST_HISTOGRAMS:
        for result in results:
            _histogram(console, result, shared)
    _errors(console, results, shared)
    for warning in report.warnings():
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    for failure in report.failed_assertions:
        console.print(f"[red]assertion failed:[/] {escape(failure)}", soft_wrap=True)


def _table(
    console: Console,
    title: str,
    shared: set[str],
    results: Sequence[Result],
    columns: Sequence[Column],
) -> None:
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        name = escape(result.configuration.name(shared))
        table.add_row(name, *(write(result) for _, write in columns))
    console.print(table)


def _histogram(console: Console, result: Result, shared: set[str]) -> None:
    """Print bars of equal ratio between the least and the greatest latency."""
    counts = [
        (item.value_iterated_to * 1e-9, item.count_at_value_iterated_to)
        for item in result.latencies.get_recorded_iterator()
    ]
    if not counts:
        return
    least, greatest = max(counts[0][0], 1e-9), counts[-1][0]
    ratio = (greatest / least) ** (1 / _BARS)
    bounds = [least * ratio ** (bar + 1) for bar in range(_BARS - 1)] + [greatest]
    bars = [0] * _BARS
    bar = 0
    for value, number in counts:
        while value > bounds[bar] and bar < _BARS - 1:
            bar += 1
        bars[bar] += number
    name = result.configuration.name(shared)
    console.print(f"[bold]  Histogram{': ' * bool(name)}{escape(name)}[/]")
    most = max(bars)
    block = "█" if console.encoding.startswith("utf") else "#"
    for bound, number in zip(bounds, bars, strict=True):
        line = block * round(_BAR_WIDTH * number / most)
        console.print(f"  up to {duration(bound):>8}  {number:>11,}  {line}", markup=False)


def _errors(console: Console, results: Sequence[Result], shared: set[str]) -> None:
    for result in results:
        for name, seen in result.errors().items():
            who = result.configuration.name(shared)
            console.print(
                f"[red]{seen.count:,} x {escape(name)}[/]{escape(f' ({who})' if who else '')}: "
                f"{escape(seen.example)}",
                soft_wrap=True,
            )
