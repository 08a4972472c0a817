"""How late something comes that is due every millisecond: an event loop's timer, a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offgil.loadtest.samples import new_histogram

#: Nanoseconds from one wake-up to when the next is due.
INTERVAL = 1_000_000
#: Seconds for a thread or a task to wake up once, before it counts as hung.
LIMIT = 60.0


class Delays:
    """How late what was due came, in nanoseconds; ``noted`` is for one thread at a time."""

    def __init__(self) -> None:
        self.noted: list[int] = []

    def note(self, due: int) -> None:
        """Note that what was due then, by the monotonic clock, came now."""
        self.noted.append(max(0, time.monotonic_ns() - due))

    @property
    def worst(self) -> float:
        """Return the worst delay, in milliseconds."""
        return max(self.noted) / 1e6

    def percentile(self, percent: float, interval: int = 0) -> float:
        """Return a percentile, in milliseconds.

        What would have come within a delay, one each ``interval``, counts as well, with the delay
        that it would have had: a pause of 200 ms is 200 late wake-ups, not one among many.
        """
        histogram = new_histogram()
        for late in self.noted:
            histogram.record_corrected_value(late, interval)
        return float(histogram.get_value_at_percentile(percent)) / 1e6


@asynccontextmanager
async def of_the_loop() -> AsyncIterator[Delays]:
    """Note meanwhile how late a task of the running loop wakes from sleeping a millisecond."""
    delays = Delays()
    awake, stopped = asyncio.Event(), False

    async def sleep_again_and_again() -> None:
        while not stopped:
            due = time.monotonic_ns() + INTERVAL
            await asyncio.sleep(INTERVAL / 1e9)
            delays.note(due)
            awake.set()

    task = asyncio.create_task(sleep_again_and_again())
    try:
        await asyncio.wait_for(awake.wait(), LIMIT)
        yield delays
    finally:
        # Not cancelled: a wake-up that is overdue is the end of a pause.
        stopped = True
        await task


@asynccontextmanager
async def of_a_thread() -> AsyncIterator[Delays]:
    """Note meanwhile how late another thread wakes from sleeping a millisecond."""
    delays = Delays()
    awake, stopped = threading.Event(), False

    def sleep_again_and_again() -> None:
        while not stopped:
            due = time.monotonic_ns() + INTERVAL
            time.sleep(INTERVAL / 1e9)
            delays.note(due)
            awake.set()

    thread = threading.Thread(target=sleep_again_and_again, name="sleeper", daemon=True)
    thread.start()
    try:
        if not awake.wait(LIMIT):
            raise RuntimeError(f"a thread that sleeps has not woken up in {LIMIT:g} s")
        yield delays
    finally:
        stopped = True
        thread.join(LIMIT)
