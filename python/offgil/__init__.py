"""A C++ worker pool that asyncio code awaits: compute never holds the GIL.

from offgil.examples import fibonacci

async with offgil.Pool() as pool:
    y = await pool.submit(fibonacci, 1_000_000)
"""

from offgil._asyncio_executor import AsyncioExecutor, install
from offgil._core import NativeError, NativeFunction, PoolBroken, PoolClosed, PoolError, PoolFull
from offgil._executor import ThreadPoolExecutor
from offgil._include import get_include
from offgil._pool import Pool
from offgil._stats import Histogram, PoolStats
from offgil._to_thread import to_thread

# Where they are found, rather than where they are written.
for _public in (
    AsyncioExecutor,
    Histogram,
    Pool,
    PoolStats,
    ThreadPoolExecutor,
    get_include,
    install,
    to_thread,
):
    _public.__module__ = __name__
del _public

__all__ = [
    "AsyncioExecutor",
    "Histogram",
    "NativeError",
    "NativeFunction",
    "Pool",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolStats",
    "ThreadPoolExecutor",
    "get_include",
    "install",
    "to_thread",
]
