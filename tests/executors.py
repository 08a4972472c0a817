"""The two executors of this suite, the standard library's and ours, and scripts that use either."""

from __future__ import annotations

import concurrent.futures
import importlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from support import LIMIT, Gate, block_until

from offgil import examples as ex


@dataclass(frozen=True)
class Kind:
    """An executor, by the module in which a user finds it."""

    name: str
    module: str

    @property
    def ours(self) -> bool:
        return self.name == "ours"

    @property
    def type(self) -> type[concurrent.futures.ThreadPoolExecutor]:
        found: type[Any] = importlib.import_module(self.module).ThreadPoolExecutor
        return found

    def new(self, *args: Any, **options: Any) -> concurrent.futures.ThreadPoolExecutor:
        """Make an executor; the caller shuts it down."""
        return self.type(*args, **options)


STANDARD = Kind("standard", "concurrent.futures")
OURS = Kind("ours", "offgil")
KINDS = {kind.name: kind for kind in (STANDARD, OURS)}

# One of each sort that takes a number and returns it.
ECHOES = {"native": ex.echo, "python": lambda x: x}
both_sorts = pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)


class Box:
    """Something a weak reference can point to."""


def hold(executor: Any, gate: Gate, workers: int) -> list[Future[str]]:
    """Hold that many workers until the gate is opened; return the futures of the holding jobs."""
    held = [executor.submit(gate) for _ in range(workers)]
    block_until(lambda: all(future.running() for future in held))
    return held


def hold_callbacks(executor: Any, told: threading.Event) -> None:
    """Hold all threads that call back for native jobs, until they are told.

    For an executor of ours with one worker: with more, one at leisure calls back too.
    """
    threads = 2
    gate, held = Gate(), threading.Semaphore(0)

    def hold_it(_: Future[int]) -> None:
        held.release()
        told.wait(LIMIT)

    hold(executor, gate, 1)
    for _ in range(threads):  # none is late: no worker is free
        executor.submit(ex.echo, 0).add_done_callback(hold_it)
    gate.open()
    for _ in range(threads):
        assert held.acquire(timeout=LIMIT)


# Scripts get the module of the executor as their first argument.
PRELUDE = """
    import asyncio, concurrent.futures, gc, importlib, os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # os.fork with threads

    ThreadPoolExecutor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor

    def x():
        os.write(1, b"x")

    def x_slowly():
        time.sleep(0.05)
        x()
"""
