"""Two reports side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offgil.loadtest.call import CannotRun
from offgil.loadtest.quantity import count, duration
from offgil.loadtest.report import Report
from offgil.loadtest.results import Result

_FIGURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("throughput", "jobs/s", lambda value: count(round(value or 0))),
    ("p50", "p50", duration),
    ("p99", "p99", duration),
    ("p99.9", "p99.9", duration),
    ("max", "max", duration),
    ("lag_p99", "loop lag p99", duration),
    ("cpu_per_job", "CPU per job", duration),
    ("wakeups_per_job", "wake-ups per job", count),
    ("errors", "errors", count),
)


def compare(console: Console, before_path: Path, after_path: Path) -> None:
    """Print what both reports measured; raises CannotRun if that is nothing."""
    before, after = Report.from_json(before_path), Report.from_json(after_path)
    olds = {result.configuration.name(): result for result in before.results}
    news = {result.configuration.name(): result for result in after.results}
    both = [name for name in olds if name in news]
    if not both:
        raise CannotRun(
            f"{str(before_path)!r} and {str(after_path)!r} have no configuration in common: "
            f"the one has {next(iter(olds), 'none')}, the other {next(iter(news), 'none')}"
        )
    _environments(console, before, after)
    table = Table("", "", "A", "B", "B / A", "", title="A and B", title_justify="left")
    for name in both:
        _rows(table, name, olds[name], news[name])
    console.print(
        f"A: {before_path} of {before.when}\nB: {after_path} of {after.when}", markup=False
    )
    console.print(table)
    for label, own, other in (("A", olds, news), ("B", news, olds)):
        for name in own:
            if name not in other:
                console.print(f"only in {label}: {name}", markup=False)


def _environments(console: Console, before: Report, after: Report) -> None:
    old, new = asdict(before.environment), asdict(after.environment)
    for key, value in old.items():
        if new[key] != value:
            console.print(f"not on the same {key}: A {value}, B {new[key]}", markup=False)


def _rows(table: Table, name: str, old: Result, new: Result) -> None:
    for figure, label, write in _FIGURES:
        a, b = old.figures[figure], new.figures[figure]
        if a is None and b is None:
            continue
        ratio = f"{b / a:.2f}" if a and b is not None else "-"
        note = _note(old, new) if figure == "throughput" else ""
        table.add_row(
            escape(name) if figure == "throughput" else "", label, write(a), write(b), ratio, note
        )
    table.add_section()


def _note(old: Result, new: Result) -> str:
    """Say whether the rounds' ranges tell the two apart."""
    if min(len(old.rounds), len(new.rounds)) < 2:
        return "one round only: no range"
    a, b = ([one.throughput for one in result.rounds] for result in (old, new))
    return "" if max(a) < min(b) or max(b) < min(a) else "the rounds' ranges overlap"
