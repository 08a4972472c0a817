"""The asyncio door."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, Self, TypeVar

from offgil import _core
from offgil._executor import PoolExecutor, ThreadPoolExecutor, initializer_call
from offgil._stats import PoolStats, from_core
from offgil._trace import Trace

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that nobody waits: asyncio adds them to a time, which an int of any size could overflow.
_FOR_EVER = 1e9
#: Seconds that the threads of an idle pool take to end, if nothing holds them up.
_MOSTLY_ENOUGH = 0.001
_ALWAYS_ENOUGH = 1.0
#: Jobs of one worker in a trace, which takes some 100 bytes for each.
_MOST_TRACED = 1_000_000_000


def check_timeout(seconds: float) -> None:
    """Raise TypeError or ValueError unless this is a number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(
            f"timeout must be a number of seconds or None, not {type(seconds).__name__}"
        )
    if not seconds >= 0:
        raise ValueError(f"timeout must not be negative or NaN, but is {seconds}")


class Pool(_core.Pool):
    """A pool of C++ worker threads whose jobs asyncio code awaits.

    ``workers`` threads run native functions (`NativeFunction`) without the GIL, and any other
    Python callable with it: at most 32 768, by default as many as the CPUs that this process may
    use. The threads are called ``<name>-<n>``. One pool serves any number of event loops and
    threads at once.

    ``max_pending`` bounds the jobs that wait for a worker: `submit` then raises `PoolFull`, `run`
    waits. ``nice`` is added to the threads' niceness. Use it for native functions only: on a busy
    machine, a niced thread that runs Python code holds the GIL while it waits for a CPU. ``spin``
    is how long, in seconds, an idle worker looks for work before it sleeps; it buys latency for CPU
    time, is given up where it does not pay, and is off when there are more workers than CPUs.
    ``delivery`` says how results reach an event loop: ``"eventfd"`` (the loop watches a descriptor;
    no thread of the pool takes the GIL), ``"callback"`` (one thread takes the GIL once per batch),
    or ``"auto"``: eventfd where the loop can. Each worker calls ``initializer(*initargs)`` before
    its first job; when that raises, the pool is broken: waiting jobs and later submits raise
    `PoolBroken`.

        async with offgil.Pool(workers=4) as pool:
            results = await asyncio.gather(*(pool.submit(fn, x) for x in range(100)))

    A thread starts when a job finds none idle. Raises ValueError or TypeError for an argument that
    makes no sense; the first `submit` raises PoolError when no thread can start.
    """

    # Which kind of future `submit` makes. Private: the second one is how the tests know what is
    # right.
    _future_kind: ClassVar[Literal["inline", "plain"]] = "inline"

    _name: str | None = None  # until it is made
    _executor: PoolExecutor | None = None

    def __init__(
        self,
        workers: int | None = None,
        *,
        name: str = "offgil",
        max_pending: int | None = None,
        nice: int = 0,
        spin: float = 0.0,
        delivery: Literal["auto", "eventfd", "callback"] = "auto",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(
            workers=workers,
            name=name,
            max_pending=max_pending,
            nice=nice,
            spin=spin,
            delivery=delivery,
            initializer=initializer_call(initializer, initargs),
            future_kind=self._future_kind,
        )
        self._name = name

    @property
    def executor(self) -> ThreadPoolExecutor:
        """A `ThreadPoolExecutor` on this pool's threads; its `shutdown` ends only itself."""
        if self._executor is None:
            self._executor = PoolExecutor(self, self._name or "offgil")
        return self._executor

    if TYPE_CHECKING:
        # A C method of the base: wrapping it would cost more than the rest of submit.
        def submit(
            self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
        ) -> asyncio.Future[T]:
            """Submit a job; return its future at once.

            The job is accepted when this returns, and starts even if the event loop is blocked
            from here on. Arguments of a native function are converted here: TypeError or
            OverflowError name the function and the argument. A Python callable runs in a copy of
            the caller's context.

            The future is an `asyncio.Future`. Cancelling it while the job waits withdraws the
            job, whose arguments are released at once; while the job runs, nobody waits for its
            end. It raises what the job raised, with the job's name as a note; a C++ exception
            becomes the Python one that pybind11 takes for it, or `NativeError`.

            Never blocks. Raises PoolFull when ``max_pending`` jobs wait, PoolClosed after
            `aclose`, PoolBroken in a forked child, RuntimeError where no event loop runs.
            """

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job and return its result; like `submit`, but wait for room in a full pool.

        Those who wait are served in order, and before later submits. Cancelling one that waits
        leaves no trace. Raises PoolClosed if the pool is closed first.
        """
        result: T = await self._submit_in_line(fn, *args, **kwargs)
        return result

    def stats(self) -> PoolStats:
        """Return a consistent picture of all counters."""
        return from_core(self._counters())

    def trace(self, path: str | os.PathLike[str], *, limit: int = 100_000) -> Trace:
        """Return a context manager that writes to ``path`` what the pool does inside the block.

        The file is in the trace-event format, for chrome://tracing or Perfetto: when each job was
        submitted, began and ended, by worker, and each delivery to an event loop. A job is in it if
        it begins and ends in the block, and is among the first ``limit`` of its worker. Costs about
        0.1 us per job inside the block, and nothing outside. One at a time. ``with`` writes the
        file where the block ends, 0.4 us per job; ``async with`` does that on another thread.

            async with pool.trace("trace.json"):
                await asyncio.gather(*(pool.submit(fn, x) for x in range(1000)))

        Raises OSError for a file that cannot be written, ValueError for a ``limit`` that is not
        between 1 and a thousand million, and RuntimeError at the beginning of a block inside
        another one.
        """
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit must be an int, not {type(limit).__name__}")
        if not 1 <= limit <= _MOST_TRACED:
            raise ValueError(f"limit must be between 1 and {_MOST_TRACED:,}, not {limit}")
        return Trace(path, partial(self._start_trace, limit), self._stop_trace)

    async def drain(self) -> None:
        """Wait until no accepted job waits or runs.

        Jobs submitted meanwhile are waited for as well. Raises RuntimeError inside one of the
        pool's own jobs, which would wait for itself.
        """
        await self._when_idle()

    async def aclose(self, *, cancel_pending: bool = False, timeout: float | None = None) -> None:
        """Refuse new jobs, wait for the accepted ones, and end the threads.

        With ``cancel_pending`` the jobs that have not started are cancelled. An initializer and
        the done callbacks of `executor` are waited for as well. After ``timeout`` seconds
        TimeoutError names what still runs; the pool stays closed, and another call goes on waiting.
        May be called again, and by several at once: all wait. Raises RuntimeError, and changes
        nothing, inside one of the pool's own jobs.
        """
        if timeout is not None:
            check_timeout(timeout)
        if self._is_on_own_thread():
            raise RuntimeError(
                "aclose() was called on a worker, by one of the jobs that it would have to wait for"
            )
        self._close()
        if cancel_pending:
            self._cancel_waiting()
        try:
            async with asyncio.timeout(None if timeout is None else min(timeout, _FOR_EVER)):
                await self._when_idle()
                await self._threads_have_ended()
        except TimeoutError:
            await self._end_late(timeout)

    async def _end_late(self, timeout: float | None) -> None:
        """Raise what aclose() does after its time, unless all that is left is to tell it."""
        late = f"the pool's jobs did not end within {timeout} s; still running: "
        still = [
            *self._running_names(),
            *(["an initializer"] if self._is_initializing else []),
            *(["a done callback"] if self._is_calling_back else []),
        ]
        if still or self.pending or self.running:
            raise TimeoutError(late + (", ".join(still) or "none")) from None
        try:
            async with asyncio.timeout(_ALWAYS_ENOUGH):
                await self._threads_have_ended()
        except TimeoutError:
            raise TimeoutError(late + "a thread of the pool") from None

    async def _threads_have_ended(self) -> None:
        """Wait for the threads of an idle pool, which may need this loop before they end."""
        if self._join(_MOSTLY_ENOUGH):
            return
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell() -> None:
            if not ended.done():
                ended.set_result(None)

        def wait() -> None:
            self._join(_FOR_EVER)
            with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(tell)

        waiter = threading.Thread(target=wait, name=f"{self._name}-close", daemon=True)
        try:
            waiter.start()
        except RuntimeError:
            # None can be had; up to Python 3.12.2 also because the main thread has ended.
            while not self._join(_MOSTLY_ENOUGH):  # noqa: ASYNC110 (nobody would set an event)
                await asyncio.sleep(_MOSTLY_ENOUGH)
            return
        await ended
        waiter.join()  # it has only to return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if self._name is None:
            return f"<{type(self).__qualname__} whose __init__() has not run, or has failed>"
        stats: dict[str, Any] = self._counters()
        return (
            f"<{type(self).__qualname__} {self._name!r}{' closed' if self._is_closed else ''} "
            f"workers={self.workers} pending={stats['pending']} running={stats['running']}>"
        )
