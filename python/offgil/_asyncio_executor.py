"""An executor for one event loop, and the line that gives it to a loop."""

from __future__ import annotations

import asyncio
import itertools

from offgil import _core
from offgil._executor import ThreadPoolExecutor, default_max_workers
from offgil._pool import Pool


class AsyncioExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` for one event loop: the first in which it is used.

    On that loop's thread `submit` returns a future of the loop's, so that ``run_in_executor`` and
    ``asyncio.to_thread`` skip the concurrent future and its way back; on any other thread it
    returns a concurrent one. Callables run as ``run_in_executor`` runs them, in no copied context.

    ``pool_or_workers`` is the number of threads, by default as many as the standard executor has,
    or a `Pool` to run on, which goes on when this is shut down; `shutdown` then waits for
    concurrent futures only, not for those of the loop.
    """

    _made = itertools.count()

    def __init__(self, pool_or_workers: Pool | int | None = None) -> None:
        pool = pool_or_workers if isinstance(pool_or_workers, Pool) else None
        if pool is not None:
            workers = pool.workers
        elif pool_or_workers is None:
            workers = default_max_workers()
        else:
            assert not isinstance(pool_or_workers, Pool)
            workers = pool_or_workers
        if workers <= 0:
            raise ValueError("the number of workers must be greater than 0")
        self._max_workers = workers
        self._thread_name_prefix = f"AsyncioExecutor-{next(self._made)}"
        _core.Executor.__init__(
            self,
            workers=workers,
            name=self._thread_name_prefix,
            initializer=None,
            max_pending=None,
            on_full="block",
            serves_loop=True,
            pool=pool,
        )


def install(
    loop: asyncio.AbstractEventLoop | None = None, *, workers: int | None = None
) -> AsyncioExecutor:
    """Make a loop's ``asyncio.to_thread`` and ``run_in_executor(None, ...)`` run on offgil.

    That is all a program needs to change to have them faster, also inside of libraries. Nothing is
    patched: the loop gets an `AsyncioExecutor` as its default executor, which it shuts down as it
    does with its own. ``workers`` is the number of threads, by default as many as the standard
    executor has.

        async def main():
            offgil.install()

    Raises RuntimeError without a loop where none runs, ValueError and TypeError for `workers`.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    executor = AsyncioExecutor(workers)
    loop.set_default_executor(executor)
    return executor
