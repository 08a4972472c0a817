"""The executor under an event loop: as its default executor, as AsyncioExecutor, and to_thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import re
import socket
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from executors import Box, Kind, both_sorts, hold
from support import (
    LIMIT,
    Flavour,
    Gate,
    LoopErrors,
    block_until,
    check_script,
    os_threads,
    run_in_new_loop,
    turns,
    until,
)

import offgil
from offgil import examples as ex

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def name_of_thread() -> str:
    return threading.current_thread().name


# --------------------------------------------------------------------------------------------------
# a plain executor as the loop's default


@both_sorts
async def test_run_in_executor(executor: Any, echo: Callable[[int], int]) -> None:
    """Results, exceptions and order, given by hand."""
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(executor, echo, i) for i in range(200)]
    assert await asyncio.wait_for(asyncio.gather(*futures), LIMIT) == [*range(200)]
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, divmod, 1, 0)
    with pytest.raises(ValueError):
        await loop.run_in_executor(executor, ex.fail, "domain_error")


def test_as_the_default_executor(kind: Kind, loop_factory: Callable[[], Any]) -> None:
    """to_thread, run_in_executor(None) and getaddrinfo use it; asyncio.run's end joins it."""
    before = os_threads()
    executor = kind.new(2, "default")

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor)
        assert await asyncio.to_thread(name_of_thread) in ("default_0", "default_1")
        assert await loop.run_in_executor(None, ex.echo, 1) == 1
        infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert infos[0][4] == ("127.0.0.1", 80)
        return [loop.run_in_executor(None, fn, i) for i in range(50) for fn in (ex.echo, abs)]

    run_in_new_loop(main(), loop_factory)
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(abs, 1)
    assert os_threads() == before


async def test_a_cancelled_task(executor: Any, gate: Gate) -> None:
    """A waiting job is withdrawn, a running one goes on; the awaiter is told at once."""
    loop = asyncio.get_running_loop()
    hold(executor, gate, 2)
    ran: list[int] = []
    waiting = asyncio.ensure_future(loop.run_in_executor(executor, ran.append, 1))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    gate.open()
    assert await loop.run_in_executor(executor, ex.echo, 1) == 1
    executor.shutdown()
    assert ran == []


def test_a_loop_that_has_closed(kind: Kind, loop_factory: Callable[[], Any]) -> None:
    """A result for a loop that is gone is dropped: no message, and the executor goes on."""
    gate = Gate()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for fn, args in ((gate, ()), (ex.sleep, (0.05,))):
            loop.run_in_executor(executor, fn, *args)

    with kind.new(2) as executor:
        run_in_new_loop(main(), loop_factory)
        gate.open()
        assert executor.submit(ex.echo, 1).result(LIMIT) == 1
        assert executor.submit(abs, -1).result(LIMIT) == 1


# --------------------------------------------------------------------------------------------------
# AsyncioExecutor and install


async def test_install_makes_it_the_default(only_ours: Kind) -> None:
    """One line: to_thread and run_in_executor(None, ...) of this loop run on our pool."""
    loop = asyncio.get_running_loop()
    executor = offgil.install(workers=2)
    assert isinstance(executor, offgil.AsyncioExecutor)
    assert isinstance(executor, offgil.ThreadPoolExecutor)
    seen = {await asyncio.to_thread(name_of_thread) for _ in range(20)}
    own = {await asyncio.wrap_future(executor.submit(name_of_thread)) for _ in range(20)}
    assert seen | own <= {f"{executor._thread_name_prefix}_{n}" for n in range(2)}
    assert executor._max_workers == 2
    assert await loop.run_in_executor(None, ex.echo, 5) == 5
    infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert infos[0][4] == ("127.0.0.1", 80)
    assert executor.stats().submitted >= 41  # uvloop looks up names by itself


async def test_install_on_a_given_loop(only_ours: Kind, loop_factory: Callable[[], Any]) -> None:
    """Before it runs; a loop that is not running and not given is an error."""
    loop = loop_factory()
    try:
        executor = offgil.install(loop, workers=1)

        async def main() -> str:
            return await asyncio.to_thread(name_of_thread)

        def run() -> str:
            name: str = loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
            return name

        with concurrent.futures.ThreadPoolExecutor(1) as other:
            name = await asyncio.wrap_future(other.submit(run))
        assert name == f"{executor._thread_name_prefix}_0"
    finally:
        loop.close()


