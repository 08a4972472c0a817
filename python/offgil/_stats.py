"""What a pool has counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations counted in buckets.

    ``counts[i]`` durations were below ``bounds[i]`` seconds and not below ``bounds[i - 1]``; the
    last count, which has no bound, holds the rest. ``sum`` is that of all durations, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A consistent picture of a pool, since it was made.

    At every moment ``submitted == completed + failed + cancelled + expired + pending + running``.
    """

    submitted: int
    """Jobs accepted."""
    completed: int
    """Jobs that ended with a result."""
    failed: int
    """Jobs that ended with an exception."""
    cancelled: int
    """Jobs withdrawn while they waited, or whose result nobody wanted when they ended."""
    expired: int
    """Jobs whose time ran out before they ended."""
    pending: int
    """Jobs that wait for a worker."""
    running: int
    """Jobs that run."""
    rejected: int
    """Jobs never accepted: the pool was full or closed."""
    dropped: int
    """Jobs whose event loop was gone when they came back."""
    gil_acquisitions: int
    """Times a thread of the pool took the GIL; native jobs by eventfd need none of their own."""
    wakeups: int
    """Times a worker woke an event loop or the callback channel's thread."""
    batches: int
    """Times finished jobs were delivered, any number at once."""
    late_calls: int
    """Times a timer called a worker for jobs that had waited for 0.25 ms, behind no other."""
    inline_wakeups: int
    """Callbacks, mostly the wake-ups of awaiting tasks, that ran during a delivery."""
    forwarded_callbacks: int
    """Callbacks that went through the event loop instead."""
    worker_busy_seconds: tuple[float, ...]
    """Time that each worker has spent running jobs."""
    wait_seconds: Histogram
    """Time from submit to start, of jobs that have ended."""
    run_seconds: Histogram
    """Time from start to end, of jobs that have ended."""

    def asdict(self) -> dict[str, Any]:
        """Return all of it as plain dicts, tuples and numbers."""
        return asdict(self)


def from_core(counters: dict[str, Any]) -> PoolStats:
    """Make a PoolStats of what the extension reports."""
    return PoolStats(
        **counters
        | {
            "expired": 0,  # jobs have no deadlines
            "wait_seconds": Histogram(*counters["wait_seconds"]),
            "run_seconds": Histogram(*counters["run_seconds"]),
        }
    )
