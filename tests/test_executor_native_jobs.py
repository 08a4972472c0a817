"""Native jobs whose phases take their time, or Python's: made by hand, see made_natives.py."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest
from executors import hold
from made_natives import made_native
from support import LIMIT, Gate, block_until

import offgil


@pytest.mark.parametrize("door", ["executor", "pool"])
def test_a_job_is_destroyed_once(door: str, gate: Gate) -> None:
    """As the ABI promises, also where a withdrawn job comes back while it is being destroyed.

    Whoever brought it destroyed it again; and gave its function back, which could be the last
    reference.
    """
    destroyed: list[bool] = []

    def destroy() -> None:
        destroyed.append(function() is not None)
        if len(destroyed) == 1:
            gate.open()
            bring()
        destroyed.append(function() is not None)

    native = made_native(destroy=destroy)
    function = weakref.ref(native)
    if door == "executor":
        executor = offgil.ThreadPoolExecutor(1)
        hold(executor, gate, 1)
        future: Any = executor.submit(native)

        def bring() -> None:
            assert executor.submit(abs, -1).result(LIMIT) == 1
            executor.shutdown()

    else:

        async def submit(fn: offgil.NativeFunction) -> tuple[offgil.Pool, Any]:
            pool = offgil.Pool(1)
            await gate.occupy(pool)
            return pool, pool.submit(fn)

        loop = asyncio.new_event_loop()
        pool, future = loop.run_until_complete(submit(native))
        loop.close()

        def bring() -> None:
            block_until(lambda: pool.stats().dropped == 2)  # each look brings what has arrived

    del native
    assert future.cancel()
    del future
    assert destroyed == [True, True]
