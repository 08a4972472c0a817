"""The three tables on a terminal, or as plain lines where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from offgil import _console
from offgil._machine import Environment
from offgil.demo.first_article import FirstArticle
from offgil.demo.second_article import (
    BOTH_HOLD,
    HOLDING_FIRST,
    ON_POOL,
    RELEASING_FIRST,
    SecondArticle,
)
from offgil.demo.small_jobs import OFFGIL, TO_THREAD, SmallJobs
from offgil.demo.ticker import LoopActivity

#: Two ratios that differ by less may be the same.
_CLEARLY = 1.25
#: Measured over seconds, "two CPUs free" comes out a little lower.
_TWO_FREE_CPUS = 1.8

Announce = Callable[[str], None]


def console() -> Console:
    """Return a console that is wide enough for the tables."""
    return _console.output(least_width=76, plain_width=100)


@contextmanager
def progress(console: Console, steps: int) -> Iterator[Announce]:
    """Show each announced step: as a bar on a terminal, else as a line on standard error.

    Nothing is drawn between steps: a thread that animates a bar would compete for the GIL.
    """
    if not console.is_terminal:
        yield _announce_lines(_console.progress(), steps)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=steps)
        done = -1

        def announce(label: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=label, refresh=True)

        yield announce


def _announce_lines(console: Console, steps: int) -> Announce:
    done = 0

    def announce(label: str) -> None:
        nonlocal done
        done += 1
        console.print(f"{done:2}/{steps} {label}", markup=False)

    return announce


def environment(console: Console, machine: Environment) -> None:
    """Print what the figures depend on."""
    console.print(
        f"offgil {machine.offgil}, {machine.implementation} {machine.python}, "
        f"{machine.usable_cpus} usable CPUs of {machine.cpu_count}, {machine.platform}",
        markup=False,
    )
    if not machine.optimized_build:
        console.print("[yellow]This is a debug build: its figures mean little.[/]")


def first_article(console: Console, result: FirstArticle) -> None:
    """Print the first article's table."""
    table = _table(
        console,
        f"1. Five jobs on five threads: add up a million numbers, sleep {result.seconds:g} s",
        ("", "wall", "event loop: ticks", "worst stall", "results"),
    )
    for row in result.rows:
        table.add_row(
            row.label, f"{row.wall_seconds:.2f} s", *_activity(row.loop), _verdict(row.correct)
        )
    table.add_row("(the loop with nothing to do)", "", *_activity(result.idle), "")
    _draw(console, table)
    naive, ours = result.rows[0], result.rows[-1]
    console.print(
        "The naive binding holds the GIL while it sleeps: the five ran one after another, and the "
        f"event loop stood still for {_duration(naive.loop.worst_stall_seconds)}. On offgil they "
        f"took {ours.wall_seconds:.2f} s and the loop was never later than "
        f"{_duration(ours.loop.worst_stall_seconds)} (idle: "
        f"{_duration(result.idle.worst_stall_seconds)})."
    )


def second_article(console: Console, result: SecondArticle) -> None:
    """Print the second article's table, and below it what a double release does."""
    table = _table(
        console,
        f"2. The Fibonacci number {result.n:,} (modulo 2^64), computed once or twice",
        ("", "wall", "to one", "results"),
    )
    for run in result.runs:
        table.add_row(
            run.label, f"{run.wall_seconds:.3f} s", f"{run.ratio:.2f} x", _verdict(run.correct)
        )
    _draw(console, table)
    ratio = {run.label: run.ratio for run in result.runs}
    one, other = ratio[RELEASING_FIRST], ratio[HOLDING_FIRST]
    order = (
        f", and if one of them releases it, it matters which starts first ({one:.2f} or "
        f"{other:.2f})"
        if max(one, other) > _CLEARLY * min(one, other)
        else ""
    )
    console.print(
        f"Two threads that hold the GIL took {ratio[BOTH_HOLD]:.2f} times as long as one{order}; "
        f"two jobs on offgil took {ratio[ON_POOL]:.2f}."
    )
    if result.free_cpus < _TWO_FREE_CPUS:
        console.print(
            f"[yellow]Only {result.free_cpus:.1f} CPUs were free meanwhile: without two, two jobs "
            "cannot take the time of one.[/]"
        )
    releases = _table(
        console,
        "   Releasing the GIL where it is released already",
        ("", "the process", "said", "results"),
    )
    for release in result.releases:
        releases.add_row(release.label, release.outcome, release.said, _verdict(release.correct))
    _draw(console, releases, texts=("", "said"))
    console.print(
        "A second release kills a process; offgil's own may be nested, and then does nothing."
    )


def small_jobs(console: Console, result: SmallJobs) -> None:
    """Print the table of small jobs."""
    jobs = result.doors[0].jobs
    table = _table(
        console,
        f"3. {jobs:,} small jobs, {result.tasks} at a time, {result.workers} worker threads",
        ("", "jobs/s", "to the first", "GIL per job", "wake-ups per job", "results"),
    )
    for door in result.doors:
        table.add_row(
            door.label,
            f"{door.jobs_per_second:,.0f}",
            f"{door.ratio:.1f} x",
            _per_job(door.gil_acquisitions_per_job),
            _per_job(door.wakeups_per_job),
            _verdict(door.wrong == 0),
        )
    _draw(console, table)
    doors = {door.label: door for door in result.doors}
    ours = doors[OFFGIL]
    console.print(
        f"offgil carried {_factor(ours.ratio)} times as many jobs as run_in_executor and "
        f"{_factor(ours.ratio / doors[TO_THREAD].ratio)} times as many as to_thread; its workers "
        f"took the GIL {_times(ours.gil_acquisitions_per_job, ours.jobs)} and woke the loop "
        f"{_times(ours.wakeups_per_job, ours.jobs)}."
    )
    console.print()


def _table(console: Console, title: str, headers: tuple[str, ...]) -> Table:
    """Print the title (a table would fold it to its own width) and return the table to fill."""
    console.print()
    console.print(f"[bold]{title}[/]")
    table = Table()
    first, *others = headers
    table.add_column(first)
    for header in others:
        table.add_column(header, justify="right")
    return table


def _draw(console: Console, table: Table, texts: tuple[str, ...] = ("",)) -> None:
    """Print a table; where room is scarce, ``texts`` are broken, and no figure is."""
    unbroken = console.measure(table, options=console.options.update(width=10_000)).maximum
    if unbroken > console.width:
        for column in table.columns:
            if column.header in texts:
                column.overflow = "fold"
            else:
                words = [Text.from_markup(str(cell)) for cell in column.cells]
                words += [Text(word) for word in str(column.header).split()]
                column.width = max(each.cell_len for each in words)
    console.print(table)


def _activity(activity: LoopActivity) -> tuple[str, str]:
    ticks = f"{activity.ticks} of {activity.expected_ticks}"
    return ticks, _duration(activity.worst_stall_seconds)


def _verdict(correct: bool) -> str:
    return "right" if correct else "[bold red]WRONG[/]"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _factor(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _per_job(count: float | None) -> str:
    return "-" if count is None else f"{count:.4f}"


def _times(per_job: float | None, jobs: int) -> str:
    count = round((per_job or 0) * jobs)
    return "once" if count == 1 else f"{count:,} times"
