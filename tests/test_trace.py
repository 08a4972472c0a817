"""`Pool.trace`: a file in the trace-event format whose spans add up to the counters."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Gate, check_script, until

import offgil
from offgil.examples import echo


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"}
    for event in document["traceEvents"]:
        assert {"ph", "name", "pid", "tid"} <= set(event)
        assert event["ph"] in {"M", "X", "b", "e"}
        if event["ph"] == "X":
            assert event["ts"] > 0
            assert event["dur"] >= 0
        if event["ph"] in {"b", "e"}:
            assert {"id", "cat", "ts"} <= set(event)
    return document


async def test_its_spans_add_up_to_the_counters(
    make_pool: Callable[..., offgil.Pool], tmp_path: Path
) -> None:
    """One run and one wait per job, named; as much run time as the workers were busy."""

    def half(x: int) -> float:
        return x / 2

    pool = make_pool(2)
    await pool.submit(echo, 0)
    await asyncio.sleep(0)  # what resumed this task was the delivery, which ends here
    before = pool.stats()
    with pool.trace(tmp_path / "trace.json"):
        await asyncio.gather(*(pool.submit(fn, x) for x in range(200) for fn in (echo, half)))
    after = pool.stats()
    events = load(tmp_path / "trace.json")["traceEvents"]
    runs = [event for event in events if event.get("cat") == "run"]
    assert len(runs) == after.completed - before.completed == 400
    assert Counter(event["name"].rpartition(".")[2] for event in runs) == {"echo": 200, "half": 200}
    busy = sum(after.worker_busy_seconds) - sum(before.worker_busy_seconds)
    assert sum(event["dur"] for event in runs) / 1e6 == pytest.approx(busy)
    waits = {ph: {e["id"]: e["ts"] for e in events if e["ph"] == ph} for ph in "be"}
    assert waits["b"].keys() == waits["e"].keys() == {run["args"]["job"] for run in runs}
    assert all(waits["b"][run["args"]["job"]] <= run["ts"] for run in runs)
    delivered = [event for event in events if event.get("cat") == "deliver"]
    assert len(delivered) == after.batches - before.batches
    assert sum(event["args"]["jobs"] for event in delivered) == 400
    rows = {event["tid"] for event in events if event["ph"] == "M"}
    assert {event["tid"] for event in runs + delivered} <= rows


async def test_what_is_beyond_the_limit_is_counted(pool: offgil.Pool, tmp_path: Path) -> None:
    """The file says how many jobs are not in it."""
    with pool.trace(tmp_path / "trace.json", limit=10):
        await asyncio.gather(*(pool.submit(echo, x) for x in range(100)))
    document = load(tmp_path / "trace.json")
    runs = sum(event.get("cat") == "run" for event in document["traceEvents"])
    assert 10 <= runs <= 20
    assert runs + document["otherData"]["jobs_not_noted"] == 100


async def test_outside_of_the_block_nothing_is_noted(pool: offgil.Pool, tmp_path: Path) -> None:
    """Neither before, nor after; and the block may end with an exception."""
    await pool.submit(echo, 1)
    with pytest.raises(ZeroDivisionError), pool.trace(tmp_path / "trace.json"):
        raise ZeroDivisionError
    await pool.submit(echo, 1)
    assert not any(e["ph"] == "X" for e in load(tmp_path / "trace.json")["traceEvents"])


async def test_the_loop_goes_on_while_the_file_is_written(
    pool: offgil.Pool, tmp_path: Path
) -> None:
    """`async with` leaves it to another thread; a FIFO holds that up until somebody reads it."""
    path = tmp_path / "trace.json"
    reading: list[asyncio.Future[str]] = []

    def read() -> None:
        reading.append(asyncio.ensure_future(asyncio.to_thread(path.read_text)))

    async with pool.trace(path):
        await pool.submit(echo, 1)
        await asyncio.sleep(0)
        path.unlink()
        os.mkfifo(path)
        asyncio.get_running_loop().call_later(0.02, read)
    (text,) = reading
    events = json.loads(await text)["traceEvents"]
    assert sum(event.get("cat") == "run" for event in events) == 1


async def test_names_of_any_characters(pool: offgil.Pool, tmp_path: Path) -> None:
    """Quotes, what is not ASCII, and what is cut in the middle of that."""

    def named(name: str) -> Callable[[], None]:
        def fn() -> None: ...

        fn.__qualname__ = name
        return fn

    names = ['"\\\n\x1f"', "ж" * 9, "x" + "ж" * 60, "雪" * 60]
    async with pool.trace(tmp_path / "trace.json"):
        for name in names:
            await pool.submit(named(name))
    document = json.loads((tmp_path / "trace.json").read_text("utf-8"))
    seen = [event["name"] for event in document["traceEvents"] if event.get("cat") == "run"]
    assert seen[0].endswith(names[0]) and seen[1].endswith(names[1])
    assert all("ж" in name or "雪" in name for name in seen[1:]) and len(seen) == 4


async def test_a_full_disk(pool: offgil.Pool) -> None:
    """OSError with the file's name, where the block ends; and the pool can be traced again."""
    for _ in range(2):
        with pytest.raises(OSError, match="/dev/full"), pool.trace("/dev/full"):
            await pool.submit(echo, 1)
        with pytest.raises(OSError, match="/dev/full"):
            async with pool.trace("/dev/full"):
                await pool.submit(echo, 1)


async def test_one_at_a_time(pool: offgil.Pool, tmp_path: Path) -> None:
    """A second one is an error, and the first one goes on."""
    with pool.trace(tmp_path / "trace.json"):
        with pytest.raises(RuntimeError, match="already"), pool.trace(tmp_path / "other.json"):
            pass
        await pool.submit(echo, 1)
        await asyncio.sleep(0)
    events = load(tmp_path / "trace.json")["traceEvents"]
    assert sum(event.get("cat") == "run" for event in events) == 1


async def test_a_job_that_began_before_is_not_in_it(
    pool: offgil.Pool, gate: Gate, tmp_path: Path
) -> None:
    """Nobody noted when it was submitted and begun."""
    begun = threading.Event()
    future = pool.submit(lambda: (begun.set(), gate()))
    await until(begun.is_set)  # it counts as running a little earlier
    with pool.trace(tmp_path / "trace.json"):
        gate.open()
        await future
        await pool.submit(echo, 1)
    events = load(tmp_path / "trace.json")["traceEvents"]
    assert [e["name"].rpartition(".")[2] for e in events if e.get("cat") == "run"] == ["echo"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_trace() -> None:
    """The pool is its parent's: PoolBroken at once."""
    check_script("""
        import os, sys, tempfile, warnings, offgil
        warnings.simplefilter("ignore")  # Python warns of threads and fork
        pool = offgil.Pool(1)
        assert pool.executor.submit(abs, -1).result(10) == 1
        trace = pool.trace(os.path.join(tempfile.mkdtemp(), "trace.json"))
        child = os.fork()
        if child == 0:
            try:
                trace.__enter__()
            except offgil.PoolBroken:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """)


async def test_bad_arguments(pool: offgil.Pool, tmp_path: Path) -> None:
    """They are errors at the call, before anything is noted."""
    with pytest.raises(FileNotFoundError):
        pool.trace(tmp_path / "no such folder" / "trace.json")
    for limit in (0, 2**70, 1.5, "a", True):
        with pytest.raises((TypeError, ValueError), match="limit"):
            pool.trace(tmp_path / "trace.json", limit=limit)  # type: ignore[arg-type]
