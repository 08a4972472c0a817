"""asyncio.to_thread, on a pool that the whole process shares."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from offgil._executor import default_max_workers
from offgil._pool import Pool

P = ParamSpec("P")
T = TypeVar("T")

_pool: Pool | None = None
_making = threading.Lock()


async def to_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function on a worker thread and return its result, as `asyncio.to_thread` does.

    A native function runs without the GIL; any other callable in a copy of the caller's context.
    The pool behind it is made when first needed, shared by all event loops and threads, and ends
    with the interpreter; it has as many threads as asyncio's default executor. Raises what the
    function raises.
    """
    return await _shared_pool().run(fn, *args, **kwargs)


def _shared_pool() -> Pool:
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(default_max_workers(), name="offgil-shared")
    return _pool


def _forget_pool() -> None:
    """In a forked child, which has none of its threads."""
    global _pool, _making
    _pool = None
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_pool)
