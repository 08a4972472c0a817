"""Races of the executor, provoked: cancel, callbacks, waits and shutdown around completion."""

from __future__ import annotations

import concurrent.futures
import gc
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import pytest
from executors import Box, Kind
from support import LIMIT, Gate, block_until, busy, open_fds, os_threads, rss_mib, run_in_new_loop

import offgil
from offgil import examples as ex

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROUNDS = 3000
REFUSED = r"^cannot schedule new futures after shutdown$"


pytestmark = pytest.mark.usefixtures("impatient")


def busy_with(_: Box, microseconds: float) -> None:
    busy(microseconds)


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_cancel_around_completion(executor: Any, native: bool) -> None:
    """However a cancel falls, one end is seen by all, and each callback runs exactly once."""
    rng = random.Random(1 if native else 2)
    called: Counter[int] = Counter()
    ends: Counter[bool] = Counter()
    refs: list[weakref.ref[Any]] = []

    for i in range(ROUNDS):
        box = Box()
        future: Future[Any]
        if native:
            future = executor.submit(ex.spin, rng.uniform(0, 20))
        else:
            future = executor.submit(busy_with, box, rng.uniform(0, 20))
        refs += [weakref.ref(box), weakref.ref(future)]
        del box

        def note(f: Future[Any], i: int = i) -> None:
            called[i] += 1
            assert f.done()

        if i % 3 == 0:
            future.add_done_callback(note)
        busy(rng.uniform(0, 80))
        if i % 3 == 1:
            future.add_done_callback(note)
        cancelled = future.cancel()
        if i % 3 == 2:
            future.add_done_callback(note)
        try:
            future.result(LIMIT)
            assert not cancelled and not future.cancelled()
        except CancelledError:
            assert cancelled and future.cancelled()
        assert future.done() and future.cancel() == cancelled
        ends[cancelled] += 1
        del future

    executor.submit(ex.echo, 1).result(LIMIT)
    block_until(lambda: len(called) == ROUNDS)
    executor.shutdown()
    assert set(called.values()) == {1}
    assert min(ends.values()) > ROUNDS / 100, f"the race did not take place: {ends}"
    block_until(lambda: gc.collect() is not None and not any(ref() for ref in refs))


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_add_done_callback_around_completion(
    executor: Any, native: bool, in_thread: Callable[..., threading.Thread]
) -> None:
    """Added from two threads before, while or after the job ends, each runs exactly once.

    Also where somebody looks at the future between two of them, which makes them the base's.
    """
    rng = random.Random(3)
    rounds, each = ROUNDS // 3, 3
    go = threading.Barrier(2)
    current: list[Future[Any]] = []
    seen: list[tuple[int, str, int]] = []
    late = 0

    def add(i: int, who: str) -> None:
        for n in range(each):
            if n == i % (each + 1):
                concurrent.futures.wait([current[i]], 0)
            current[i].add_done_callback(lambda f, n=n: seen.append((i, who, n)))

    def other() -> None:
        for i in range(rounds):
            go.wait(LIMIT)
            add(i, "other")

    in_thread(other)
    for i in range(rounds):
        current.append(executor.submit(ex.spin if native else busy, rng.uniform(0, 100)))
        go.wait(LIMIT)
        if i % 4 == 0:
            block_until(current[i].done)
        else:
            busy(rng.uniform(0, 150))
        late += current[i].done()
        add(i, "main")
    for future in current:
        future.result(LIMIT)
    block_until(lambda: len(seen) == rounds * 2 * each)
    assert set(Counter(seen).values()) == {1}
    assert rounds / 50 < late < rounds, f"the race did not take place: {late}"


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_time_limits_around_completion(executor: Any, native: bool) -> None:
    """However a limit falls: the result or TimeoutError, then the result; wait and as_completed."""
    rng = random.Random(5)
    ends: Counter[str] = Counter()
    for i in range(ROUNDS // 3):
        job = ex.spin if native else busy
        futures = [executor.submit(job, rng.uniform(0, 60)) for _ in range(2)]
        limit = rng.uniform(0, 200) / 1e6
        if i % 3 == 0:
            try:
                futures[0].result(limit)
                ends["in time"] += 1
                assert futures[0].done()
            except TimeoutError:
                ends["late"] += 1
        elif i % 3 == 1:
            done, not_done = concurrent.futures.wait(futures, limit)
            assert done | not_done == set(futures) and not done & not_done
            ends["late" if not_done else "in time"] += 1
        else:
            came = []
            try:
                for future in concurrent.futures.as_completed(futures, limit):
                    came.append(future)
                ends["in time"] += 1
            except TimeoutError:
                ends["late"] += 1
            assert all(future.done() for future in came)
        for future in futures:
            assert future.exception(LIMIT) is None
        assert concurrent.futures.wait(futures, 0).not_done == set()
    assert min(ends["in time"], ends["late"]) > 0, f"the race did not take place: {ends}"


@pytest.mark.parametrize("cancel_futures", [True, False])
def test_shutdown_while_others_submit(
    kind: Kind, in_thread: Callable[..., threading.Thread], cancel_futures: bool
) -> None:
    """A submit is either refused, or its future ends: nothing in between, and no job is lost."""
    rng = random.Random(4)
    for _ in range(40):
        executor = kind.new(2)
        ran: list[int] = []
        futures: list[list[Future[Any]]] = [[], []]
        go = threading.Barrier(3)

        def push(me: int, executor: Any, go: Any, futures: Any, ran: list[int]) -> None:
            go.wait(LIMIT)
            with pytest.raises(RuntimeError, match=REFUSED):
                for i in range(1_000_000):
                    job = (ran.append, i) if i % 2 else (ex.spin, 1)
                    futures[me].append(executor.submit(*job))

        threads = [in_thread(push, me, executor, go, futures, ran) for me in (0, 1)]
        go.wait(LIMIT)
        busy(rng.uniform(0, 2000))
        executor.shutdown(cancel_futures=cancel_futures)
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        accepted = [*futures[0], *futures[1]]
        # A cancelled one may be told to wait() by nobody in the standard library.
        assert all(future.done() for future in accepted)
        cancelled = sum(future.cancelled() for future in accepted)
        assert cancel_futures or not cancelled
        python = [f for each in futures for f in each[1::2]]
        assert len(ran) == sum(not future.cancelled() for future in python)


def test_shutdown_that_cancels_while_others_wait_and_cancel(
    kind: Kind, in_thread: Callable[..., threading.Thread]
) -> None:
    """Waiters, cancellers and the shutdown agree on each future's one end."""
    rng = random.Random(6)
    for _ in range(40):
        executor = kind.new(2)
        called: Counter[int] = Counter()
        futures = [executor.submit(*((ex.spin, 5) if i % 2 else (busy, 5))) for i in range(60)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i, called=called: called.update([i]))
        ends: list[list[str]] = [[], []]

        def wait(into: list[str], futures: list[Future[Any]]) -> None:
            for future in futures:
                try:
                    future.result(LIMIT)
                    into.append("result")
                except CancelledError:
                    into.append("cancelled")

        threads = [in_thread(wait, into, futures) for into in ends]
        threads.append(in_thread(lambda futures=futures: [f.cancel() for f in futures[::-3]]))
        busy(rng.uniform(0, 500))
        executor.shutdown(cancel_futures=True)
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        right = ["cancelled" if future.cancelled() else "result" for future in futures]
        assert ends == [right, right]
        block_until(lambda called=called: len(called) == 60)
        assert set(called.values()) == {1}


# --------------------------------------------------------------------------------------------------
# a thousand lives


def test_a_thousand_executors(kind: Kind) -> None:
    """Made, used and ended in each way: threads and descriptors as before, memory flat."""

    def live(i: int) -> None:
        executor: Any = kind.new(2)
        futures = [executor.submit(ex.echo, i), executor.submit(abs, i)]
        if i % 3 == 0:
            futures[0].add_done_callback(lambda _: None)
        if i % 4:
            executor.shutdown(wait=i % 4 > 1, cancel_futures=i % 4 == 3)
        # and every fourth one is only dropped
        concurrent.futures.wait([f for f in futures if not f.cancelled()], LIMIT)

    before = os_threads()
    for i in range(200):
        live(i)
    gc.collect()
    block_until(lambda: os_threads() == before)
    fds, threads, memory = open_fds(), threading.active_count(), rss_mib()
    for i in range(1000):
        live(i)
    gc.collect()
    block_until(lambda: (os_threads(), open_fds()) == (before, fds))
    assert threading.active_count() == threads
    assert rss_mib() - memory < 8, "a leak of 8 KiB per executor would show"


def test_callbacks_that_block_now_and_then(make_executor: Callable[..., Any]) -> None:
    """Whoever brings them, and however often another thread takes over: each is called once."""
    executor = make_executor(4)
    rng = random.Random(3)
    called: Counter[int] = Counter()
    lock = threading.Lock()

    def note(_: Future[Any], i: int, pause: float) -> None:
        if pause:
            time.sleep(pause)
        with lock:
            called[i] += 1

    n = ROUNDS
    for i in range(n):
        # About as long as until the next one takes over: some return just then.
        pause = rng.choice([0.0, 0.02, 0.03, 0.04]) if i % 20 == 0 else 0.0
        future = executor.submit(ex.spin, rng.uniform(0, 20))
        future.add_done_callback(partial(note, i=i, pause=pause))
        if i % 50 == 0:
            time.sleep(rng.uniform(0, 0.01))
    executor.shutdown()
    assert called == Counter(range(n))


def test_a_collection_while_a_future_is_first_looked_at(executor: Any) -> None:
    """wait() hears of a job that ends during any collection that the look sets off.

    One of them came when the job had to call whoever observes it, and nobody did yet: the future
    was never done.
    """
    for threshold in range(1, 4):
        chosen = 1
        while end_a_job_inside_a_collection(executor, threshold, chosen) >= chosen:
            chosen += 1


def end_a_job_inside_a_collection(executor: Any, threshold: int, chosen: int) -> int:
    """End a job in the chosen one of the collections while it is looked at; count them."""
    end, seen = threading.Event(), 0
    future = executor.submit(end.wait, LIMIT)
    block_until(future.running)
    kept: list[Any] = []  # so that more is made than dies

    def collecting(phase: str, info: dict[str, int]) -> None:
        nonlocal seen
        kept.append(info)
        seen += phase == "start"
        if phase == "start" and seen == chosen:
            end.set()
            block_until(future.done)

    usual = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(collecting)
    gc.set_threshold(threshold)
    try:
        assert future._state
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(collecting)
    end.set()
    assert concurrent.futures.wait([future], LIMIT / 4).done == {future}
    assert future.result(LIMIT) is True
    return seen


def test_many_executors_on_one_pool(gate: Gate) -> None:
    """They leave nothing behind; each left a kilobyte, for as long as the pool lived.

    One that is dropped with jobs under way gives its place to no other before they have ended.
    """

    async def main() -> None:
        async with offgil.Pool(1) as pool:

            def make(count: int) -> None:
                for i in range(count):
                    executor = offgil.AsyncioExecutor(pool)
                    if i % 100 == 0:
                        assert executor._submit_concurrent(ex.echo, i).result(LIMIT) == i
                    executor.shutdown(wait=False)

            make(2000)
            before = rss_mib()
            make(20_000)
            assert rss_mib() - before < 6

            held = offgil.AsyncioExecutor(pool)._submit_concurrent(gate)
            others = [offgil.AsyncioExecutor(pool) for _ in range(3)]
            waiting = [other._submit_concurrent(ex.echo, 1) for other in others]
            others[0].shutdown(wait=False, cancel_futures=True)
            gate.open()
            assert held.result(LIMIT) == "through the gate"
            assert [future.result(LIMIT) for future in waiting[1:]] == [1, 1]
            assert waiting[0].cancelled()
            for other in others:
                other.shutdown()

    run_in_new_loop(main())
