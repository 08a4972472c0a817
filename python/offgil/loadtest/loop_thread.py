"""One event loop on a thread of its own, and what loads it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from offgil.loadtest.call import BoundCall
from offgil.loadtest.doors import Door
from offgil.loadtest.lag import LagProbe
from offgil.loadtest.loads import ClosedLoop, IsRight, Load, OpenLoop, Phase, Submit, clock


@dataclass(frozen=True)
class Share:
    """One loop's part of the load: so many clients, or so many jobs per second."""

    clients: int | None
    rate: float | None
    warmup: float
    seconds: float | None
    ramp: float
    tickets: Iterator[int] | None

    def load(
        self, submit: Submit, is_right: IsRight, start_ns: int, *, warming_up: bool = False
    ) -> Load:
        """Make the load of one phase."""
        phase = Phase(
            submit=submit,
            is_right=is_right,
            start_ns=start_ns,
            seconds=self.warmup if warming_up else self.seconds,
            tickets=None if warming_up else self.tickets,
            ramp=0.0 if warming_up else self.ramp,
        )
        if self.rate is None:
            return ClosedLoop(phase, clients=self.clients or 1)
        return OpenLoop(phase, rate=self.rate)


class LoopThread:
    """Warms up, says that it is ready, waits for the start, and loads the door until the end.

    The futures are for whoever measures: `ready`, `begun` and `ended` have their results in turn,
    or the exception that stopped the thread.
    """

    def __init__(
        self,
        number: int,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        door: Door,
        call: BoundCall,
        share: Share,
    ) -> None:
        self.ready: Future[None] = Future()
        self.ended: Future[None] = Future()
        #: Its result is when to begin, on `clock`.
        self.start_ns: Future[int] = Future()
        #: What has begun then, once there has been time for all loops to hear of it.
        self.begun: Future[tuple[Load, LagProbe]] = Future()
        #: The CPU time of the thread, a few milliseconds ago.
        self.cpu_seconds = 0.0
        self._new_loop = new_loop
        self._door = door
        self._call = call
        self._share = share
        self._stopped = False
        self._load: Load | None = None
        # A daemon: a job that never ends must not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"loop-{number}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the present phase, and have the next one end at once."""
        self._stopped = True
        if self._load is not None:
            self._load.stop()

    def _run(self) -> None:
        try:
            # Never closed: it may share its executor with loops that still run.
            self._new_loop().run_until_complete(self._main())
        except BaseException as error:
            for future in (self.ready, self.begun, self.ended):
                if not future.done():
                    future.set_exception(error)

    async def _main(self) -> None:
        submit = self._call.through(self._door.enter())
        is_right = self._call.check()
        if self._share.warmup:
            await self._run_phase(self._share.load(submit, is_right, clock(), warming_up=True))
        self._look_after_itself()  # what the warm-up has taken does not count
        self.ready.set_result(None)
        start = await asyncio.wrap_future(self.start_ns)
        load = self._share.load(submit, is_right, start)
        probe = LagProbe(self._look_after_itself)
        try:
            self.begun.set_result((load, probe))
            await asyncio.sleep((start - clock()) / 1e9)
            await self._run_phase(load)
        finally:
            probe.close()
            self._look_after_itself()
        self.ended.set_result(None)

    async def _run_phase(self, load: Load) -> None:
        self._load = load
        if self._stopped:
            load.stop()
        await load.run()

    def _look_after_itself(self) -> None:
        self.cpu_seconds = time.thread_time()
        if self._load is not None:
            self._load.recorder.latencies.set_aside()
            self._load.recorder.corrected.set_aside()
