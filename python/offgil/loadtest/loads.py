"""How jobs come: so many in flight at a time, or so many per second whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol

from offgil.loadtest.recorder import Recorder
from offgil.loadtest.timer import PreciseTimer

#: Makes one job; tells whether its result is right.
Submit = Callable[[], Awaitable[Any]]
IsRight = Callable[[Any], bool]

#: Seconds after its end that a phase waits for the jobs still in flight.
PATIENCE = 10.0
#: The same when it was told to stop.
_SHORT_PATIENCE = 1.0
#: An open loop that gets nowhere must not fill the memory.
_MOST_IN_FLIGHT = 200_000
#: Jobs submitted in one turn of the loop, when several are overdue: the loop has to turn as well.
_MOST_PER_TURN = 256

_SECOND = 1_000_000_000
clock = time.monotonic_ns


class Load(Protocol):
    """Submits jobs on one loop, for one phase."""

    recorder: Recorder
    """What counts; whoever measures may put a new one here, at the end of a ramp."""

    @property
    def in_flight(self) -> int:
        """How many jobs have been submitted and have not come back."""

    async def run(self) -> None:
        """Submit until the phase has ended, then wait for the rest, within reason."""

    def stop(self) -> None:
        """End the phase now; may be called on any thread."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What both kinds of load have to know."""

    submit: Submit
    is_right: IsRight
    start_ns: int
    #: None: until the tickets are used up.
    seconds: float | None = None
    #: One for each job, shared by all loops; None: as many as it takes.
    tickets: Iterator[int] | None = None
    #: Seconds within which the load rises from nothing.
    ramp: float = 0.0


class _Generator:
    """How both kinds of load begin, and end."""

    def __init__(self, phase: Phase) -> None:
        self.recorder = Recorder()
        self._submit = phase.submit
        self._is_right = phase.is_right
        self._start = phase.start_ns
        self._ramp = phase.ramp
        self._tickets = count() if phase.tickets is None else phase.tickets
        self._end = math.inf
        if phase.seconds is not None:
            self._end = phase.start_ns + phase.seconds * _SECOND
        self._patience = PATIENCE
        #: From then on a cancellation is this load's; before, a job's own.
        self._abandoning = False

    def stop(self) -> None:
        self._end = min(self._end, clock())
        self._patience = _SHORT_PATIENCE

    async def _abandon(self, futures: Collection[asyncio.Future[Any]]) -> None:
        self._abandoning = True
        for future in futures:
            future.cancel()
        if futures:
            await asyncio.wait(futures, timeout=_SHORT_PATIENCE)


class ClosedLoop(_Generator):
    """So many clients, each of which submits a job when its last one has ended.

    It slows down when the pool does, and so never sees how long a request would have waited that
    comes whether or not the last one is done: see `OpenLoop`. ``tickets`` bounds the jobs of all
    loops together. With ``ramp`` seconds the clients begin one after another.
    """

    def __init__(self, phase: Phase, *, clients: int) -> None:
        super().__init__(phase)
        self._clients = clients
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def run(self) -> None:
        clients: list[asyncio.Future[None]] = [
            asyncio.ensure_future(self._client(self._ramp * number / self._clients))
            for number in range(self._clients)
        ]
        # Nobody knows how long so many jobs take; but once told to end, they have to.
        pending = set(clients)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=0.2)
            if clock() > self._end + self._patience * _SECOND:
                break
        self.recorder.unfinished += len(pending)
        await self._abandon(pending)
        for client in clients:
            if not client.cancelled():
                client.result()

    async def _client(self, delay: float) -> None:
        submit, is_right = self._submit, self._is_right
        if delay:
            await asyncio.sleep(self._start / _SECOND + delay - time.monotonic())
        now = clock()
        while now < self._end and next(self._tickets, None) is not None:
            started = now
            self._in_flight += 1
            try:
                right = is_right(result := await submit())
            except (Exception, asyncio.CancelledError) as error:
                if self._abandoning and isinstance(error, asyncio.CancelledError):
                    raise
                self.recorder.note_error(error)
                await asyncio.sleep(0)  # the loop must turn even where submit itself raises
                now = clock()
            else:
                now = clock()
                if not right:
                    self.recorder.note_wrong(result)
                elif now <= self._end:
                    self.recorder.latencies.raw.append(now - started)
                    self.recorder.completed += 1
                del result
            finally:
                self._in_flight -= 1


class OpenLoop(_Generator):
    """A job every so often, whether or not the ones before have ended.

    Each has an intended start, and its latency counts from there: if the generator comes late,
    because the loop or the whole process stood still, that is time a caller would have waited.
    The latency from the actual submit is noted beside it. Within ``ramp`` seconds the rate rises
    from zero to ``rate``. A job that had to be abandoned is noted with its age, which is less
    than its latency would have been: leaving it out would make the figures prettier.
    """

    def __init__(self, phase: Phase, *, rate: float) -> None:
        super().__init__(phase)
        self._rate = rate
        self._starts = self._schedule()
        self._next = next(self._starts)
        self._flying: set[asyncio.Future[Any]] = set()
        self._all_submitted = asyncio.Event()

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    async def run(self) -> None:
        self._timer = PreciseTimer(self._submit_what_is_due)
        try:
            self._timer.set(self._next)
            # Looked at now and then, since `stop` comes from another thread.
            while not self._all_submitted.is_set() and clock() < self._end:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._all_submitted.wait(), 0.2)
        finally:
            self._timer.close()
        left = set(self._flying)
        if left:
            _, left = await asyncio.wait(left, timeout=self._patience)
        await self._abandon(left)

    def _schedule(self) -> Iterator[int]:
        """Yield the intended starts: where the integral of the rate takes whole numbers."""
        in_ramp = self._rate * self._ramp / 2
        for number in count():
            if number < in_ramp:
                seconds = math.sqrt(2 * number * self._ramp / self._rate)
            else:
                seconds = self._ramp + (number - in_ramp) / self._rate
            yield self._start + int(seconds * _SECOND)

    def _submit_what_is_due(self) -> None:
        now = clock()
        for _ in range(_MOST_PER_TURN):
            if self._next >= self._end or (self._next <= now and next(self._tickets, None) is None):
                self._all_submitted.set()
                return
            if self._next > now:
                break
            self._launch(self._next)
            self._next = next(self._starts)
        self._timer.set(self._next)

    def _launch(self, intended: int) -> None:
        recorder = self.recorder
        if len(self._flying) >= _MOST_IN_FLIGHT:
            recorder.dropped += 1
            return
        submitted = clock()
        try:
            future = asyncio.ensure_future(self._submit())
        except Exception as error:
            recorder.note_error(error)
            return
        self._flying.add(future)
        future.add_done_callback(partial(self._landed, recorder, intended, submitted))

    def _landed(
        self, recorder: Recorder, intended: int, submitted: int, future: asyncio.Future[Any]
    ) -> None:
        now = clock()
        self._flying.discard(future)
        # In the account of the time it was meant for: a ramp's jobs do not count later.
        if self._abandoning and future.cancelled():
            recorder.unfinished += 1
            recorder.latencies.raw.append(now - submitted)
            recorder.corrected.raw.append(now - intended)
            return
        try:
            right = self._is_right(result := future.result())
        except (Exception, asyncio.CancelledError) as error:
            recorder.note_error(error)
            return
        if not right:
            recorder.note_wrong(result)
            return
        recorder.latencies.raw.append(now - submitted)
        recorder.corrected.raw.append(now - intended)
        if now <= self._end:
            recorder.completed += 1
