"""An executor for one event loop, and the line that gives it to a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from offgil import _core
from offgil._executor import ThreadPoolExecutor, default_max_workers
from offgil._pool import Pool

T = TypeVar("T")

#: As the extension has it, whose error would name another argument.
_MOST_WORKERS = 32_768


def _number_of_workers(given: int | None, argument: str, or_else: str = "") -> int:
    if given is None:
        return default_max_workers()
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{argument} must be {or_else}an int or None, not {type(given).__name__}")
    if not 1 <= given <= _MOST_WORKERS:
        raise ValueError(f"{argument} must be between 1 and {_MOST_WORKERS}, not {given}")
    return given


class AsyncioExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` for one event loop: the first in which it is used.

    On that loop's thread `submit` returns a future of the loop's, so that ``run_in_executor`` and
    ``asyncio.to_thread`` skip the concurrent future and its way back; on any other thread it
    returns a concurrent one. Callables run as ``run_in_executor`` runs them, in no copied context.

    ``pool_or_workers`` is the number of threads, by default as many as the standard executor has
    and at most 32 768, or a `Pool` to run on, which goes on when this is shut down; `shutdown` then
    waits for concurrent futures only, not for those of the loop.
    """

    _made = itertools.count()

    def __init__(self, pool_or_workers: Pool | int | None = None) -> None:
        if isinstance(pool_or_workers, Pool):
            pool, workers = pool_or_workers, pool_or_workers.workers
        else:
            pool, workers = None, _number_of_workers(pool_or_workers, "pool_or_workers", "a Pool, ")
        self._make(pool, workers, f"AsyncioExecutor-{next(self._made)}", None)

    def _make(
        self, pool: Pool | None, workers: int, name: str, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        _core.Executor.__init__(
            self, workers=workers, name=name, serves_loop=True, pool=pool, loop=loop
        )
        self._max_workers = workers
        self._thread_name_prefix = name

    @classmethod
    def _for(cls, loop: asyncio.AbstractEventLoop, workers: int) -> AsyncioExecutor:
        """Make one for that loop, with threads called as those of its own default executor."""
        made = cls.__new__(cls)
        is_uvloops = type(loop).__module__.partition(".")[0] == "uvloop"
        made._make(None, workers, "uvloop" if is_uvloops else "asyncio", loop)
        return made

    def _submit_for_map(
        self, fn: Callable[..., T], *arguments: Any
    ) -> concurrent.futures.Future[T]:
        # Whose iterator blocks: futures of the loop would not be done before it goes on.
        return self._submit_concurrent(fn, *arguments)


def install(
    loop: asyncio.AbstractEventLoop | None = None, *, workers: int | None = None
) -> AsyncioExecutor:
    """Make a loop's ``asyncio.to_thread`` and ``run_in_executor(None, ...)`` run on offgil.

    That is all a program needs to change to have them faster, also inside of libraries. Nothing is
    patched: the loop gets an `AsyncioExecutor` as its default executor, which it shuts down as it
    does with its own. ``workers`` is the number of threads, at most 32 768, by default as
    many as the standard executor has.

        async def main():
            offgil.install()

    Raises RuntimeError without a loop where none runs, ValueError or TypeError for an argument that
    makes no sense.
    """
    workers = _number_of_workers(workers, "workers")
    if loop is None:
        loop = asyncio.get_running_loop()
    elif not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an event loop or None, not {type(loop).__name__}")
    executor = AsyncioExecutor._for(loop, workers)
    loop.set_default_executor(executor)
    return executor
