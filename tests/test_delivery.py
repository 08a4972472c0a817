"""How results reach an event loop, whatever its callbacks and signal handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from made_natives import made_native
from support import (
    DEBUG,
    LIMIT,
    Flavour,
    LoopErrors,
    block_until,
    busy,
    check_balance,
    check_script,
    turns,
    until,
    watched,
)

import offgil
from offgil import examples as ex

# --------------------------------------------------------------------------------------------------
# interrupted


class InterruptedLoop(asyncio.SelectorEventLoop):
    """Stands in for a signal that arrives while the pool's C++ runs.

    Its handler raises in the first Python code that runs after it: in the loop's own methods.
    """

    interrupts: Callable[[Any], bool] | None = None  # the call_soon() of what
    interrupts_get_debug = False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        if self.interrupts is not None and self.interrupts(callback):
            self.interrupts = None
            raise KeyboardInterrupt
        return super().call_soon(callback, *args, context=context)

    def get_debug(self) -> bool:
        asked_by_c = sys._getframe(1).f_code.co_name == "_run"  # a handle's, which called it
        if self.interrupts_get_debug and asked_by_c:
            self.interrupts_get_debug = False
            raise KeyboardInterrupt
        return super().get_debug()


def is_the_pools(callback: Any) -> bool:
    mine = getattr(callback, "__self__", None)
    return isinstance(callback, types.BuiltinMethodType) and not asyncio.isfuture(mine)


@pytest.fixture
def loop() -> Iterator[InterruptedLoop]:
    made = watched(InterruptedLoop)()
    yield made
    made.close()


@pytest.fixture
def pool_of_loop(loop: InterruptedLoop, flavour: Flavour) -> Iterator[offgil.Pool]:
    made = flavour.new_pool(1)
    yield made
    loop.run_until_complete(made.aclose(timeout=LIMIT))
    check_balance(made)


Futures = list[asyncio.Future[Any]]


async def let_arrive(pool: offgil.Pool, futures: Futures, n: int, arm: Callable[[], None]) -> None:
    """Submit jobs; when all have ended, and the loop has heard of none, arm it and let it turn."""
    await pool.submit(ex.echo, 0)
    await turns(1)  # out of the drain that woke us
    futures.extend(pool.submit(ex.echo, i) for i in range(n))
    block_until(lambda: pool.stats().completed == n + 1)
    arm()
    await until(lambda: all(future.done() for future in futures))


async def results_of(futures: Futures) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*futures), LIMIT)


def test_a_drain_is_continued_whatever_its_call_soon_does(
    loop: InterruptedLoop, pool_of_loop: offgil.Pool
) -> None:
    """Where the loop's call_soon() is interrupted, nothing that has arrived is forgotten."""
    futures: Futures = []

    def arm() -> None:
        for future in futures[:100]:
            future.add_done_callback(lambda _: busy(20))  # more than one drain may do
        loop.interrupts = is_the_pools

    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(let_arrive(pool_of_loop, futures, 3000, arm))
    loop.interrupts = None
    assert loop.run_until_complete(results_of(futures)) == list(range(3000))


def test_an_interrupt_of_a_further_callback_leaves_the_loop(
    loop: InterruptedLoop, pool_of_loop: offgil.Pool, flavour: Flavour
) -> None:
    """A future calls the loop for its callbacks, all but one, and that may be interrupted."""
    called: list[str] = []

    def further(_: object) -> None:
        called.append("further")

    futures: Futures = []

    def arm() -> None:
        futures[0].add_done_callback(lambda _: called.append("kept"))
        futures[0].add_done_callback(further)
        loop.interrupts = lambda callback: callback is further

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(let_arrive(pool_of_loop, futures, 2, arm))
    assert loop.run_until_complete(results_of(futures)) == [0, 1]
    loop.run_until_complete(turns())
    assert "further" not in called, "asyncio's own futures lose it as well"
    assert called == ["kept"] or flavour.kind == "plain" or DEBUG


def test_an_interrupt_at_the_beginning_of_a_drain_leaves_the_loop(
    loop: InterruptedLoop, pool_of_loop: offgil.Pool
) -> None:
    """The drain that it ends is made good for by the next."""
    futures: Futures = []

    def arm() -> None:
        loop.interrupts_get_debug = True

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(let_arrive(pool_of_loop, futures, 10, arm))
    assert loop.run_until_complete(results_of(futures)) == list(range(10))


def test_an_interrupt_inside_submit_leaves_no_job(
    loop: InterruptedLoop, pool_of_loop: offgil.Pool
) -> None:
    """submit() raises it, the pool has not taken the job, and works."""

    async def is_interrupted() -> bool:
        for i in range(200):  # until a job is known to be so short that it waits for others
            await pool_of_loop.submit(ex.echo, i)
        futures = [pool_of_loop.submit(ex.echo, 1)]
        await turns()
        before = pool_of_loop.stats().submitted
        loop.interrupts = is_the_pools
        try:
            futures.append(pool_of_loop.submit(ex.echo, 2))
            futures.append(pool_of_loop.submit(ex.echo, 3))
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        finally:
            loop.interrupts = None
        assert pool_of_loop.stats().submitted - before == len(futures) - 1
        futures.append(pool_of_loop.submit(ex.echo, 4))
        assert (await results_of(futures))[-1] == 4
        return interrupted

    async def main() -> None:
        for _ in range(20):  # on a busy machine the jobs may be taken for long ones
            if await is_interrupted():
                return
        pytest.fail("nothing was interrupted")

    loop.run_until_complete(main())


