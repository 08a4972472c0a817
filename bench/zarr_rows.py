"""The row about zarr, a library of strangers whose codecs run in ``asyncio.to_thread``."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from measuring import Absolute, Line, WrongResultError, take_turns
from settings import Settings

import offgil

#: Side of the array and of its square chunks of doubles: a chunk has 8 KiB, 900 chunks in all.
SIDE = 960
CHUNK = 32


async def to_thread(settings: Settings) -> list[Line]:
    """Measure zarr writing and reading compressed chunks before and after ``offgil.install()``."""
    try:  # here, since the processes of other rows import this too, and some weigh themselves
        import numpy as np
        import zarr
        import zarr.api.asynchronous as zarr_async
    except ImportError:
        print("zarr is not installed: its lines are left out", file=sys.stderr)
        return []
    loop = asyncio.get_running_loop()
    values: Any = np.arange(SIDE * SIDE, dtype="f8").reshape(SIDE, SIDE)
    array = await zarr_async.create_array(
        zarr.storage.MemoryStore(),
        shape=values.shape,
        chunks=(CHUNK, CHUNK),
        dtype=values.dtype,
        compressors=zarr.codecs.ZstdCodec(level=1),
    )

    async def read(executor: ThreadPoolExecutor) -> float:
        loop.set_default_executor(executor)
        started = time.perf_counter()
        found = await array.getitem(Ellipsis)
        elapsed = time.perf_counter() - started
        if not np.array_equal(found, values):
            raise WrongResultError("zarr")
        return 1 / elapsed

    async def write(executor: ThreadPoolExecutor) -> float:
        nonlocal values
        values = values + 1  # what the chunks do not hold yet
        loop.set_default_executor(executor)
        started = time.perf_counter()
        await array.setitem(Ellipsis, values)
        elapsed = time.perf_counter() - started
        await read(executor)
        return 1 / elapsed

    what = f"{(SIDE // CHUNK) ** 2} zstd chunks of {CHUNK**2 * 8 // 1024} KiB"
    lines = []
    # As large as the executor that asyncio makes for itself, and as ours.
    with ThreadPoolExecutor() as standard, offgil.install(loop) as ours:
        for name, run in (("write", write), ("read", read)):
            for executor in (standard, ours):
                await run(executor)
            samples = await take_turns(
                {"before": partial(run, standard), "after": partial(run, ours)},
                settings.rounds,
                steady_for=settings.steady_for,
            )
            after, before = samples.spread("after").median, samples.spread("before").median
            lines.append(
                Line(
                    "zarr",
                    settings.loop,
                    f"zarr {name}, {what}",
                    "x the speed before install()",
                    samples.ratio("after", "before"),
                    None,
                    f"{1e3 / after:.1f} against {1e3 / before:.1f} ms{samples.remark()}",
                    Absolute(samples.spread("after"), "times a second"),
                )
            )
    return lines
