"""max_pending: a full executor makes its caller wait, or says so; nothing is lost either way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from executors import PRELUDE, Kind, both_sorts, hold
from support import LIMIT, Gate, block_until, check_script

import offgil
from offgil import examples as ex


@pytest.fixture
def make_full(only_ours: Kind, gate: Gate) -> Iterator[Callable[..., Any]]:
    """Make executors with one worker, which is held, and two waiting jobs, which are all."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        executor: Any = only_ours.new(1, max_pending=2, **options)
        made.append(executor)
        hold(executor, gate, 1)
        executor.waiting = [executor.submit(fn, 1) for fn in (ex.echo, abs)]
        return executor

    yield make
    gate.open()
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"max_pending": 0}, ValueError, "max_pending"),
        ({"max_pending": -1}, ValueError, "max_pending"),
        ({"max_pending": 1.5}, TypeError, "max_pending"),
        ({"max_pending": "many"}, TypeError, "max_pending"),
        ({"on_full": "drop"}, ValueError, "on_full"),
        ({"on_full": None}, (TypeError, ValueError), "on_full"),
        ({"on_full": "block", "max_panding": 2}, TypeError, "max_panding"),
    ],
)
def test_a_bad_option_is_named(
    only_ours: Kind, options: dict[str, Any], error: Any, named: str
) -> None:
    """The constructor raises an error that names it; both options are keywords."""
    with pytest.raises(error, match=named):
        only_ours.new(1, **options)
    with pytest.raises(TypeError):
        only_ours.new(1, "", None, (), 5)


def test_a_full_executor_raises(make_full: Callable[..., Any], gate: Gate) -> None:
    """on_full="raise": PoolFull, a RuntimeError; the refused job never runs; then there is room."""
    executor = make_full(on_full="raise")
    ran: list[int] = []
    for _ in range(3):
        with pytest.raises(offgil.PoolFull):
            executor.submit(ran.append, 1)
        with pytest.raises(RuntimeError):
            executor.submit(ex.echo, 1)
    gate.open()
    assert [future.result(LIMIT) for future in executor.waiting] == [1, 1]
    assert executor.submit(ran.append, 2).result(LIMIT) is None
    executor.shutdown()
    assert ran == [2]


def test_a_cancelled_job_makes_room(make_full: Callable[..., Any]) -> None:
    """At once, although the queue does not move."""
    executor = make_full(on_full="raise")
    for i in range(10):
        assert executor.waiting.pop(0).cancel()
        executor.waiting.append(executor.submit(ex.echo, i))
        with pytest.raises(offgil.PoolFull):
            executor.submit(ex.echo, 1)


@both_sorts
def test_a_full_executor_makes_its_callers_wait(
    make_full: Callable[..., Any],
    gate: Gate,
    in_thread: Callable[..., threading.Thread],
    echo: Callable[[int], int],
) -> None:
    """Without the GIL; when there is room, each of them gets in and its job runs once."""
    executor = make_full()
    results: list[int] = []
    started = threading.Barrier(9)

    def submit(i: int) -> None:
        started.wait(LIMIT)
        results.append(executor.submit(echo, i).result(LIMIT))

    for i in range(8):
        in_thread(submit, i)
    started.wait(LIMIT)
    assert results == [] and not any(future.done() for future in executor.waiting)
    gate.open()
    block_until(lambda: len(results) == 8)
    assert sorted(results) == [*range(8)]


def test_a_cancel_lets_one_in(
    make_full: Callable[..., Any], in_thread: Callable[..., threading.Thread]
) -> None:
    """A caller that waits is served although the queue does not move."""
    executor = make_full()
    futures: list[Any] = []
    in_thread(lambda: futures.append(executor.submit(ex.echo, 5)))
    assert executor.waiting[0].cancel()
    block_until(lambda: futures)
    assert not futures[0].done()


@pytest.mark.parametrize("cancel_futures", [True, False])
def test_a_shutdown_ends_the_wait(
    make_full: Callable[..., Any],
    gate: Gate,
    in_thread: Callable[..., threading.Thread],
    cancel_futures: bool,
) -> None:
    """Callers that wait for room are refused with the usual text."""
    executor = make_full()
    refused: list[str] = []
    about_to = threading.Barrier(4)

    def submit() -> None:
        about_to.wait(LIMIT)
        try:
            executor.submit(ex.echo, 1)
        except RuntimeError as error:
            refused.append(str(error))

    for _ in range(3):
        in_thread(submit)
    about_to.wait(LIMIT)
    executor.shutdown(wait=False, cancel_futures=cancel_futures)
    block_until(lambda: len(refused) == 3)
    assert set(refused) == {"cannot schedule new futures after shutdown"}
    gate.open()


async def test_a_loops_thread_never_waits(make_full: Callable[..., Any], gate: Gate) -> None:
    """On a thread that runs an event loop, a full executor raises PoolFull, also with "block"."""
    executor = make_full()
    loop = asyncio.get_running_loop()
    for fn in (ex.echo, abs):
        with pytest.raises(offgil.PoolFull):
            executor.submit(fn, 1)
        with pytest.raises(offgil.PoolFull):
            loop.run_in_executor(executor, fn, 1)
    gate.open()
    await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, executor.waiting)), LIMIT)
    assert await loop.run_in_executor(executor, ex.echo, 3) == 3