# --------------------------------------------------------------------------------------------------
# nested


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nest_asyncio itself fails there")
def test_a_callback_that_runs_the_loop(flavour: Flavour) -> None:
    """As a modal dialogue does, and here nest_asyncio: results go on to arrive, again and again."""
    check_script(
        """
        import asyncio, sys
        import nest_asyncio
        import offgil
        from offgil import examples as ex

        kind, delivery = sys.argv[1:]
        offgil.Pool._future_kind = kind
        nest_asyncio.apply()
        loop = asyncio.new_event_loop()
        nest_asyncio.apply(loop)
        seen = []

        async def inner(pool, level):
            for i in range(3):
                assert await pool.submit(ex.echo, i) == i
                await pool.submit(ex.spin, 2000 * i)
                if i == 1:
                    run_the_loop(pool, level - 1)

        def run_the_loop(pool, level):
            if level:
                loop.run_until_complete(asyncio.wait_for(inner(pool, level), 20))
                seen.append(level)

        async def main():
            async with offgil.Pool(1, delivery=delivery) as pool:
                await pool.submit(ex.echo, 1)
                run_the_loop(pool, 3)
                first = pool.submit(ex.echo, 1)
                first.add_done_callback(lambda _: run_the_loop(pool, 2))
                await first
                while len(seen) < 5:
                    await pool.submit(ex.echo, 2)

        loop.run_until_complete(asyncio.wait_for(main(), 20))
        loop.close()
        assert seen == [1, 2, 3, 1, 2]
        """,
        flavour.kind,
        flavour.delivery,
    )


def test_where_asyncio_has_been_made_pure_python() -> None:
    """nest_asyncio replaces asyncio's types, mostly before offgil is imported."""
    check_script(
        """
        import asyncio
        asyncio.Future = asyncio.futures.Future = asyncio.futures._PyFuture
        asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask
        if hasattr(asyncio.tasks, "_py_current_task"):  # it must know the same tasks
            asyncio.current_task = asyncio.tasks.current_task = asyncio.tasks._py_current_task
        import offgil
        from offgil import examples as ex

        async def main():
            async with offgil.Pool(1) as pool:
                futures = [pool.submit(ex.echo, i) for i in range(100)]
                assert await asyncio.wait_for(asyncio.gather(*futures), 20) == list(range(100))

        asyncio.run(main())
        """
    )


# --------------------------------------------------------------------------------------------------
# contexts


class Request:
    """Something a context may hold."""


async def test_the_first_submit_leaves_no_context_behind(pool: offgil.Pool) -> None:
    """The loop's watch for results goes on for longer than any request."""
    request: contextvars.ContextVar[Request] = contextvars.ContextVar("request")
    alive: list[weakref.ref[Request]] = []

    async def handle() -> None:
        made = Request()
        alive.append(weakref.ref(made))
        request.set(made)
        await pool.submit(ex.echo, 1)

    for _ in range(3):
        await asyncio.create_task(handle())
    await asyncio.create_task(turns())  # asyncio keeps the last task's context for a while
    gc.collect()
    assert alive[0]() is None


async def test_an_error_is_handled_in_the_context_of_its_callback(
    pool: offgil.Pool, flavour: Flavour, loop_errors: LoopErrors
) -> None:
    """As asyncio's own from Python 3.12 on: a log knows to which request it belongs."""
    if flavour.kind == "plain":
        pytest.skip("asyncio's own")
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    loop = asyncio.get_running_loop()
    seen: list[str] = []
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: seen.append(request.get()))

    def fail(_: object) -> None:
        raise ValueError("a callback's")

    async def handle(number: str) -> None:
        request.set(number)
        await pool.submit(ex.echo, 1)
        future = pool.submit(ex.echo, 1)
        future.add_done_callback(fail)
        await asyncio.wait([future], timeout=LIMIT)
        await turns()

    try:
        await asyncio.create_task(handle("first"))
        await asyncio.create_task(handle("second"))
    finally:
        loop.set_exception_handler(usual)
    selector = isinstance(loop, asyncio.SelectorEventLoop)
    of_asyncio = DEBUG and selector and sys.version_info < (3, 12)
    assert seen == (["none", "none"] if of_asyncio else ["first", "second"])


# --------------------------------------------------------------------------------------------------
# debug mode


async def test_debug_mode_names_the_task_that_was_slow(
    pool: offgil.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """As for any other future; uvloop has its own words."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("uvloop does not tell")

    async def slow() -> None:
        await pool.submit(ex.spin, 1000)
        caplog.clear()
        busy(50_000)

    loop.slow_callback_duration = 0.01
    loop.set_debug(True)
    try:
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            await asyncio.create_task(slow(), name="the slow one")
            await turns()
    finally:
        loop.set_debug(DEBUG)
    assert any("the slow one" in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(DEBUG, reason="everything takes long there")
async def test_results_that_take_long_to_convert(pool: offgil.Pool) -> None:
    """The loop turns between a few of them: the drain looks at the clock before it goes on.

    A thousand were converted first, which kept the loop for a second.
    """
    turns_seen = 0
    seen_by: list[int] = []

    def convert() -> int:
        busy(2_000)  # longer than a drain may take
        seen_by.append(turns_seen)
        return 1

    def turn() -> None:
        nonlocal turns_seen
        turns_seen += 1
        if len(seen_by) < 40:
            loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    slow = made_native(finish=convert)
    futures = [pool.submit(slow) for _ in range(40)]
    block_until(lambda: pool.stats().completed == 40)
    loop.call_soon(turn)
    assert await asyncio.wait_for(asyncio.gather(*futures), LIMIT) == [1] * 40
    assert max(Counter(seen_by).values()) <= 2
