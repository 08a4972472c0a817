"""How much a run of the benchmarks measures, and on which event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Rounds, and sizes within one round."""

    loop: str
    rounds: int
    quick: bool
    #: Jobs of a closed loop.
    jobs: int
    burst: int
    waiting_jobs: int
    lag_seconds: float
    #: Seconds of jobs that the rows about fairness queue at once.
    queued_seconds: float
    #: Seconds for which what takes less is repeated in each round; its median counts.
    steady_for: float = 0.0

    @classmethod
    def chosen(cls, loop: str, rounds: int, *, quick: bool) -> Settings:
        """Return the full sizes, or those that only show that everything runs."""
        if quick:
            return cls(loop, 3, True, 4_000, 2_000, 100_000, 0.3, 0.05)
        return cls(loop, rounds, False, 20_000, 10_000, 1_000_000, 1.0, 0.1)

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Return what makes the event loop."""
        if self.loop == "uvloop":
            import uvloop

            return uvloop.new_event_loop
        return asyncio.new_event_loop
