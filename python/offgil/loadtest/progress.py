"""How it goes, while it goes: live figures on a terminal, else a line per round on stderr."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from offgil import _console
from offgil.loadtest.plan import Configuration
from offgil.loadtest.quantity import count, duration
from offgil.loadtest.results import Result
from offgil.loadtest.rounds import Round


def console() -> Console:
    """Return a console that is wide enough for the tables."""
    return _console.output(least_width=100, plain_width=140)


class Lines:
    """One line when a round has ended."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, number: int, configuration: Configuration) -> None:
        self._number, self._configuration = number, configuration

    def progress(self, seen: dict[str, Any]) -> None:
        pass

    def end(self, result: Round) -> None:
        name = f"{self._number}/{self._rounds} {self._configuration.name()}"
        line = f"{name}: {_brief(self._configuration, result)}"
        self._console.print(line, markup=False, soft_wrap=True)


class Screen:
    """A bar for all rounds, and the present one's figures below it."""

    def __init__(self, console: Console, rounds: int) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bar = Progress(*columns, console=console, auto_refresh=False)
        self._task: TaskID = self._bar.add_task("", total=rounds)
        # Drawn when there is news: a thread that animates it would compete for the CPUs.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._console = console

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def begin(self, number: int, configuration: Configuration) -> None:
        self._configuration = configuration
        self._bar.update(self._task, completed=number - 1, description=configuration.name())
        self._draw("warming up")

    def progress(self, seen: dict[str, Any]) -> None:
        total = self._configuration.seconds
        of = "" if total is None else f" of {total:.1f}"
        errors = f"   [red]{count(seen['errors'])} errors[/]" if seen["errors"] else ""
        self._draw(
            f"{seen['seconds']:5.1f}{of} s   [bold]{seen['throughput']:>10,.0f}[/] jobs/s   "
            f"p50 {duration(seen['p50'])}   p99 {duration(seen['p99'])}{errors}"
        )

    def end(self, result: Round) -> None:
        name = self._configuration.name()
        self._live.console.print(f"{name}: {_brief(self._configuration, result)}", markup=False)

    def _draw(self, line: str) -> None:
        self._live.update(Group(self._bar, Text.from_markup(line)), refresh=True)


def watcher(console: Console, rounds: int) -> Lines | Screen:
    """Return what suits the console; to be used as a context manager."""
    if console.is_terminal:
        return Screen(console, rounds)
    return Lines(_console.progress(), rounds)


def _brief(configuration: Configuration, found: Round) -> str:
    figures = Result(configuration, [found]).figures
    text = (
        f"{count(round(found.throughput))} jobs/s, p50 {duration(figures['p50'])}, "
        f"p99 {duration(figures['p99'])}, max {duration(figures['max'])}"
    )
    return f"{text}, {found.failed + found.wrong} errors" if found.failed + found.wrong else text
