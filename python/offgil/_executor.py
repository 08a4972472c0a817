"""The executor door: what takes a concurrent.futures executor can be given ours."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

# The second is for the extension, at the first submit: no file may be readable then.
from offgil import _core, _instrumentation  # noqa: F401
from offgil._stats import PoolStats, from_core

if TYPE_CHECKING:
    from offgil._pool import Pool

P = ParamSpec("P")
T = TypeVar("T")


def default_max_workers() -> int:
    """Return how many threads the standard executor would have by default."""
    cpus = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return min(32, cpus + 4)


def initializer_call(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> Callable[[], object] | None:
    """Return what each worker calls before its first job; raise TypeError for what it cannot."""
    if initializer is None:
        return None
    if not callable(initializer):
        raise TypeError("initializer must be a callable")
    return partial(initializer, *initargs)


def _refuse_green_threads() -> None:
    patched_by = type(threading.Lock()).__module__.partition(".")[0]
    if patched_by in ("gevent", "eventlet"):
        raise RuntimeError(
            f"{patched_by} has patched threading: whoever waits for a future of native threads "
            f"would stop every greenlet, or wait for ever; use {patched_by}'s own thread pool, or "
            "offgil.Pool in an asyncio program, or leave threading as it is"
        )


class ThreadPoolExecutor(_core.Executor, concurrent.futures.ThreadPoolExecutor):
    """A drop-in for `concurrent.futures.ThreadPoolExecutor`, on C++ worker threads.

    Native functions (`NativeFunction`) run without the GIL; other callables with it, which is taken
    once for a run of short ones. Futures are `concurrent.futures.Future` objects.

    Threads, at most 32 768, start together, with the first job. They are called
    ``<thread_name_prefix>_<n>`` and call ``initializer(*initargs)`` first; when that raises,
    waiting jobs and later submits raise `PoolBroken`, a
    `concurrent.futures.thread.BrokenThreadPool`.

    ``max_pending`` bounds the jobs that wait for a worker. In a full executor `submit` blocks, with
    the GIL released, if ``on_full`` is ``"block"``; if it is ``"raise"``, or on a thread that runs
    an event loop or a job of this executor, it raises `PoolFull`.

        with offgil.ThreadPoolExecutor() as executor:
            print(executor.submit(pow, 2, 10).result())

    Threads have the stack that `threading.stack_size` gives to those of Python.

    Raises ValueError or TypeError for an argument that makes no sense, RuntimeError where gevent or
    eventlet has patched `threading`.
    """

    _made = itertools.count()

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_pending: int | None = None,
        on_full: Literal["block", "raise"] = "block",
    ) -> None:
        _refuse_green_threads()
        if max_workers is None:
            max_workers = default_max_workers()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        name = thread_name_prefix or f"ThreadPoolExecutor-{next(self._made)}"
        super().__init__(
            workers=max_workers,
            name=name,
            initializer=initializer_call(initializer, initargs),
            max_pending=max_pending,
            on_full=on_full,
        )
        self._max_workers = max_workers
        self._thread_name_prefix = name

    if TYPE_CHECKING:
        # A C method of the base: wrapping it would cost more than the rest of submit.
        def submit(
            self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
        ) -> concurrent.futures.Future[T]:
            """Submit a job; return its future at once.

            Arguments of a native function are converted here: TypeError or OverflowError name the
            function and the argument. Cancelling the future while the job waits withdraws it.
            `result` converts a native result when it is first asked for, and raises RuntimeError
            inside a job if every worker would wait like this for another job of the same executor.

            Raises RuntimeError after `shutdown` and while the interpreter ends, PoolBroken where an
            initializer has failed and in a forked child, PoolFull as the class says.
            """

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over ``fn(*args)`` for each of ``zip(*iterables)``, in order.

        All jobs are submitted at once, or only ``buffersize`` of them ahead of the iterator.
        ``timeout`` is in seconds from this call: TimeoutError from the iterator. Leaving the
        iterator, by an exception or otherwise, cancels the jobs that have not started.
        ``chunksize`` is there for compatibility and has no effect. The iterator keeps the executor
        while there is more to submit. Where that is refused, as after `shutdown`, the error is
        raised behind the results of the jobs that were accepted.
        """
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        first = deque(
            self._submit_for_map(fn, *arguments)
            for arguments in itertools.islice(calls, buffersize)
        )
        ahead = _Ahead(self, fn, calls) if buffersize is not None else None
        return _results(first, ahead, deadline)

    def _submit_for_map(
        self, fn: Callable[..., T], *arguments: Any
    ) -> concurrent.futures.Future[T]:
        """Submit one call of a `map`: by `submit`, which a subclass may have made its own."""
        return self.submit(fn, *arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new jobs; with ``wait``, return when every accepted one has ended.

        With ``cancel_futures`` those that have not started are cancelled. Without ``wait`` nothing
        is lost: accepted jobs end, also at the interpreter's exit. May be called again. Raises
        RuntimeError, and changes nothing, if it would wait for the job that calls it.
        """
        self._shut_down(wait, cancel_futures)

    def stats(self) -> PoolStats:
        """Return a consistent picture of all counters; of the pool's for `Pool.executor`."""
        return from_core(self._counters())


class PoolExecutor(ThreadPoolExecutor):
    """An executor on the engine of a `Pool`, which goes on when this is shut down."""

    def __init__(self, pool: Pool, name: str) -> None:
        _refuse_green_threads()
        _core.Executor.__init__(self, pool=pool)
        self._max_workers = pool.workers
        self._thread_name_prefix = name


class _Ahead:
    """Submits one more job of a `map` for each result that is taken.

    Keeps the executor until there is no more to submit: its owner may have dropped it.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        fn: Callable[..., Any],
        calls: Iterator[tuple[Any, ...]],
    ) -> None:
        self._submit: Callable[..., concurrent.futures.Future[Any]] | None
        self._submit = partial(executor._submit_for_map, fn)
        self._calls = calls

    def submit_to(self, futures: deque[concurrent.futures.Future[Any]]) -> None:
        if self._submit is None:
            return
        try:
            for arguments in itertools.islice(self._calls, 1):
                futures.append(self._submit(*arguments))
                return
        except Exception as error:
            futures.append(_failed(error))
        self._submit = None


def _failed(error: Exception) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_exception(error)
    return future


def _results(
    futures: deque[concurrent.futures.Future[T]], ahead: _Ahead | None, deadline: float | None
) -> Iterator[T]:
    try:
        while futures:
            if ahead is not None:
                ahead.submit_to(futures)
            # Not kept in a variable here: a result must not outlive its turn.
            yield _taken(futures.popleft(), deadline)
    finally:
        for future in futures:
            future.cancel()


def _taken(future: concurrent.futures.Future[T], deadline: float | None) -> T:
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    finally:
        future.cancel()  # which one that the time ran out for still needs
        del future
