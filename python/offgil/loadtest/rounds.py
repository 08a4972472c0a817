"""One round of one configuration, as it comes from the process that measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import offgil
from offgil.loadtest.recorder import ErrorCount


@dataclass
class Timeline:
    """One round, look by look; ``seconds`` since its start, ramp included.

    ``throughput`` is in jobs per second since the look before, ``lag`` the worst since then, in
    seconds; ``busy`` has the share of the time that each worker ran jobs, and is empty where
    nothing counts it.
    """

    seconds: list[float]
    throughput: list[float]
    in_flight: list[int]
    waiting: list[int]
    lag: list[float]
    busy: list[list[float]]

    def spread_busy(self) -> list[list[float]]:
        """Return ``busy`` with long jobs where they ran: their time is counted at their end."""
        lengths = [b - a for a, b in zip([0.0, *self.seconds], self.seconds, strict=False)]
        rows = [list(row) for row in self.busy]
        for worker in range(len(rows[0]) if rows else 0):
            surplus = 0.0
            for number in reversed(range(len(rows))):
                ran = rows[number][worker] * lengths[number] + surplus
                shown = min(ran, lengths[number])
                surplus = ran - shown
                rows[number][worker] = shown / lengths[number] if lengths[number] else 0.0
        return rows


@dataclass
class PoolCounts:
    """What ``Pool.stats()`` counted while the test ran."""

    completed: int
    gil_acquisitions: int
    wakeups: int
    batches: int
    busy_seconds: float
    workers: int
    #: Jobs that raised; reports of old have no such count.
    failed: int = 0

    @property
    def ended(self) -> int:
        """How many jobs came back."""
        return self.completed + self.failed

    @classmethod
    def between(cls, before: offgil.PoolStats, after: offgil.PoolStats) -> PoolCounts:
        """Subtract two pictures of the same pool."""
        return cls(
            completed=after.completed - before.completed,
            gil_acquisitions=after.gil_acquisitions - before.gil_acquisitions,
            wakeups=after.wakeups - before.wakeups,
            batches=after.batches - before.batches,
            busy_seconds=sum(after.worker_busy_seconds) - sum(before.worker_busy_seconds),
            workers=len(after.worker_busy_seconds),
            failed=after.failed - before.failed,
        )


@dataclass
class Round:
    """What one process saw; histograms are in HdrHistogram's text form, of nanoseconds."""

    seconds: float
    completed: int
    errors: dict[str, ErrorCount]
    wrong: int
    wrong_example: str | None
    unfinished: int
    dropped: int
    target_rate: float | None
    latencies: str
    #: From the intended start; None for a closed loop, which has none.
    corrected: str | None
    lag: str
    cpu_user: float
    cpu_system: float
    #: The share of the time that the busiest loop's thread was on a CPU.
    loop_cpu: float
    pool: PoolCounts | None
    cpus_used_by_others: float
    cpus_stolen: float
    interrupted: bool
    timeline: Timeline

    @property
    def throughput(self) -> float:
        """Right results per second."""
        return self.completed / self.seconds

    @property
    def failed(self) -> int:
        """How many jobs raised."""
        return sum(seen.count for seen in self.errors.values())

    @classmethod
    def of(cls, data: dict[str, Any]) -> Round:
        """Return a round that has travelled as JSON."""
        return cls(
            **data
            | {
                "errors": {name: ErrorCount(**seen) for name, seen in data["errors"].items()},
                "pool": None if data["pool"] is None else PoolCounts(**data["pool"]),
                "timeline": Timeline(**data["timeline"]),
            }
        )