def test_install_binds_to_its_loop_whoever_comes_first(
    only_ours: Kind, loop_factory: Callable[[], Any]
) -> None:
    """Another loop's thread may be the first to submit: it got futures of its own loop for ever."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        executor = offgil.install(loop, workers=1)

        def run_elsewhere() -> concurrent.futures.Future[int]:
            async def submit() -> concurrent.futures.Future[int]:
                return executor.submit(ex.echo, 1)

            return run_in_new_loop(submit())  # type: ignore[no-any-return]

        with concurrent.futures.ThreadPoolExecutor(1) as other:
            foreign = await asyncio.wrap_future(other.submit(run_elsewhere))
        assert not asyncio.isfuture(foreign)
        assert await asyncio.wait_for(asyncio.wrap_future(foreign), LIMIT) == 1
        own: Any = executor.submit(ex.echo, 2)
        assert asyncio.isfuture(own) and own.get_loop() is loop
        assert await own == 2

    run_in_new_loop(main(), loop_factory)


def test_install_without_a_loop(only_ours: Kind) -> None:
    """RuntimeError outside a running loop; nothing is started."""
    before = os_threads()
    with pytest.raises(RuntimeError, match="loop"):
        offgil.install()
    assert os_threads() == before


def test_bad_arguments(only_ours: Kind) -> None:
    """Errors that name the argument; nothing is started."""
    before = os_threads()
    for workers in ("two", True, 0):
        with pytest.raises((TypeError, ValueError), match="pool_or_workers"):
            offgil.AsyncioExecutor(workers)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match="workers"):
            offgil.install(workers=workers)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loop"):
        offgil.install("loop")  # type: ignore[arg-type]
    assert os_threads() == before


async def test_submit_gives_each_thread_its_future(only_ours: Kind) -> None:
    """On the loop's thread an asyncio future that wrap_future passes on; elsewhere a concurrent."""
    executor = offgil.install(workers=2)
    for fn, arg in ((ex.echo, 1), (abs, -1)):
        future: Any = executor.submit(fn, arg)
        assert asyncio.isfuture(future)
        assert asyncio.wrap_future(future) is future
        assert await future == 1

        def elsewhere(fn: Any = fn, arg: Any = arg) -> Any:
            concurrent_future = executor.submit(fn, arg)
            assert isinstance(concurrent_future, concurrent.futures.Future)
            assert not asyncio.isfuture(concurrent_future)
            return concurrent_future.result(LIMIT)

        with concurrent.futures.ThreadPoolExecutor(1) as other:
            assert await asyncio.wrap_future(other.submit(elsewhere)) == 1


async def test_contextvars(only_ours: Kind) -> None:
    """to_thread carries the caller's context, run_in_executor does not, as on any executor."""
    offgil.install(workers=1)
    loop = asyncio.get_running_loop()
    variable.set("mine")
    assert await asyncio.to_thread(variable.get) == "mine"
    assert await loop.run_in_executor(None, variable.get) == "unset"
    assert await offgil.to_thread(variable.get) == "mine"


async def test_contextvars_on_the_standard_executor() -> None:
    """What the test above expects of run_in_executor is what the standard library does."""
    variable.set("mine")
    assert await asyncio.to_thread(variable.get) == "mine"
    assert await asyncio.get_running_loop().run_in_executor(None, variable.get) == "unset"