OWN_QUEUE = (
    PRELUDE
    + """
    executor = ThreadPoolExecutor(1, max_pending=1)

    def job():
        futures = []
        try:
            for _ in range(2):
                futures.append(executor.submit(x))
        except RuntimeError as error:
            print("told", flush=True)
        return futures

    for future in executor.submit(job).result(10):
        future.result(10)
    executor.shutdown()
"""
)


def test_a_job_that_submits_to_its_own_full_executor(only_ours: Kind) -> None:
    """No other worker can make room: it is told, rather than waiting for itself for ever."""
    assert check_script(OWN_QUEUE, only_ours.module) == "told\nx"


def test_map_in_a_full_executor(only_ours: Kind) -> None:
    """map waits for room as submit does, and takes every item once."""
    with only_ours.new(2, max_pending=3) as executor:
        assert list(executor.map(ex.echo, range(500))) == [*range(500)]
        assert list(executor.map(abs, range(500), buffersize=50)) == [*range(500)]


@both_sorts
def test_many_callers_in_a_small_queue(
    only_ours: Kind, in_thread: Callable[..., threading.Thread], echo: Callable[[int], int]
) -> None:
    """Nothing is lost and nothing runs twice; never more wait than may."""
    results: list[int] = []
    most = 0
    with only_ours.new(2, max_pending=2) as executor:
        stats: Callable[[], offgil.PoolStats] = executor.stats  # type: ignore[attr-defined]

        def submit(start: int) -> None:
            for i in range(start, start + 200):
                results.append(executor.submit(echo, i).result(LIMIT))

        threads = [in_thread(submit, 1000 * n) for n in range(6)]
        while any(thread.is_alive() for thread in threads):
            most = max(most, stats().pending)
    assert most <= 2
    assert sorted(results) == sorted(1000 * n + i for n in range(6) for i in range(200))


CLOSED_BY_A_JOB = (
    PRELUDE
    + """
    executor = ThreadPoolExecutor(1, max_pending=1)
    in_line = threading.Event()

    def job():
        in_line.wait(20)
        executor.shutdown(wait=False, cancel_futures=sys.argv[2] == "cancel")

    running = executor.submit(job)
    while not running.running():
        time.sleep(0.001)
    waiting = executor.submit(abs, -1)
    sys.setswitchinterval(1000)  # the job cannot go on before the main thread waits for room
    in_line.set()
    try:
        executor.submit(x)
    except RuntimeError as error:
        print(error)
    concurrent.futures.wait([running, waiting], 20)
    print(waiting.cancelled())
"""
)


@pytest.mark.parametrize("then", ["wait", "cancel"])
def test_a_job_shuts_its_executor_down_while_a_caller_waits(
    only_ours: Kind, freed_shim: dict[str, str], then: str
) -> None:
    """The caller is refused; the future that nobody got is released once.

    It was released twice, the second time when it had been freed. And a shutdown that cancels what
    waits made room, so that the caller got in, and its job ran.
    """
    out = check_script(CLOSED_BY_A_JOB, only_ours.module, then, **freed_shim)
    assert out == f"cannot schedule new futures after shutdown\n{then == 'cancel'}\n"


INTERRUPTED = (
    PRELUDE
    + """
    executor = ThreadPoolExecutor(1, max_pending=1)
    held = threading.Event()
    future = executor.submit(held.wait, 20)
    while not future.running():
        time.sleep(0.001)
    waiting = executor.submit(x)

    def interrupt():
        time.sleep(0.05)  # by then the main thread waits; it is told in any case
        os.kill(os.getpid(), signal.SIGINT)

    try:
        threading.Thread(target=interrupt, daemon=True).start()
        executor.submit(x)
    except KeyboardInterrupt:
        print("interrupted", future.running(), waiting.running(), flush=True)
    held.set()
    waiting.result(20)
    executor.submit(x).result(20)
    executor.shutdown()
"""
)


def test_an_interrupt_ends_the_wait(only_ours: Kind) -> None:
    """Ctrl-C in a submit that waits: KeyboardInterrupt, its job never runs, the others do."""
    assert check_script(INTERRUPTED, only_ours.module) == "interrupted True False\nxx"


def test_the_bound_counts_what_waits(only_ours: Kind, gate: Gate) -> None:
    """Not what runs, nor what has ended."""
    with only_ours.new(2, max_pending=1, on_full="raise") as executor:
        for _ in range(3):
            executor.submit(ex.echo, 1).result(LIMIT)
        held = hold(executor, gate, 1)
        held += hold(executor, gate, 1)
        waiting = executor.submit(ex.echo, 1)
        with pytest.raises(offgil.PoolFull):
            executor.submit(ex.echo, 1)
        gate.open()
        concurrent.futures.wait([*held, waiting], LIMIT)


def test_an_initializer_fails_while_a_caller_waits(
    only_ours: Kind, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """Who waits for room is told that the pool broke, not that somebody shut it down."""

    def fail() -> None:
        gate()
        raise ZeroDivisionError

    executor = only_ours.new(1, initializer=fail, max_pending=1)
    waiting = executor.submit(abs, 1)
    told: list[BaseException] = []

    def submit() -> None:
        try:
            executor.submit(abs, 2)
        except RuntimeError as e:
            told.append(e)

    caller = in_thread(submit)
    caller.join(0.1)  # most likely in line; not in line yet, it is told the same
    gate.open()
    caller.join(LIMIT)
    assert [type(e) for e in told] == [offgil.PoolBroken]
    assert isinstance(waiting.exception(LIMIT), offgil.PoolBroken)
    executor.shutdown()
