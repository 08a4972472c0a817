"""Helpers of the suite: loops under watch, gates, waits with a limit, fresh interpreters.

Nothing here sleeps for luck: `until` waits for a condition and gives up with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import offgil

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

LIMIT = 20.0  # seconds: no wait in this suite is longer unless it says so
DEBUG = bool(os.environ.get("PYTHONASYNCIODEBUG")) or sys.flags.dev_mode

# --------------------------------------------------------------------------------------------------
# event loops


class LoopErrors(list[dict[str, Any]]):
    """What reached the exception handler of any loop of this test."""

    def collect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The future itself is not kept: a test must be able to see it die.
        self.append({k: v for k, v in context.items() if k not in ("future", "task", "handle")})

    def take(self) -> list[dict[str, Any]]:
        """Return what was collected and forget it: the test expected these."""
        taken, self[:] = list(self), []
        return taken


loop_errors = LoopErrors()


def watched(factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], Any]:
    def new_loop() -> asyncio.AbstractEventLoop:
        loop = factory()
        loop.set_exception_handler(loop_errors.collect)
        loop.set_debug(DEBUG)
        return loop

    return new_loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": watched(asyncio.SelectorEventLoop)
}
if uvloop is not None:
    LOOPS["uvloop"] = watched(uvloop.new_event_loop)


def run_in_new_loop(main: Any, factory: Callable[[], Any] = LOOPS["asyncio"]) -> Any:
    """Run a coroutine in a loop of its own, as asyncio.run does, under watch."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


# --------------------------------------------------------------------------------------------------
# pools


@dataclass(frozen=True)
class Flavour:
    """A kind of future and a channel."""

    name: str
    kind: str
    delivery: str

    def new_pool(self, workers: int | None = 2, **options: Any) -> offgil.Pool:
        """Make a pool of this flavour; the caller closes it."""
        return offgil.Pool(workers, **{"delivery": self.delivery, **options})


FLAVOURS = {
    "inline": Flavour("inline", "inline", "eventfd"),
    "plain": Flavour("plain", "plain", "eventfd"),
    "callback": Flavour("callback", "inline", "callback"),
}


def check_balance(pool: offgil.Pool) -> offgil.PoolStats:
    """Check that every submitted job is somewhere, and only once."""
    s = pool.stats()
    ended = s.completed + s.failed + s.cancelled + s.expired
    assert s.submitted == ended + s.pending + s.running, s
    return s


# --------------------------------------------------------------------------------------------------
# waiting


async def until(condition: Callable[[], Any], limit: float = LIMIT) -> None:
    """Let the loop run until the condition holds."""
    give_up = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        await asyncio.sleep(0.001)


def busy(microseconds: float) -> None:
    """Keep this thread busy for a moment."""
    until_then = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < until_then:
        pass


def block_until(condition: Callable[[], Any], limit: float = LIMIT) -> None:
    """Block this thread, and the loop it may be running, until the condition holds."""
    give_up = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        time.sleep(0.0005)


async def turns(n: int = 3) -> None:
    """Let the loop turn n times."""
    for _ in range(n):
        await asyncio.sleep(0)


class Gate:
    """Jobs that hold their worker until the test opens the gate."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def __call__(self) -> str:
        if not self._opened.wait(LIMIT):
            raise TimeoutError("nobody opened the gate")
        return "through the gate"

    def open(self) -> None:
        self._opened.set()

    async def occupy(self, pool: offgil.Pool, workers: int | None = None) -> list[Any]:
        """Hold that many workers (all, if not told); return the futures of the holding jobs."""
        wanted = pool.running + (pool.workers if workers is None else workers)
        held = [pool.submit(self) for _ in range(wanted - pool.running)]
        await until(lambda: pool.running == wanted)
        return held


# --------------------------------------------------------------------------------------------------
# the process


def open_fds() -> int:
    """Count this process's file descriptors."""
    return len(os.listdir("/proc/self/fd")) - 1  # without the one that reads the folder


def os_threads() -> int:
    """Count this process's threads, Python's or not.

    One that was joined is listed for a moment longer, so the count has to stand still for a while.
    """
    count, since = 0, time.monotonic()
    while time.monotonic() - since < 0.02:
        now = len(os.listdir("/proc/self/task"))
        if now != count:
            count, since = now, time.monotonic()
    return count


def blocked_by_threads(name: str) -> dict[str, set[int]]:
    """Return the signals that each thread blocks whose name, as the kernel has it, begins so."""
    found: dict[str, set[int]] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            comm = (task / "comm").read_text().rstrip()
            mask = int(re.findall("SigBlk:\\s*(\\w+)", (task / "status").read_text())[0], 16)
            if comm.startswith(name):
                found[comm] = {n for n in signal.valid_signals() if mask >> (n - 1) & 1}
    return found


def rss_mib() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start_script(code: str, *args: str, **env: str) -> subprocess.Popen[str]:
    """Start the code in a fresh interpreter."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", **env},
    )


def end_script(
    process: subprocess.Popen[str], limit: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Wait for a script; kill it and fail when it hangs."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(6)  # SIGABRT: the fault handler tells where it hung
        out, err = process.communicate()
        pytest.fail(f"the script hung for {limit} s\n--- stdout\n{out}\n--- stderr\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_script(
    code: str, *args: str, limit: float = 30.0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the code in a fresh interpreter, never longer than the limit."""
    return end_script(start_script(code, *args, **env), limit)


def check_script(code: str, *args: str, limit: float = 30.0, **env: str) -> str:
    """Run the code in a fresh interpreter; it must end well and say nothing on stderr."""
    done = run_script(code, *args, limit=limit, **env)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
    return done.stdout
