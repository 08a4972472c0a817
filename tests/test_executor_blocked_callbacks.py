"""Done callbacks that block: others come all the same, while there is a thread left for them.

The standard pool runs callbacks on its workers, so that as many may block as it has. Ours brings
those of native jobs by a thread of their own, in whose place another one goes on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from executors import PRELUDE, Kind, both_sorts, hold
from support import LIMIT, Gate, block_until, check_script, os_threads, turns

import offgil
from offgil import examples as ex
from offgil._executor import PoolExecutor

# Shorter than the waits for what callbacks do: a pool that is broken fails the test in good time.
PATIENCE = LIMIT / 2

WAITS: dict[str, Callable[[list[Future[Any]]], int]] = {
    "wait": lambda fs: len(concurrent.futures.wait(fs, PATIENCE).done),
    "as_completed": lambda fs: len([*concurrent.futures.as_completed(fs, PATIENCE)]),
}


class Blocker:
    """A callback that blocks until it is let go, and counts how often it is called."""

    def __init__(self) -> None:
        self.entered = self.left = 0
        self._may_go = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, _: Future[Any]) -> None:
        with self._lock:
            self.entered += 1
        in_time = self._may_go.wait(LIMIT)
        with self._lock:
            self.left += in_time

    def let_go(self) -> None:
        self._may_go.set()


@pytest.fixture
def blocker() -> Any:
    """A blocker that lets go at the latest when the test ends."""
    made = Blocker()
    yield made
    made.let_go()


def delivery_threads() -> int:
    """Count the threads that bring completions to Python code, of all pools."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.append((task / "comm").read_text().rstrip())
    return sum(name.endswith("-gil") for name in names)


# --------------------------------------------------------------------------------------------------
# who waits for whom


@both_sorts
@pytest.mark.parametrize("how", WAITS.values(), ids=WAITS)
def test_a_callback_may_wait_for_jobs_that_were_there(
    executor: Any, gate: Gate, echo: Callable[[int], int], how: Callable[[list[Future[Any]]], int]
) -> None:
    """Native ones came from one thread, which waited for itself for ever."""
    hold(executor, gate, 2)
    first = executor.submit(echo, 0)
    others = [executor.submit(echo, i) for i in range(5)]
    told: list[int] = []
    first.add_done_callback(lambda _: told.append(how(others)))
    for other in others:
        other.add_done_callback(lambda _: None)
    gate.open()
    block_until(lambda: told)
    assert told == [5]


@both_sorts
@pytest.mark.parametrize("how", WAITS.values(), ids=WAITS)
def test_a_callback_may_wait_for_jobs_that_it_submits(
    executor: Any, gate: Gate, echo: Callable[[int], int], how: Callable[[list[Future[Any]]], int]
) -> None:
    """They end when nobody looks for them any more but the thread that waits."""
    hold(executor, gate, 2)
    first = executor.submit(echo, 0)
    told: list[int] = []
    first.add_done_callback(
        lambda _: told.append(how([executor.submit(echo, i) for i in range(5)]))
    )
    gate.open()
    block_until(lambda: told)
    assert told == [5]


@both_sorts
def test_a_callback_may_wait_for_another(
    executor: Any, gate: Gate, echo: Callable[[int], int]
) -> None:
    """For what the callback of a job behind it does."""
    hold(executor, gate, 2)
    first, second = executor.submit(echo, 1), executor.submit(echo, 2)
    event = threading.Event()
    told: list[bool] = []
    first.add_done_callback(lambda _: told.append(event.wait(PATIENCE)))
    second.add_done_callback(lambda _: event.set())
    gate.open()
    block_until(lambda: told)
    assert told == [True]


# --------------------------------------------------------------------------------------------------
# how many may block


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_may_block_as_there_are_workers(
    make_executor: Callable[..., Any], kind: Kind, gate: Gate, blocker: Blocker, workers: int
) -> None:
    """What is behind them, and what comes later, is told. Standard: one less, the workers being it.

    All of them are done before the first callback runs, as one batch.
    """
    executor = make_executor(workers)
    hold(executor, gate, workers)
    blocked = workers if kind.ours else workers - 1
    called: Counter[Future[int]] = Counter()

    def submit(n: int) -> list[Future[int]]:
        futures = [executor.submit(ex.echo, i) for i in range(n)]
        for future in futures:
            future.add_done_callback(lambda f: called.update([f]))
        return futures

    for _ in range(blocked):
        executor.submit(ex.echo, 0).add_done_callback(blocker)
    behind = submit(50)
    gate.open()
    block_until(lambda: blocker.entered == blocked and len(called) == 50, PATIENCE)
    later = submit(50)
    block_until(lambda: len(called) == 100, PATIENCE)
    assert blocker.left == 0
    blocker.let_go()
    block_until(lambda: blocker.left == blocked)
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1
    assert called == Counter(behind + later)


