"""An exception at any point of a delivery's way: whatever it ends, later results still arrive.

A signal handler raises where Python code happens to be, which a profile or trace function that
raises at the n-th of its events makes repeatable. What it hits may be lost, as any call that an
event loop was about to make; but the loop must not be deaf from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import support
from support import DEBUG, LIMIT, block_until, open_fds, run_in_new_loop, turns, until

import offgil
from offgil import examples as ex

NOT_UNDER_TEST = (__file__, support.__file__, contextlib.__file__)
RAISED = (KeyboardInterrupt, SystemExit, asyncio.CancelledError, ValueError)


def is_in_asyncios_own_end(frame: types.FrameType) -> bool:
    """Whether run_forever() cleans up: cut short, it leaves a loop that counts as running."""
    caller = frame.f_back
    names = [frame.f_code.co_name, caller.f_code.co_name if caller else ""]
    return names[0] != "_run_once" and any("run_forever" in name for name in names)


class Injector:
    """Raises at the n-th event of the thread, once."""

    def __init__(self, set_hook: Callable[[Any], None], n: int, error: type[BaseException]) -> None:
        self._set_hook = set_hook
        self._left = n
        self._error = error
        self.hit: str | None = None

    def begin(self) -> None:
        self._set_hook(self)

    def end(self) -> None:
        self._set_hook(None)

    def __call__(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename in NOT_UNDER_TEST or is_in_asyncios_own_end(frame):
            return self
        self._left -= 1
        if self._left == 0:
            self._set_hook(None)
            name = getattr(arg, "__qualname__", "")
            self.hit = f"{event} {name} in {frame.f_code.co_qualname}:{frame.f_lineno}"
            raise self._error("injected")
        return self


async def arrive(futures: list[asyncio.Future[Any]]) -> bool:
    """Whether all are done before the time is over."""
    _, pending = await asyncio.wait(futures, timeout=LIMIT)
    return not pending


async def submit(pool: offgil.Pool, count: int) -> list[asyncio.Future[Any]]:
    return [pool.submit(ex.echo, i) for i in range(count)]


def is_pools(callback: Any) -> bool:
    return isinstance(callback, types.BuiltinMethodType) and not isinstance(
        callback.__self__, types.ModuleType | asyncio.Task
    )


class Lossy(asyncio.SelectorEventLoop):
    """Loses calls, as an exception between taking them from the list and making them does."""

    def __init__(self) -> None:
        super().__init__()
        self.set_exception_handler(lambda *_: None)
        self.to_lose = 0  # of the pool's
        self.lost: list[Any] = []
        self.seen: list[Any] = []
        self.is_told = False  # by call_soon_threadsafe()
        self.announcements = 0

    def _lose(self, handle: asyncio.Handle, callback: Any) -> asyncio.Handle:
        if is_pools(callback):
            self.seen.append(callback)
            if self.to_lose > 0:
                self.to_lose -= 1
                self.lost.append(callback)
                handle.cancel()
        return handle

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self._lose(super().call_soon(callback, *args, context=context), callback)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self.announcements += is_pools(callback)
        return self._lose(super().call_soon_threadsafe(callback, *args, context=context), callback)


def hears_after(pool: offgil.Pool, loop: Lossy, injector: Injector) -> bool:
    """Whether the loop hears of its results, old and new, after an exception in a delivery."""
    futures = loop.run_until_complete(submit(pool, 3))
    loop.run_until_complete(arrive(futures))
    # No task, which the exception might keep from ever ending; and of two timers one is left.
    timers = [loop.call_later(seconds, loop.stop) for seconds in (0.05, 0.1)]
    is_over = False

    def stop(_: object) -> None:
        if not is_over:
            loop.stop()

    def begin() -> None:
        announced = loop.announcements
        injector.begin()
        futures.extend(pool.submit(ex.echo, i) for i in range(3))
        futures[-1].add_done_callback(stop)
        # So that the loop finds all of it in its next turn, and there are as many events each time.
        block_until(lambda: pool.pending == pool.running == 0)
        block_until(lambda: not loop.is_told or loop.announcements > announced)

    loop.call_soon(begin)
    with contextlib.suppress(*RAISED):
        loop.run_forever()
    injector.end()
    is_over = True
    for timer in timers:
        timer.cancel()
    # What has arrived is delivered without a further job; and then a further one is.
    old = loop.run_until_complete(arrive(futures))
    return old and loop.run_until_complete(arrive(loop.run_until_complete(submit(pool, 3))))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("set_hook", [sys.setprofile, sys.settrace], ids=["profile", "trace"])
@pytest.mark.parametrize("delivery", ["callback", "eventfd"])
def test_an_exception_at_every_point(
    delivery: Any,
    set_hook: Callable[[Any], None],
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at each event from a submit to its delivery."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    deaf = []
    pool = offgil.Pool(2, delivery=delivery)
    # A trace, and a loop in debug mode, have many more events: one in so many, other ones for each
    # class of exceptions.
    step = (1 if set_hook is sys.setprofile else 7) * (43 if DEBUG else 1)
    n = 1 + RAISED.index(error) % step
    while True:
        loop = Lossy()
        loop.is_told = delivery == "callback"
        injector = Injector(set_hook, n, error)
        try:
            if not hears_after(pool, loop, injector):
                deaf.append(f"{n}: {injector.hit}")
        finally:
            loop.close()
        if injector.hit is None:
            break
        n += step
    asyncio.run(pool.aclose())
    assert n > 20 and not deaf, (n, deaf)


def run_lossy(main: Callable[[Lossy], Any]) -> Lossy:
    loop = Lossy()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
    return loop


@pytest.mark.parametrize("times", [1, 3])
def test_a_call_that_is_lost_is_made_again(times: int) -> None:
    """Nothing but the call is known to the loop: the dispatcher notices that nobody comes."""

    async def main(loop: Lossy) -> None:
        async with offgil.Pool(1, delivery="callback") as pool:
            assert await pool.submit(ex.echo, 1) == 1
            loop.to_lose = times
            for _ in range(
                100
            ):  # on a busy machine, the drain that goes on may find the result by itself
                await asyncio.wait_for(pool.submit(ex.sleep, 0.01), LIMIT)
                if loop.to_lose == 0:
                    break

    assert len(run_lossy(main).lost) == times


def lose_what_a_drain_calls(pool: offgil.Pool, loop: Lossy) -> list[int]:
    """Return the results of a delivery that a callback has ended, but for those that follow."""
    futures = loop.run_until_complete(submit(pool, 5))
    pool.executor.submit(ex.echo, 0).result(LIMIT)  # the worker has let go of those before
    block_until(lambda: loop.announcements)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    seen: list[int] = []
    futures[2].add_done_callback(interrupt)
    for future in futures[3:]:
        future.add_done_callback(lambda done: seen.append(done.result()))
    loop.to_lose = 1
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not seen
    loop.run_until_complete(asyncio.wait_for(until(lambda: seen == [3, 4]), LIMIT))
    return seen


@pytest.mark.skipif(DEBUG, reason="then the loop makes all calls itself, and none ends a drain")
def test_a_call_that_a_drain_makes_may_be_lost() -> None:
    """A callback ends the drain, and the call for what is left is lost: it follows all the same."""
    pool = offgil.Pool(1, delivery="callback")
    for _ in range(10):  # a slow loop is called again beforehand, and no call is made then
        with contextlib.closing(Lossy()) as loop:
            assert lose_what_a_drain_calls(pool, loop) == [3, 4]
            if loop.lost:
                break
    assert len(loop.lost) == 1
    asyncio.run(pool.aclose())


def test_a_closed_pool_has_no_dispatcher_to_notice(
    in_thread: Callable[..., threading.Thread],
) -> None:
    """What is still to be delivered arrives all the same."""

    async def main(loop: Lossy) -> None:
        pool = offgil.Pool(1, delivery="callback")
        futures = await submit(pool, 5)
        pool.executor.submit(ex.echo, 0).result(LIMIT)  # the worker has let go of those before
        loop.to_lose = 1
        in_thread(lambda: run_in_new_loop(pool.aclose())).join(LIMIT)
        assert await asyncio.wait_for(asyncio.gather(*futures), LIMIT) == [*range(5)]

    assert len(run_lossy(main).lost) == 1


@pytest.mark.parametrize("delivery", ["callback", "eventfd"])
def test_a_flush_that_is_lost_is_scheduled_again(delivery: Any) -> None:
    """Short jobs owe the pool a wake-up at the end of the turn, also after one was lost."""

    async def main(loop: Lossy) -> None:
        async with offgil.Pool(1, delivery=delivery) as pool:
            for _ in range(200):  # until its jobs are known to be short
                await pool.submit(ex.echo, 1)

            async def two() -> None:  # of one alone nothing is owed, and nothing inside a delivery
                await turns(1)
                await asyncio.wait_for(asyncio.gather(*await submit(pool, 2)), LIMIT)

            await until(lambda: pool.running == 0)
            loop.to_lose = 1
            await two()
            (flush,) = loop.lost
            loop.seen.clear()
            for _ in range(20):
                await two()
            assert loop.seen.count(flush) >= 20

    run_lossy(main)


@pytest.mark.parametrize("closed", ["in the loop", "elsewhere"])
def test_a_descriptor_that_could_not_be_unwatched(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt inside remove_reader(): the loop stops to watch it in a later turn."""

    class Loop(asyncio.SelectorEventLoop):
        left = 0

        def remove_reader(self, fd: Any) -> bool:
            if self.left > 0:
                self.left -= 1
                raise KeyboardInterrupt
            return super().remove_reader(fd)

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    loop = Loop()
    loop.run_until_complete(turns())
    another = offgil.Pool(1)  # keeps the descriptors of the timers
    pool = offgil.Pool(1, delivery="eventfd")
    before = open_fds(), len(loop._selector.get_map())

    async def use() -> None:
        assert await pool.submit(ex.echo, 1) == 1
        loop.left = 1
        if closed == "in the loop":
            await pool.aclose()

    loop.run_until_complete(use())
    if closed == "elsewhere":
        run_in_new_loop(pool.aclose())
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):  # not for the loop that is not in our hands
            loop.run_until_complete(turns())
    assert loop.left == 0 and len(told) == (closed == "in the loop")
    told.clear()
    assert (open_fds(), len(loop._selector.get_map())) == before
    run_in_new_loop(another.aclose())
    loop.close()