async def test_cancelling_to_thread(only_ours: Kind, gate: Gate) -> None:
    """The awaiter is told at once; a job that waits never runs, one that runs goes on."""
    executor = offgil.install(workers=1)
    ended: list[str] = []
    running = asyncio.create_task(asyncio.to_thread(lambda: ended.append(gate())))
    await until(lambda: executor.stats().running == 1)
    waiting = asyncio.create_task(asyncio.to_thread(ended.append, "waiting"))
    await turns()
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.open()
    assert await asyncio.to_thread(ex.echo, 1) == 1
    assert ended == ["through the gate"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.to_thread(time.sleep, 0.1)


async def test_exceptions_through_to_thread(only_ours: Kind) -> None:
    """The job's own, without notes; StopIteration as RuntimeError; nobody's is reported."""
    offgil.install(workers=1)
    error = KeyError("mine")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        await asyncio.to_thread(fail)
    assert caught.value is error and not getattr(error, "__notes__", [])
    with pytest.raises(RuntimeError) as stopped:
        await asyncio.to_thread(next, iter(()))
    assert isinstance(stopped.value.__cause__, StopIteration)
    with pytest.raises(SystemExit):
        await asyncio.to_thread(partial(exit_with, 3))
    error.__traceback__ = None


def exit_with(code: int) -> None:
    raise SystemExit(code)


async def test_an_exception_that_nobody_retrieves(only_ours: Kind, loop_errors: LoopErrors) -> None:
    """It is reported to the loop's exception handler, as of any asyncio future."""
    offgil.install(workers=1)
    loop = asyncio.get_running_loop()
    future: Any = loop.run_in_executor(None, divmod, 1, 0)
    await asyncio.wait([future])
    del future
    gc.collect()
    (context,) = loop_errors.take()
    assert context["message"] == "Future exception was never retrieved"


@pytest.mark.parametrize("door", ["run_in_executor", "to_thread", "offgil.to_thread", "submit"])
@pytest.mark.parametrize("name", ["CancelledError", "InvalidStateError"])
async def test_exceptions_that_asyncio_has_its_own_of(
    kind: Kind, door: str, name: str, flavour: Flavour
) -> None:
    """A job raises one of concurrent.futures: the task gets asyncio's, as asyncio makes of it.

    An `except asyncio.CancelledError` caught it no longer.
    """
    raised: type[Exception] = getattr(concurrent.futures, name)

    class Derived(raised):  # type: ignore[misc,valid-type]
        pass

    def fail(error: BaseException) -> None:
        raise error

    loop = asyncio.get_running_loop()
    if kind.ours:
        offgil.install(workers=1)
    pool = flavour.new_pool(1)

    async def by_door(error: BaseException) -> Any:
        if door == "run_in_executor":
            return await loop.run_in_executor(None, fail, error)
        if door == "to_thread" or not kind.ours:
            return await asyncio.to_thread(fail, error)
        if door == "submit":
            return await pool.submit(fail, error)
        return await offgil.to_thread(fail, error)

    with pytest.raises(getattr(asyncio, name)) as caught:
        await by_door(raised("because", 1))
    assert caught.value.args == ("because", 1)
    if kind.ours:
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"
    with pytest.raises(Derived):
        await by_door(Derived())
    await pool.aclose()


def test_threads_are_called_as_those_of_the_loop(
    only_ours: Kind, loop_factory: Callable[[], Any]
) -> None:
    """Dashboards and log filters go by asyncio's prefix, or uvloop's."""

    async def main(install: bool) -> str:
        if install:
            offgil.install(workers=2)
        return await asyncio.to_thread(name_of_thread)

    prefix = run_in_new_loop(main(False), loop_factory).rpartition("_")[0]
    assert prefix in ("asyncio", "uvloop")
    assert re.fullmatch(f"{prefix}_[01]", run_in_new_loop(main(True), loop_factory))


def test_several_loops_each_with_its_own(
    only_ours: Kind,
    loop_factory: Callable[[], Any],
    in_thread: Callable[..., threading.Thread],
) -> None:
    """Four loops at once, each on its own executor, end without disturbing each other."""
    before = os_threads()
    executors: list[Any] = []
    together = threading.Barrier(4)

    async def main(me: int) -> None:
        executor = offgil.install(workers=2)
        prefix = executor._thread_name_prefix
        executors.append(executor)
        together.wait(LIMIT)
        for i in range(me * 20):
            name = await asyncio.to_thread(name_of_thread)
            assert name.rpartition("_")[0] == prefix
            assert await asyncio.to_thread(ex.echo, i) == i

    def run(me: int) -> None:
        run_in_new_loop(main(me), loop_factory)

    threads = [in_thread(run, me) for me in range(4)]
    for thread in threads:
        thread.join(LIMIT)
    block_until(lambda: os_threads() == before)
    assert sorted(each.stats().submitted for each in executors) == [0, 40, 80, 120]


def test_it_ends_with_the_loop(only_ours: Kind, loop_factory: Callable[[], Any]) -> None:
    """asyncio.run's end waits for its jobs and its threads, and leaves nothing behind."""
    before = os_threads()
    refs: list[weakref.ref[Any]] = []
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        executor = offgil.install(workers=2)
        box = Box()
        box.executor = executor  # type: ignore[attr-defined]
        refs.extend([weakref.ref(loop), weakref.ref(executor), weakref.ref(box)])
        for i in range(50):
            loop.run_in_executor(None, ran.append, i)
            loop.run_in_executor(None, ex.spin, 50)
        loop.run_in_executor(None, lambda _: time.sleep(0.02), box)

    for _ in range(3):
        run_in_new_loop(main(), loop_factory)
        assert os_threads() == before
    assert len(ran) == 150
    block_until(lambda: gc.collect() is not None and not any(ref() for ref in refs))


async def test_after_its_shutdown(only_ours: Kind) -> None:
    """submit is refused with the standard text, on the loop's thread and elsewhere."""
    executor = offgil.AsyncioExecutor(1)
    assert await asyncio.wrap_future(executor.submit(abs, -1)) == 1
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    text = r"^cannot schedule new futures after shutdown$"
    with pytest.raises(RuntimeError, match=text):
        executor.submit(abs, -1)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        with pytest.raises(RuntimeError, match=text):
            await asyncio.wrap_future(other.submit(executor.submit, abs, -1))


async def test_a_shutdown_that_cancels(only_ours: Kind, gate: Gate) -> None:
    """What waits is cancelled, in whichever kind of future; what runs ends."""
    executor = offgil.AsyncioExecutor(1)
    running: Any = executor.submit(gate)
    await until(lambda: executor.stats().running == 1)
    waiting: list[Any] = [executor.submit(fn, 1) for fn in (ex.echo, abs)]
    executor.shutdown(wait=False, cancel_futures=True)
    for future in waiting:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(future, LIMIT)
    gate.open()
    assert await asyncio.wait_for(running, LIMIT) == "through the gate"


async def test_map_on_the_loops_thread(only_ours: Kind) -> None:
    """Its results are waited for by blocking: it must not wait for futures of this very loop."""
    executor = offgil.AsyncioExecutor(2)
    try:
        assert list(executor.map(ex.echo, range(20), timeout=LIMIT)) == [*range(20)]
        assert list(executor.map(abs, range(20), timeout=LIMIT)) == [*range(20)]
    finally:
        executor.shutdown()


async def test_on_a_pool(pool: offgil.Pool, only_ours: Kind) -> None:
    """AsyncioExecutor(pool) runs on the pool's workers; its shutdown ends only itself."""
    executor = offgil.AsyncioExecutor(pool)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    submitted = pool.stats().submitted
    assert await asyncio.to_thread(ex.echo, 1) == 1
    assert await loop.run_in_executor(None, abs, -2) == 2
    assert pool.stats().submitted == submitted + 2
    await asyncio.wait_for(loop.shutdown_default_executor(), LIMIT)
    assert await pool.submit(ex.echo, 3) == 3


def test_debug_mode(only_ours: Kind) -> None:
    """PYTHONASYNCIODEBUG changes nothing, and nothing is printed."""
    code = """
        import asyncio, offgil, offgil.examples as ex

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60
            offgil.install(workers=2)
            print(sum(await asyncio.gather(*(asyncio.to_thread(abs, -i) for i in range(100)))))
            print(sum(await asyncio.gather(*(asyncio.to_thread(ex.echo, i) for i in range(100)))))
            print(await offgil.to_thread(ex.echo, 7))
            task = asyncio.create_task(asyncio.to_thread(ex.sleep, 0.05))
            await asyncio.sleep(0.01)
            task.cancel()

        asyncio.run(main())
    """
    assert check_script(code, PYTHONASYNCIODEBUG="1") == "4950\n4950\n7\n"


# --------------------------------------------------------------------------------------------------
# offgil.to_thread


async def test_to_thread(only_ours: Kind) -> None:
    """As asyncio's: arguments, exceptions, context; native functions too."""
    assert await offgil.to_thread(dict, [("a", 1)], b=2) == {"a": 1, "b": 2}
    assert await offgil.to_thread(ex.echo, 5) == 5
    ident = await offgil.to_thread(threading.get_ident)
    assert ident != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await offgil.to_thread(divmod, 1, 0)
    results = await asyncio.gather(*(offgil.to_thread(ex.echo, i) for i in range(200)))
    assert results == [*range(200)]


def test_to_thread_in_several_loops(
    only_ours: Kind,
    loop_factory: Callable[[], Any],
    in_thread: Callable[..., threading.Thread],
) -> None:
    """One pool for the process: no more threads come with more loops, or with loops that end."""
    before = os_threads()
    most = min(32, (os.cpu_count() or 1) + 4) + 1  # asyncio's own number, and one for time

    async def main() -> None:
        for i in range(20):
            assert await offgil.to_thread(ex.echo, i) == i
            assert await offgil.to_thread(abs, -i) == i

    for _ in range(5):
        run_in_new_loop(main(), loop_factory)
        assert os_threads() - before <= most
    for _ in range(5):
        for thread in [in_thread(run_in_new_loop, main(), loop_factory) for _ in range(3)]:
            thread.join(LIMIT)
    block_until(lambda: os_threads() - before <= most)


def test_to_thread_at_exit(only_ours: Kind) -> None:
    """The process-wide pool finishes its jobs at the interpreter's exit, and says nothing."""
    code = """
        import asyncio, os, time, offgil, offgil.examples as ex

        def x():
            time.sleep(0.02)
            os.write(1, b"x")

        async def main():
            assert await offgil.to_thread(ex.echo, 1) == 1
            tasks = [asyncio.create_task(offgil.to_thread(x)) for _ in range(5)]
            await asyncio.sleep(0)

        asyncio.run(main())
    """
    out = check_script(code)
    assert set(out) <= {"x"} and len(out) <= 5


def test_to_thread_begins_in_several_threads(only_ours: Kind) -> None:
    """At once, in a process that has not used it: still one pool."""
    code = """
    import threading
    from offgil import _to_thread

    for _ in range(50):
        _to_thread._forget_pool()
        together = threading.Barrier(4)
        made = []

        def begin():
            together.wait()
            made.append(_to_thread._shared_pool())

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 4 and len({id(pool) for pool in made}) == 1
    """
    check_script(code)


# --------------------------------------------------------------------------------------------------
# native functions inside of partials, as asyncio.to_thread makes them


async def test_to_thread_runs_a_native_function_as_one() -> None:
    """Without the GIL: it sees no context, so that nobody can tell."""
    executor = offgil.install(workers=2)
    before = executor.stats()
    jobs = (asyncio.to_thread(ex.echo, i) for i in range(200))
    assert await asyncio.wait_for(asyncio.gather(*jobs), LIMIT) == [*range(200)]
    with pytest.raises(ValueError):
        await asyncio.to_thread(ex.fail, "domain_error")
    with pytest.raises(TypeError, match="echo"):
        await asyncio.to_thread(ex.echo, "x")
    after = executor.stats()
    assert after.completed - before.completed == 200
    assert after.gil_acquisitions == before.gil_acquisitions


async def test_partials_of_native_functions(only_ours: Kind) -> None:
    """Arguments of the partial, of the call, by name: the result is always that of the call."""
    loop = asyncio.get_running_loop()
    with only_ours.new(1) as executor:
        assert await loop.run_in_executor(executor, partial(ex.echo, 1)) == 1
        assert await loop.run_in_executor(executor, partial(ex.echo), 2) == 2
        assert await loop.run_in_executor(executor, partial(ex.echo, x=3)) == 3
        assert await loop.run_in_executor(executor, partial(partial(ex.echo, 4))) == 4
        context = contextvars.copy_context()
        assert await loop.run_in_executor(executor, partial(context.run, ex.echo, 5)) == 5
        assert await loop.run_in_executor(executor, partial(context.run, ex.echo, x=6)) == 6
        with pytest.raises(TypeError):
            await loop.run_in_executor(executor, partial(context.run))


async def test_python_callables_that_release_the_gil_overlap() -> None:
    """However short: each worker does its share, once it is found out that they do."""
    executor = offgil.install(workers=2)
    loop = asyncio.get_running_loop()

    def job() -> None:
        ex.spin(100)

    async def client() -> None:
        for _ in range(20):
            await loop.run_in_executor(None, job)

    await client()  # there are no workers before the first job
    for _ in range(30):
        before = executor.stats().worker_busy_seconds
        await asyncio.wait_for(asyncio.gather(*(client() for _ in range(20))), LIMIT)
        after = executor.stats().worker_busy_seconds
        busy = [b - a for a, b in zip(before, after, strict=True)]
        if min(busy) > max(busy) / 3:
            return
    pytest.fail(f"one worker does it alone: {busy}")