def test_one_job_may_have_several_that_block(executor: Any, gate: Gate, blocker: Blocker) -> None:
    """One after the other, while the next job's are called."""
    hold(executor, gate, 2)
    first, second = executor.submit(ex.echo, 1), executor.submit(ex.echo, 2)
    order: list[Any] = []
    first.add_done_callback(blocker)
    first.add_done_callback(order.append)
    second.add_done_callback(order.append)
    gate.open()
    block_until(lambda: order, PATIENCE)
    assert order == [second]
    blocker.let_go()
    block_until(lambda: len(order) == 2)
    assert order == [second, first]


def test_who_stands_in_is_a_thread_of_the_executor(
    only_ours: Kind, gate: Gate, blocker: Blocker
) -> None:
    """It has the name, may ask observed futures for results, and may not wait for its own end."""
    executor = only_ours.new(2, "mine")
    hold(executor, gate, 2)
    futures = [executor.submit(ex.echo, i) for i in range(8)]
    told: list[tuple[str, bool, list[int]]] = []

    def tell(_: Future[int]) -> None:
        thread = threading.current_thread()
        with pytest.raises(RuntimeError, match="it would have to wait for"):
            executor.shutdown(wait=True)
        results = [future.result(PATIENCE) for future in reversed(futures[2:])]
        told.append((thread.name, thread in threading.enumerate(), results))

    futures[0].add_done_callback(blocker)
    futures[1].add_done_callback(tell)
    for future in futures[2:]:
        future.add_done_callback(lambda _: None)
    gate.open()
    block_until(lambda: told, PATIENCE)
    ((name, is_enumerated, results),) = told
    assert name in ("mine-gil", "mine_0", "mine_1")
    assert is_enumerated and results == [*reversed(range(2, 8))]
    assert blocker.entered == 1 and blocker.left == 0
    blocker.let_go()
    executor.shutdown()


async def test_one_that_blocks_holds_up_nobody_of_the_pool(
    pool: offgil.Pool, gate: Gate, blocker: Blocker
) -> None:
    """Neither another executor of the pool nor an event loop, which may be told the same way."""
    one, other = pool.executor, PoolExecutor(pool, "other")
    held = await gate.occupy(pool)
    called: list[Any] = []
    one.submit(ex.echo, 1).add_done_callback(blocker)
    for executor in (one, other):
        executor.submit(ex.echo, 2).add_done_callback(called.append)
    mine = [pool.submit(ex.echo, i) for i in range(20)]
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(*mine), PATIENCE) == [*range(20)]
    block_until(lambda: len(called) == 2 and blocker.entered == 1, PATIENCE)
    assert await asyncio.wait_for(pool.submit(ex.echo, 3), PATIENCE) == 3
    other.submit(ex.echo, 4).add_done_callback(called.append)
    block_until(lambda: len(called) == 3, PATIENCE)
    assert blocker.left == 0
    blocker.let_go()
    await asyncio.gather(*held)


# --------------------------------------------------------------------------------------------------
# threads


def test_the_threads_that_stood_in_end(only_ours: Kind, gate: Gate, blocker: Blocker) -> None:
    """When nothing blocks any more, and after a second without anything to bring, one is left."""
    before = delivery_threads()
    executor = only_ours.new(3)
    next_gate = Gate()  # a worker at leisure would call back itself
    hold(executor, gate, 3)
    called: list[Any] = []
    for callback in (blocker, blocker, blocker, called.append):
        executor.submit(ex.echo, 1).add_done_callback(callback)
    for _ in range(3):
        executor.submit(next_gate)
    gate.open()
    block_until(lambda: called, PATIENCE)
    assert delivery_threads() == before + 4
    blocker.let_go()
    next_gate.open()
    block_until(lambda: delivery_threads() == before + 1)
    executor.submit(ex.sleep, 0.01).add_done_callback(called.append)
    block_until(lambda: len(called) == 2)
    executor.shutdown()
    block_until(lambda: delivery_threads() == before)


async def test_a_pool_that_serves_loops_has_none_to_stand_in(make_pool: Any) -> None:
    """A loop is told by what never blocks: one thread at most, whatever the loop does."""
    before = delivery_threads()
    pool = make_pool(2)
    for _ in range(20):
        await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(50)))
        await turns()
    assert delivery_threads() - before <= 1
    held = pool.submit(ex.sleep, 0.05)
    threading.Event().wait(0.1)  # the loop is blocked, and its result waits
    assert delivery_threads() - before <= 1
    await held


def start_delivery(executor: Any) -> None:
    """Run so many native jobs that a thread for what they leave is worth it."""
    assert [executor.submit(ex.echo, i).result(LIMIT) for i in range(65)] == [*range(65)]


def wait_until_given_back(executor: Any) -> None:
    """Run a job that nobody observes; return when its memory has been given back."""
    future = executor.submit(ex.echo, 1)
    assert future.result(LIMIT) == 1
    there = weakref.ref(future)
    del future
    block_until(lambda: there() is None)


