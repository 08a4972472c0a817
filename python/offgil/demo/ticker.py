"""A timer that tells how well an event loop keeps time while other things happen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class LoopActivity:
    """What an event loop managed: ticks of how many due, and the longest it kept one waiting."""

    ticks: int
    expected_ticks: int
    worst_stall_seconds: float


class Ticker:
    """Tick on the running loop, every ``interval`` seconds while the ``async with`` lasts.

    Ticks are due at fixed times. One that comes late is counted once; those it overslept are lost.
    """

    def __init__(self, interval: float = 0.005) -> None:
        self._interval = interval
        self._ticks = 0
        self._worst = 0.0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._due = self._started + self._interval
        self._timer = self._loop.call_at(self._due, self._tick)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._stopped = self._loop.time()
        # A tick still due when the loop came free belongs to the stall that has just ended.
        self._note_lateness(self._stopped)

    def _tick(self) -> None:
        now = self._loop.time()
        self._ticks += 1
        self._note_lateness(now)
        overslept = max(0, int((now - self._due) / self._interval))
        self._due += self._interval * (1 + overslept)
        self._timer = self._loop.call_at(self._due, self._tick)

    def _note_lateness(self, now: float) -> None:
        self._worst = max(self._worst, now - self._due)

    @property
    def activity(self) -> LoopActivity:
        """What was seen, once the ``async with`` has ended."""
        expected = int((self._stopped - self._started) / self._interval)
        return LoopActivity(self._ticks, expected, self._worst)
