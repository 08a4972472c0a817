"""``--assert "p99<5ms"``: figures that have to keep a bound."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offgil.loadtest.call import CannotRun
from offgil.loadtest.quantity import (
    ANY_PERCENTILE,
    PERCENTILES,
    count,
    duration,
    parse_duration,
)

if TYPE_CHECKING:  # what it needs comes with an extra, and the command line is read without
    from offgil.loadtest.results import Result

_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_FORM = re.compile(r"\s*([a-z][a-z_0-9.]*)\s*(<=|>=|==|<|>)\s*(\S+)\s*")
#: What can be asserted besides times.
COUNTS = (
    "jobs",
    "throughput",
    "errors",
    "wrong",
    "unfinished",
    "dropped",
    "gil_acquisitions_per_job",
    "wakeups_per_job",
    "batches_per_job",
    "waiting_mean",
    "waiting_max",
    "in_flight_max",
    "loop_cpu",
    "worker_busy",
)
#: In seconds; besides these, percentiles.
TIMES = (
    "mean",
    "max",
    "uncorrected_mean",
    "uncorrected_max",
    "lag_max",
    "cpu_per_job",
    "cpu_user_per_job",
    "cpu_system_per_job",
    "seconds",
)


@dataclass(frozen=True)
class Assertion:
    """A bound on one figure of every configuration."""

    figure: str
    operator: str
    bound: float

    @property
    def is_time(self) -> bool:
        """Whether the figure is in seconds."""
        return _is_time(self.figure)

    def failure(self, result: Result) -> str | None:
        """Return how a result breaks it, if it does; one without the figure does."""
        try:
            value = result.figure(self.figure)
        except LookupError:  # made by other hands than `parse`
            value = None
        if value is None:
            return f"{self}: there is no such figure for {result.configuration.name()}"
        if _OPERATORS[self.operator](value, self.bound):
            return None
        return f"{self}: it is {self._write(value)} for {result.configuration.name()}"

    def __str__(self) -> str:
        return f"{self.figure} {self.operator} {self._write(self.bound)}"

    def _write(self, value: float) -> str:
        return duration(value) if self.is_time else count(value)


def _is_time(figure: str) -> bool:
    return figure in TIMES or ANY_PERCENTILE.fullmatch(figure) is not None


def parse(text: str) -> Assertion:
    """Read an assertion; raises CannotRun, which says what there is to assert."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise CannotRun(
            f"{text!r} is no assertion: a figure, one of {' '.join(_OPERATORS)}, and a bound, "
            "as in p99<5ms or errors==0"
        )
    figure, sign, bound = match.groups()
    if _is_time(figure):
        try:
            return Assertion(figure, sign, parse_duration(bound))
        except ValueError as error:
            raise CannotRun(f"in the assertion {text!r}: {error}") from None
    if figure not in COUNTS:
        raise CannotRun(
            f"there is no figure {figure!r} to assert; there are the times "
            f"{', '.join(f'p{percentile:g}' for percentile in PERCENTILES)} and any other "
            f"percentile, also as uncorrected_p99 and lag_p99, {', '.join(TIMES)}, and the counts "
            f"{', '.join(COUNTS)}"
        )
    try:
        return Assertion(figure, sign, float(bound))
    except ValueError:
        raise CannotRun(f"in the assertion {text!r}: {bound!r} is no number") from None


def failures(assertions: Iterable[Assertion], results: Iterable[Result]) -> list[str]:
    """Return what does not hold; every configuration has to keep every bound."""
    return [
        failure
        for result in results
        for assertion in assertions
        if (failure := assertion.failure(result)) is not None
    ]
