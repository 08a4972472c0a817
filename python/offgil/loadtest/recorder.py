"""What one event loop has seen of its jobs."""

from __future__ import annotations

from dataclasses import dataclass

from offgil.loadtest.call import short, words
from offgil.loadtest.samples import Samples


@dataclass
class ErrorCount:
    """How often jobs raised one type of exception, and the first text."""

    count: int
    example: str


class Recorder:
    """Counts of one loop in one phase; written on the loop's thread, read on any."""

    def __init__(self) -> None:
        #: From submit to result. Of a closed loop, jobs that ended in time; of an open one, all.
        self.latencies = Samples()
        #: From the intended start to the result; empty for a closed loop.
        self.corrected = Samples()
        #: Right results that came before the phase ended.
        self.completed = 0
        self.errors: dict[str, ErrorCount] = {}
        self.failed = 0
        self.wrong = 0
        self.wrong_example: str | None = None
        #: Abandoned, since they had not ended a good while after the phase.
        self.unfinished = 0
        #: Never submitted, since far too many were in flight.
        self.dropped = 0

    @property
    def ended(self) -> int:
        """How many jobs came back."""
        return self.completed + self.failed + self.wrong

    def note_error(self, error: BaseException) -> None:
        """Count an exception by its type."""
        self.failed += 1
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        seen = self.errors.setdefault(name, ErrorCount(0, words(error)[:200]))
        seen.count += 1

    def note_wrong(self, result: object) -> None:
        """Count a result that is not the expected one."""
        self.wrong += 1
        if self.wrong_example is None:
            self.wrong_example = short(result)
