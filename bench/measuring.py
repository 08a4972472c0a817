"""How the benchmarks measure: in turn, in rounds, medians of per-round ratios."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from offgil._machine import CpuWatch

#: A round during which other processes used more CPUs than this is measured again.
DISTURBED_CPUS = 0.25
#: But a machine that never comes to rest must not keep a row from ending.
MAX_EXTRA_ROUNDS = 2

T = TypeVar("T")
Measure = Callable[[], Awaitable[float]]


class WrongResultError(Exception):
    """A job returned something else than it had to: its speed is worth nothing."""


@dataclass(frozen=True)
class Target:
    """A bound a figure should keep."""

    limit: float
    at_most: bool
    #: In every round; otherwise their median counts.
    always: bool = False

    def met_by(self, figure: Spread) -> bool:
        """Tell whether the figure is on the right side of the limit."""
        if self.at_most:
            return (figure.high if self.always else figure.median) <= self.limit
        return (figure.low if self.always else figure.median) >= self.limit

    def __str__(self) -> str:
        sign, always = "<=" if self.at_most else ">=", ", always" if self.always else ""
        return f"{sign} {short(self.limit)}{always}"


def at_least(limit: float) -> Target:
    """Return the target that a figure reaches this limit."""
    return Target(limit, at_most=False)


def at_most(limit: float, *, always: bool = False) -> Target:
    """Return the target that a figure stays within this limit."""
    return Target(limit, at_most=True, always=always)


@dataclass(frozen=True)
class Spread:
    """A figure with its range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarize the values of all rounds."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True)
class Absolute:
    """What was divided by another contender's."""

    figure: Spread
    unit: str


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure, what it should be, and where it comes from."""

    row: str
    loop: str
    what: str
    unit: str
    figure: Spread
    target: Target | None = None
    note: str = ""
    #: Where the figure is a ratio to another contender: for comparing builds.
    absolute: Absolute | None = None

    @property
    def met(self) -> bool | None:
        """Whether the figure is as it should be; None where there is no target."""
        return None if self.target is None else self.target.met_by(self.figure)


@dataclass
class Rounds(Generic[T]):
    """What each contender gave, round by round."""

    values: dict[str, list[T]]
    disturbed_rounds: int = 0

    def samples(self, of: Callable[[T], float]) -> Samples:
        """Return one figure of each."""
        figures = {name: [of(value) for value in values] for name, values in self.values.items()}
        return Samples(figures, self.disturbed_rounds)

    def remark(self) -> str:
        """Say how many of the rounds that count were disturbed, if any."""
        if not self.disturbed_rounds:
            return ""
        rounds = len(next(iter(self.values.values())))
        return f"; {self.disturbed_rounds} of {rounds} rounds disturbed"


class Samples(Rounds[float]):
    """What each contender reached, round by round."""

    def spread(self, name: str) -> Spread:
        """Summarize one contender."""
        return Spread.of(self.values[name])

    def rate(self, name: str) -> Absolute:
        """Return one contender's figures as jobs per second."""
        return Absolute(self.spread(name), "jobs/s")

    def seconds(self, name: str) -> Absolute:
        """Return one contender's figures as times."""
        return Absolute(self.spread(name), "s")

    def ratio(self, name: str, to: str) -> Spread:
        """Summarize the ratio of two contenders within each round."""
        pairs = zip(self.values[name], self.values[to], strict=True)
        return Spread.of(ours / theirs for ours, theirs in pairs)


async def take_turns(
    contenders: Mapping[str, Measure],
    rounds: int,
    most_extra: int | None = None,
    *,
    steady_for: float = 0.0,
) -> Samples:
    """Measure every contender once per round; repeat disturbed rounds, within reason.

    What takes less than ``steady_for`` seconds is repeated for so long.
    """
    steadily = {name: partial(steady, measure, steady_for) for name, measure in contenders.items()}
    return (await in_rounds(steadily, rounds, most_extra)).samples(float)


async def steady(measure: Callable[[], Awaitable[float]], seconds: float) -> float:
    """Return the median of as many passes as fit into this time, and of one at least."""
    give_up = time.perf_counter() + seconds
    passes = [await measure()]
    while time.perf_counter() < give_up:
        passes.append(await measure())
    return statistics.median(passes)


async def in_rounds(
    contenders: Mapping[str, Callable[[], Awaitable[T]]], rounds: int, most_extra: int | None = None
) -> Rounds[T]:
    """Do the same for contenders that give more than one figure."""
    taken: Rounds[T] = Rounds({name: [] for name in contenders})
    extra = MAX_EXTRA_ROUNDS * rounds if most_extra is None else most_extra
    done = 0
    while done < rounds:
        watch = CpuWatch()
        values = {name: await _measure_calmly(measure) for name, measure in contenders.items()}
        disturbed = watch.cpus_used_by_others() > DISTURBED_CPUS
        if disturbed and extra:
            extra -= 1
            continue
        taken.disturbed_rounds += disturbed
        for name, value in values.items():
            taken.values[name].append(value)
        done += 1
    return taken


async def _measure_calmly(measure: Callable[[], Awaitable[T]]) -> T:
    # The one before must neither leave its garbage nor its threads' last steps to this one.
    gc.collect()
    await asyncio.sleep(0.002)
    return await measure()


def usable_cpus() -> list[int]:
    """Return the CPUs this process may run on."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keep the calling thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def table(lines: Sequence[Line]) -> str:
    """Draw the lines as a table in plain text."""
    header = ("row", "loop", "what", "figure", "[range]", "target", "", "absolute figures")
    return aligned([header, *(_cells(line) for line in lines)])


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Draw rows of cells in columns as wide as their longest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(line: Line) -> tuple[str, ...]:
    figure = line.figure
    verdict = {True: "met", False: "NOT MET", None: ""}[line.met]
    return (
        line.row,
        line.loop,
        line.what,
        f"{short(figure.median)} {line.unit}",
        f"[{short(figure.low)} .. {short(figure.high)}]",
        str(line.target or ""),
        verdict,
        line.note,
    )


def short(value: float) -> str:
    """Write a figure with the digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
