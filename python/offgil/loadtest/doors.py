"""The doors: ways from an event loop to a worker thread, ours and the standard library's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import offgil
from offgil.loadtest.call import CannotRun, literal

#: Called with a function and its arguments, on the thread of a running event loop.
Submit = Callable[..., Awaitable[Any]]

_CLOSE_LIMIT = 10.0


class Door(Protocol):
    """One way to run functions elsewhere, shared by all event loops of the process.

    It is made on the main thread, where no loop runs, and closed there if at all.
    """

    def enter(self) -> Submit:
        """Return how the running loop submits; called once on each loop's thread.

        Raises CannotRun where the threads that it starts are refused.
        """

    def stats(self) -> offgil.PoolStats | None:
        """Return what the pool has counted; None where nothing counts."""

    def waiting(self) -> int:
        """Return how many jobs wait for a worker."""

    def close(self) -> None:
        """End the threads once their jobs have ended."""


class _Counted:
    """What doors with a pool of ours have in common."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def stats(self) -> offgil.PoolStats | None:
        stats: offgil.PoolStats = self._source.stats()
        return stats

    def waiting(self) -> int:
        return self._source.stats().pending  # type: ignore[no-any-return]


class PoolDoor(_Counted):
    """``pool.submit`` or ``pool.run``."""

    def __init__(self, workers: int, options: dict[str, Any], method: str) -> None:
        self._pool = offgil.Pool(workers, **options)
        self._method = method
        super().__init__(self._pool)

    def trace(self, path: str) -> AbstractContextManager[object]:
        """Return what writes a trace of what happens inside it."""
        return self._pool.trace(path)

    def enter(self) -> Submit:
        submit: Submit = getattr(self._pool, self._method)
        return submit

    def waiting(self) -> int:
        return self._pool.pending

    def close(self) -> None:
        _close(self._pool)


class ExecutorDoor(_Counted):
    """``offgil.ThreadPoolExecutor``, its futures awaited through ``asyncio.wrap_future``."""

    def __init__(self, workers: int) -> None:
        self._executor = offgil.ThreadPoolExecutor(workers)
        super().__init__(self._executor)

    def enter(self) -> Submit:
        return lambda function, *args, **kwargs: asyncio.wrap_future(
            self._executor.submit(function, *args, **kwargs)
        )

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


class StandardDoor:
    """``run_in_executor(None, ...)`` or ``to_thread`` on the standard library's executor.

    It has as many threads as any other door, and all loops share it.
    """

    def __init__(self, workers: int, entrance: Callable[[], Submit]) -> None:
        self._executor = ThreadPoolExecutor(workers)
        self._entrance = entrance

    def enter(self) -> Submit:
        asyncio.get_running_loop().set_default_executor(self._executor)
        return self._entrance()

    def stats(self) -> None:
        return None

    def waiting(self) -> int:
        return self._executor._work_queue.qsize()

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


class InstalledDoor(_Counted):
    """The same two after ``offgil.install()``; several loops share one pool, as it cannot."""

    def __init__(self, workers: int, loops: int, entrance: Callable[[], Submit]) -> None:
        self._workers = workers
        self._pool = offgil.Pool(workers) if loops > 1 else None
        self._entrance = entrance
        super().__init__(self._pool)

    def enter(self) -> Submit:
        if self._pool is None:
            with _refusals(self._workers):
                self._source = offgil.install(workers=self._workers)
        else:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(offgil.AsyncioExecutor(self._pool))
        return self._entrance()

    def stats(self) -> offgil.PoolStats | None:
        return None if self._source is None else super().stats()

    def waiting(self) -> int:
        return 0 if self._source is None else super().waiting()

    def close(self) -> None:
        if self._pool is not None:
            _close(self._pool)
        elif self._source is not None:
            self._source.shutdown(cancel_futures=True)


def _close(pool: offgil.Pool) -> None:
    asyncio.run(pool.aclose(cancel_pending=True, timeout=_CLOSE_LIMIT))


def _run_in_executor() -> Submit:
    loop = asyncio.get_running_loop()

    def submit(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        return loop.run_in_executor(None, function, *args)

    return submit


def _to_thread() -> Submit:
    return asyncio.to_thread


DOORS = (
    "pool",
    "run",
    "executor",
    "run_in_executor",
    "to_thread",
    "run_in_executor+install",
    "to_thread+install",
)
#: Those with an `offgil.Pool` of their own.
POOL_DOORS = ("pool", "run")


def check(door: str, *, keywords: bool, pool_options: bool, trace: bool) -> None:
    """Raise CannotRun unless the door exists and can do what is asked of it."""
    if door not in DOORS:
        raise CannotRun(f"there is no door {door!r}; there are {', '.join(DOORS)}, and all")
    if keywords and door.startswith("run_in_executor"):
        raise CannotRun(f"the door {door!r} takes no keyword arguments, as asyncio's own method")
    for option, given in (("--pool", pool_options), ("--trace", trace)):
        if given and door not in POOL_DOORS:
            raise CannotRun(f"{option} is for the doors pool and run, not for {door!r}")


def open_door(
    door: str, workers: int, loops: int, pool_options: Sequence[tuple[str, str]] = ()
) -> Door:
    """Start a door's threads; raises CannotRun for options that a pool does not take."""
    options = {key: literal(value) for key, value in pool_options}
    with _refusals(workers):
        if door in POOL_DOORS:
            return PoolDoor(workers, options, "submit" if door == "pool" else "run")
        if door == "executor":
            return ExecutorDoor(workers)
        entrance = _to_thread if door.startswith("to_thread") else _run_in_executor
        if door.endswith("+install"):
            return InstalledDoor(workers, loops, entrance)
        return StandardDoor(workers, entrance)


@contextmanager
def _refusals(workers: int) -> Iterator[None]:
    """Turn what a pool or an executor says to its arguments into CannotRun."""
    try:
        yield
    except (TypeError, ValueError, offgil.PoolError) as error:
        raise CannotRun(f"cannot have {workers} workers as asked for: {error}") from error