def test_jobs_that_nobody_observes_need_none_to_stand_in(only_ours: Kind) -> None:
    """The thread that gives their memory back calls nobody."""
    before = delivery_threads()
    with only_ours.new(2) as executor:
        start_delivery(executor)
        for _ in range(5):
            wait_until_given_back(executor)
            assert delivery_threads() - before <= 1


NO_THREAD = (
    PRELUDE
    + """
    import ctypes
    import offgil.examples as ex
    shim = ctypes.CDLL(None)
    executor = ThreadPoolExecutor(2)
    assert executor.submit(ex.echo, 1).result(10) == 1

    def told():
        event = threading.Event()
        executor.submit(ex.sleep, 0.001).add_done_callback(lambda _: event.set())
        return event.wait(10)

    shim.fail_thread(1, 1)
    assert all(told() for _ in range(100))
    shim.fail_thread(0, 0)
    gate = threading.Event()
    held = [executor.submit(gate.wait) for _ in range(2)]
    ended = threading.Event()
    executor.submit(ex.echo, 1).add_done_callback(lambda _: (told() and x(), ended.set()))
    gate.set()
    assert ended.wait(20)
    executor.shutdown()
"""
)


def test_a_thread_that_cannot_start_is_done_without(only_ours: Kind, thread_shim: Path) -> None:
    """Callbacks are called, and when threads can be had again, one that blocks holds up nobody."""
    quiet = {"LD_PRELOAD": str(thread_shim), "OFFGIL_LOG": "error"}
    assert check_script(NO_THREAD, only_ours.module, **quiet) == "x"


# --------------------------------------------------------------------------------------------------
# the end


@both_sorts
def test_shutdown_waits_for_callbacks_that_wait(
    kind: Kind, gate: Gate, echo: Callable[[int], int], in_thread: Callable[..., Any]
) -> None:
    """It returns when all have been called, and leaves no thread."""
    before = os_threads()
    executor = kind.new(2)
    hold(executor, gate, 2)
    futures = [executor.submit(echo, i) for i in range(10)]
    event, told = threading.Event(), []
    futures[0].add_done_callback(
        lambda _: told.append((WAITS["wait"](futures[1:]), event.wait(PATIENCE)))
    )
    futures[-1].add_done_callback(lambda _: event.set())
    ending = in_thread(executor.shutdown)
    gate.open()
    ending.join(LIMIT)
    assert told == [(9, True)]
    block_until(lambda: os_threads() == before)


def test_a_thread_that_starts_late_brings_what_there_is(
    only_ours: Kind, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all jobs have ended it is told to stop; it left them to the thread inside shutdown."""
    usual = threading.current_thread
    starting, may_start = threading.Event(), threading.Event()

    def current_thread() -> threading.Thread:  # a thread of ours asks when it starts
        starting.set()
        may_start.wait(LIMIT)
        return usual()

    monkeypatch.setattr(threading, "current_thread", current_thread)
    executor = only_ours.new(2)
    start_delivery(executor)
    assert starting.wait(LIMIT)
    monkeypatch.setattr(threading, "current_thread", usual)
    hold(executor, gate, 2)
    told: list[bool] = []
    for _ in range(3):
        callback = executor.submit(ex.echo, 1).add_done_callback
        callback(lambda _: told.append(threading.current_thread() is threading.main_thread()))
    gate.open()
    threading.Timer(0.1, may_start.set).start()
    executor.shutdown()
    assert told == [False] * 3


def test_exit_waits_for_callbacks_that_wait(kind: Kind) -> None:
    """Each without a limit of its own, for the next; nothing is lost."""
    code = (
        PRELUDE
        + """
    import offgil.examples as ex
    executor = ThreadPoolExecutor(2)
    gate = threading.Event()
    held = [executor.submit(gate.wait) for _ in range(2)]
    first, second, third = [executor.submit(ex.sleep, 0.001) for _ in range(3)]

    def block(_):
        concurrent.futures.wait([second])
        x()

    first.add_done_callback(block)
    second.add_done_callback(lambda _: x())
    third.add_done_callback(lambda _: x())
    gate.set()
    """
    )
    assert check_script(code, kind.module) == "xxx"


def test_a_fork_while_a_callback_blocks(only_ours: Kind) -> None:
    """The child has none of the threads, and ends well; so does the parent."""
    code = (
        PRELUDE
        + """
    import offgil.examples as ex
    executor = ThreadPoolExecutor(1)
    blocked, told, let_go = threading.Event(), threading.Event(), threading.Event()
    gate = threading.Event()
    executor.submit(gate.wait)
    executor.submit(ex.echo, 1).add_done_callback(lambda _: (blocked.set(), let_go.wait(10)))
    executor.submit(ex.echo, 1).add_done_callback(lambda _: told.set())
    gate.set()
    assert blocked.wait(10) and told.wait(10)
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        with ThreadPoolExecutor(1) as new:
            told = threading.Event()
            new.submit(ex.echo, 1).add_done_callback(lambda _: told.set())
            assert told.wait(10)
        x()
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    let_go.set()
    x()
    """
    )
    assert check_script(code, only_ours.module) == "xx"
