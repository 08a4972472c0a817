"""How late an event loop is for what is due."""

from __future__ import annotations

import time
from collections.abc import Callable

from offgil.loadtest.samples import new_histogram
from offgil.loadtest.timer import PreciseTimer

#: Nanoseconds from one look to the next: 200 a second cost under one per cent of a CPU.
INTERVAL = 5_000_000
_NEVER = 2**62


class LagProbe:
    """Looks every 5 ms whether the running loop keeps time; used on the loop's thread.

    Each look that a stall has swallowed counts as well, with the lateness that it would have had:
    a stall of 200 ms is 40 late looks, and not one among thousands. ``each_time`` is called too.
    """

    def __init__(self, each_time: Callable[[], None]) -> None:
        self.histogram = new_histogram()
        self._each_time = each_time
        self._worst = 0
        self._due = time.monotonic_ns() + INTERVAL
        self._timer = PreciseTimer(self._look)
        self._timer.set(self._due)

    def take_worst(self) -> int:
        """Return the worst lateness since this was last called, for any thread.

        A look that is overdue counts: while the loop stands still, nothing else tells.
        """
        worst, self._worst = self._worst, 0
        return max(worst, time.monotonic_ns() - self._due)

    def restart(self) -> None:
        """Forget what came before."""
        self.histogram = new_histogram()

    def close(self) -> None:
        """Stop looking; a look that is overdue belongs to the stall that has just ended."""
        self._timer.close()
        if time.monotonic_ns() > self._due:
            self._note()
        self._due = _NEVER

    def _look(self) -> None:
        self._note()
        self._each_time()
        self._timer.set(self._due)

    def _note(self) -> None:
        late = max(time.monotonic_ns() - self._due, 0)
        self.histogram.record_corrected_value(late, INTERVAL)
        self._worst = max(self._worst, late)
        self._due += INTERVAL * (1 + late // INTERVAL)
