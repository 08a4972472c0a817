"""The future that `submit` returns is an asyncio.Future to everything that asyncio does with one.

Each test runs with the future that resumes its awaiter inside the drain and with the plain
asyncio.Future, which is the oracle: what holds for one holds for the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support import (
    DEBUG,
    LIMIT,
    Flavour,
    Gate,
    LoopErrors,
    block_until,
    check_balance,
    run_in_new_loop,
    turns,
    until,
)

import offgil
from offgil import examples as ex


class Box:
    """Something a weak reference can point to."""

    def itself(self) -> Box:
        return self


def finish(pool: offgil.Pool) -> None:
    """Block the loop until the workers have done everything: what follows is one batch."""
    block_until(lambda: pool.pending == 0 and pool.running == 0)


def note(log: list[Any], what: Any, _: asyncio.Future[Any]) -> None:
    """As a callback, by way of partial: write down that it was called."""
    log.append(what)


def callbacks(future: asyncio.Future[Any]) -> list[Any]:
    """Return the callbacks that the future shows."""
    return list(future._callbacks or ())


# --------------------------------------------------------------------------------------------------
# identity and state


async def test_it_is_an_asyncio_future(pool: offgil.Pool) -> None:
    """asyncio takes it for its own, and it ends with the job's result."""
    future = pool.submit(ex.echo, 7)
    assert isinstance(future, asyncio.Future)
    assert asyncio.isfuture(future)
    assert asyncio.ensure_future(future) is future
    assert inspect.isawaitable(future)
    assert not asyncio.iscoroutine(future), "asyncio.wait and others treat coroutines differently"
    assert future.get_loop() is asyncio.get_running_loop()
    assert await future == 7
    assert future.done() and not future.cancelled()
    assert future.result() == 7 and future.exception() is None
    assert await future == 7, "a second await gives the result again"


async def test_asking_too_early_raises_invalid_state(pool: offgil.Pool, gate: Gate) -> None:
    """A pending future has neither a result nor an exception."""
    future = pool.submit(gate)
    assert not future.done() and not future.cancelled()
    with pytest.raises(asyncio.InvalidStateError):
        future.result()
    with pytest.raises(asyncio.InvalidStateError):
        future.exception()
    gate.open()
    await future


async def test_its_state_changes_only_when_the_loop_turns(pool: offgil.Pool) -> None:
    """A job that ends while the loop's thread is busy leaves its future pending."""
    future = pool.submit(ex.echo, 1)
    finish(pool)
    assert not future.done()
    assert await future == 1


async def test_a_failed_job_raises_in_its_awaiter(pool: offgil.Pool) -> None:
    """The exception is raised by await and by result(), and told by exception()."""
    future = pool.submit(ex.fail, "invalid_argument")
    with pytest.raises(ValueError):
        await future
    with pytest.raises(ValueError):
        future.result()
    assert isinstance(future.exception(), ValueError)


async def test_the_whole_batch_is_done_before_its_first_callback(
    make_pool: Callable[..., offgil.Pool],
) -> None:
    """A callback sees every future of its batch done."""
    pool = make_pool(1)
    futures = [pool.submit(ex.echo, i) for i in range(50)]
    seen: list[int] = []
    for future in futures:
        future.add_done_callback(lambda _: seen.append(sum(f.done() for f in futures)))
    finish(pool)
    await asyncio.wait(futures)
    await turns()
    assert seen == [50] * 50


async def test_attributes_stay_with_their_future(pool: offgil.Pool) -> None:
    """An attribute set on one future is not seen on the next."""
    for i in range(10):
        future: Any = pool.submit(ex.echo, i)
        assert not hasattr(future, "mark")
        future.mark = i
        assert await future == future.mark
        del future


async def test_its_type_cannot_be_misused(pool: offgil.Pool) -> None:
    """Making one without a pool raises, or gives a future that works: never a crash."""
    loop = asyncio.get_running_loop()
    future_type = type(pool.submit(ex.echo, 1))
    for options in ({}, {"loop": loop}):
        try:
            made = future_type(**options)
        except TypeError:
            continue
        made.add_done_callback(lambda _: None)
        repr(made)
        made.set_result(3)
        assert await made == 3


# --------------------------------------------------------------------------------------------------
# asyncio's combinators


async def test_gather_keeps_the_order(pool: offgil.Pool) -> None:
    """gather returns the results in the order of its arguments."""
    assert await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(2000))) == list(
        range(2000)
    )


async def test_gather_raises_the_first_exception_and_lets_the_rest_run(pool: offgil.Pool) -> None:
    """One failed job fails the gather; the others still get their results."""
    futures: list[Any] = [pool.submit(ex.echo, i) for i in range(10)]
    futures.insert(5, pool.submit(ex.fail, "out_of_range"))
    with pytest.raises(IndexError):
        await asyncio.gather(*futures)
    await asyncio.wait(futures)
    assert [f.result() for f in futures if f.exception() is None] == list(range(10))


async def test_gather_returns_exceptions_when_told(pool: offgil.Pool) -> None:
    """With return_exceptions results and exceptions come back side by side."""
    got = await asyncio.gather(
        *(
            pool.submit(ex.fail, "overflow_error") if i % 3 == 0 else pool.submit(ex.echo, i)
            for i in range(30)
        ),
        return_exceptions=True,
    )
    for i, value in enumerate(got):
        assert isinstance(value, OverflowError) if i % 3 == 0 else value == i


async def test_cancelling_a_gather_cancels_its_jobs(pool: offgil.Pool, gate: Gate) -> None:
    """Queued jobs of a cancelled gather never run."""
    held = await gate.occupy(pool)
    ran: list[int] = []
    futures = [pool.submit(ran.append, i) for i in range(5)]
    gathered = asyncio.gather(*futures)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    assert all(f.cancelled() for f in futures)
    gate.open()
    await asyncio.gather(*held)
    await pool.drain()
    assert ran == []


async def test_wait_first_completed(pool: offgil.Pool, gate: Gate) -> None:
    """FIRST_COMPLETED returns while another job still runs."""
    (held,) = await gate.occupy(pool, 1)
    quick = pool.submit(ex.echo, 1)
    done, pending = await asyncio.wait([held, quick], return_when=asyncio.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {held})
    gate.open()
    assert await held == "through the gate"


async def test_wait_first_exception(pool: offgil.Pool, gate: Gate) -> None:
    """FIRST_EXCEPTION passes over results and returns at the first failure."""
    (held,) = await gate.occupy(pool, 1)
    quick, failing = pool.submit(ex.echo, 1), pool.submit(ex.fail, "runtime_error")
    done, pending = await asyncio.wait([held, quick, failing], return_when=asyncio.FIRST_EXCEPTION)
    assert failing in done and pending == {held}
    assert isinstance(failing.exception(), RuntimeError)
    gate.open()
    await held


async def test_wait_all_completed(pool: offgil.Pool) -> None:
    """ALL_COMPLETED returns every future, failed ones too."""
    futures: set[Any] = {pool.submit(ex.echo, 1), pool.submit(ex.fail, "bad_alloc")}
    done, pending = await asyncio.wait(futures)
    assert (done, pending) == (futures, set())
    assert {type(f.exception()) for f in done} == {type(None), MemoryError}


async def test_wait_that_times_out_takes_its_callback_back(pool: offgil.Pool, gate: Gate) -> None:
    """A wait that timed out leaves the future as it found it."""
    future = pool.submit(gate)
    before = callbacks(future)
    done, pending = await asyncio.wait([future], timeout=0.001)
    assert (done, pending) == (set(), {future})
    assert callbacks(future) == before
    gate.open()
    assert (await asyncio.wait([future]))[0] == {future}


async def test_shield_keeps_the_job(pool: offgil.Pool, gate: Gate) -> None:
    """Cancelling the shield does not cancel the future behind it."""
    (held,) = await gate.occupy(pool, 1)
    shield = asyncio.shield(held)
    shield.cancel()
    with pytest.raises(asyncio.CancelledError):
        await shield
    assert not held.cancelled()
    gate.open()
    assert await held == "through the gate"
    assert await asyncio.shield(pool.submit(ex.echo, 4)) == 4


async def test_wait_for_gives_up_and_cancels(pool: offgil.Pool, gate: Gate) -> None:
    """wait_for raises TimeoutError for a running job, and for a queued one, which never runs."""
    ran: list[int] = []
    held = await gate.occupy(pool, 1)
    running = pool.submit(gate)
    await until(lambda: pool.running == 2)
    queued = pool.submit(ran.append, 1)
    for future in (running, queued):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.001)
        assert future.cancelled()
    gate.open()
    await asyncio.gather(*held)
    await pool.drain()
    assert ran == []
    assert await asyncio.wait_for(pool.submit(ex.echo, 2), LIMIT) == 2


async def test_timeout_block_cancels_the_await(pool: offgil.Pool, gate: Gate) -> None:
    """asyncio.timeout turns the cancelled await into TimeoutError."""
    future = pool.submit(gate)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await future
    assert future.cancelled()
    async with asyncio.timeout(LIMIT):
        assert await pool.submit(ex.echo, 1) == 1
    gate.open()


async def test_task_group_with_a_failing_sibling(pool: offgil.Pool, gate: Gate) -> None:
    """A failing task cancels its siblings' jobs: running ones are abandoned, queued never run."""
    await gate.occupy(pool, 1)
    ran: list[int] = []
    ends: list[str] = []

    async def wait_for(name: str, *job: Any) -> None:
        try:
            await pool.submit(*job)
        except asyncio.CancelledError:
            ends.append(name)
            raise

    async def fail() -> None:
        await until(lambda: pool.running == 2)
        raise LookupError("the sibling")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for("running", gate))
            group.create_task(wait_for("queued", ran.append, 1))
            group.create_task(fail())
    assert raised.group_contains(LookupError)
    assert sorted(ends) == ["queued", "running"]
    gate.open()
    await pool.drain()
    assert ran == []


async def test_task_group_collects_a_failing_job(pool: offgil.Pool) -> None:
    """A job's exception leaves the group inside its ExceptionGroup."""

    async def job(kind: str) -> None:
        await pool.submit(ex.fail, kind)

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(job("domain_error"))
    assert raised.group_contains(ValueError)


async def test_as_completed_yields_each_once(pool: offgil.Pool) -> None:
    """Every result comes exactly once."""
    got = [await f for f in asyncio.as_completed([pool.submit(ex.echo, i) for i in range(200)])]
    assert sorted(got) == list(range(200))


async def test_as_completed_yields_the_futures_themselves(pool: offgil.Pool) -> None:
    """From 3.13 on, iterating asynchronously gives back the futures that were passed in."""
    if sys.version_info < (3, 13):
        pytest.skip("as_completed is not an asynchronous iterator here")
    futures = {pool.submit(ex.echo, i) for i in range(50)}
    seen = set()
    async for future in asyncio.as_completed(futures):
        assert future.done()
        seen.add(future)
    assert seen == futures


# --------------------------------------------------------------------------------------------------
# cancel


async def test_a_cancelled_queued_job_never_runs(
    pool: offgil.Pool, gate: Gate, flavour: Flavour
) -> None:
    """cancel() withdraws a waiting job, hands its message on and is counted."""
    held = await gate.occupy(pool)
    ran: list[str] = []
    future = pool.submit(ran.append, "cancelled")
    native = pool.submit(ex.sleep, LIMIT)
    after = pool.submit(ran.append, "after")
    assert future.cancel("why") and future.cancelled() and future.done()
    assert native.cancel()
    assert not future.cancel(), "cancelling twice changes nothing"
    with pytest.raises(asyncio.CancelledError) as raised:
        await future
    assert raised.value.args == ("why",)
    if flavour.kind == "plain":
        await turns(2)  # a plain future tells its pool through a callback
    gate.open()
    await asyncio.gather(*held, after)
    assert ran == ["after"]
    assert check_balance(pool).cancelled == 2


async def test_a_cancelled_queued_job_lets_go_of_its_arguments_at_once(
    pool: offgil.Pool, gate: Gate, flavour: Flavour
) -> None:
    """Function and arguments die in cancel() itself, on a plain future within two turns."""
    held = await gate.occupy(pool)

    def job(*_: Any, **__: Any) -> None: ...

    box, named = Box(), Box()
    future = pool.submit(job, box, named=named)
    refs = [weakref.ref(thing) for thing in (job, box, named)]
    del job, box, named
    assert all(ref() is not None for ref in refs)
    future.cancel()
    if flavour.kind == "plain":
        await turns(2)
    assert [ref() for ref in refs] == [None] * 3
    gate.open()
    await asyncio.gather(*held)


async def test_a_cancelled_running_job_is_abandoned(pool: offgil.Pool, gate: Gate) -> None:
    """The awaiter is free at once, the callbacks run once, and the late result is ignored."""
    future = pool.submit(gate)
    await until(lambda: pool.running == 1)
    seen: list[bool] = []
    future.add_done_callback(lambda f: seen.append(f.cancelled()))
    assert future.cancel() and not future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(future, LIMIT)
    await turns()
    assert seen == [True]
    assert pool.running == 1, "the job itself goes on"
    gate.open()
    await pool.drain()
    assert future.cancelled() and seen == [True]
    check_balance(pool)


async def test_a_cancelled_task_takes_its_job_with_it(pool: offgil.Pool, gate: Gate) -> None:
    """Cancelling a task that awaits a queued job withdraws the job."""
    held = await gate.occupy(pool)
    ran: list[int] = []

    async def wait() -> None:
        await pool.submit(ran.append, 1)

    task = asyncio.create_task(wait())
    await turns()
    task.cancel("task")
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    await asyncio.gather(*held)
    await pool.drain()
    assert ran == []


async def test_a_cancelled_job_that_fails_later_says_nothing(pool: offgil.Pool, gate: Gate) -> None:
    """The exception of an abandoned job reaches nobody, not even the loop's handler."""

    def fail() -> None:
        gate()
        raise ValueError("too late")

    future = pool.submit(fail)
    await until(lambda: pool.running == 1)
    future.cancel()
    gate.open()
    await pool.drain()
    await turns()
    assert future.cancelled()


async def test_a_finished_job_cannot_be_cancelled(pool: offgil.Pool) -> None:
    """cancel() on a done future returns False and changes nothing."""
    future = pool.submit(ex.echo, 1)
    await future
    assert not future.cancel() and future.result() == 1


async def test_cancel_between_a_job_and_its_delivery(pool: offgil.Pool) -> None:
    """A job that has ended but was not delivered can still be cancelled; its result is dropped."""
    future = pool.submit(ex.echo, 1)
    finish(pool)
    assert future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    await pool.drain()
    assert future.cancelled()


async def test_cancel_between_the_two_passes(
    make_pool: Callable[..., offgil.Pool], gate: Gate
) -> None:
    """A task cancelled by a task that woke before it, in the same batch, sees CancelledError."""
    pool = make_pool(1)
    await gate.occupy(pool)
    first, second = pool.submit(ex.echo, 1), pool.submit(ex.echo, 2)
    seen: list[str] = []

    async def cancelled() -> None:
        try:
            await second
            seen.append("result")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def cancels() -> None:
        await first
        victim.cancel()

    killer, victim = asyncio.create_task(cancels()), asyncio.create_task(cancelled())
    await turns()
    gate.open()
    finish(pool)
    await killer
    with pytest.raises(asyncio.CancelledError):
        await victim
    assert seen == ["cancelled"]


# --------------------------------------------------------------------------------------------------
# awaiters and callbacks


async def test_every_awaiter_gets_the_result_in_order(pool: offgil.Pool, gate: Gate) -> None:
    """Tasks that await the same future wake in the order in which they began to wait."""
    future = pool.submit(gate)
    log: list[int] = []

    async def wait(i: int) -> Any:
        result = await future
        log.append(i)
        return result

    tasks = [asyncio.create_task(wait(i)) for i in range(5)]
    await turns()
    gate.open()
    assert await asyncio.gather(*tasks) == ["through the gate"] * 5
    assert log == list(range(5))


@pytest.mark.parametrize("task_at", [0, 1, 2, 3])
async def test_callbacks_run_in_the_order_they_were_added(
    pool: offgil.Pool, gate: Gate, task_at: int
) -> None:
    """A task's wake-up takes its place among the callbacks, first, in the middle or last."""
    future = pool.submit(gate)
    log: list[Any] = []

    async def wait() -> None:
        await future
        log.append("task")

    expected: list[Any] = []
    for i in range(4):
        if i == task_at:
            task = asyncio.create_task(wait())
            await turns()
            expected.append("task")
        else:
            future.add_done_callback(partial(note, log, i))
            expected.append(i)
    gate.open()
    await task
    await turns()
    assert log == expected


async def test_tasks_wake_in_the_order_of_completion(
    make_pool: Callable[..., offgil.Pool], gate: Gate
) -> None:
    """The first job to end wakes its task first."""
    pool = make_pool(1)
    await gate.occupy(pool)
    futures = [pool.submit(ex.echo, i) for i in range(100)]
    log: list[int] = []

    async def wait(i: int) -> None:
        log.append(await futures[i])

    tasks = [asyncio.create_task(wait(i)) for i in reversed(range(100))]
    await turns()
    gate.open()
    await asyncio.gather(*tasks)
    assert log == list(range(100))


async def test_a_callback_added_between_the_passes_comes_last(
    make_pool: Callable[..., offgil.Pool],
) -> None:
    """A callback that is added while its batch is delivered runs after those added before."""
    pool = make_pool(1)
    first, second = pool.submit(ex.echo, 1), pool.submit(ex.echo, 2)
    log: list[str] = []

    def on_first(_: Any) -> None:
        log.append("first")
        assert second.done()
        second.add_done_callback(lambda _: log.append("late"))

    first.add_done_callback(on_first)
    second.add_done_callback(lambda _: log.append("second"))
    finish(pool)
    await until(lambda: len(log) == 3)
    assert log == ["first", "second", "late"]


async def test_a_callback_added_to_a_done_future_runs_in_the_next_turn(pool: offgil.Pool) -> None:
    """It is never called from inside add_done_callback."""
    future = pool.submit(ex.echo, 1)
    await future
    log: list[Any] = []
    future.add_done_callback(log.append)
    assert log == []
    await turns()
    assert log == [future]


async def test_a_callback_is_given_its_own_future(pool: offgil.Pool) -> None:
    """Every callback, the first and the later ones, gets the very future that submit returned."""
    future = pool.submit(ex.echo, 1)
    log: list[Any] = []
    for _ in range(3):
        future.add_done_callback(log.append)
    await until(lambda: len(log) == 3)
    assert all(f is future for f in log)


async def test_a_removed_callback_does_not_run(pool: offgil.Pool, gate: Gate) -> None:
    """remove_done_callback counts what it removed, the first callback and later ones alike."""
    future = pool.submit(gate)
    log: list[str] = []

    def removed(_: Any) -> None:
        log.append("removed")

    assert future.remove_done_callback(removed) == 0
    future.add_done_callback(removed)
    assert future.remove_done_callback(removed) == 1
    assert future.remove_done_callback(removed) == 0
    future.add_done_callback(removed)
    future.add_done_callback(lambda _: log.append("kept"))
    future.add_done_callback(removed)
    assert future.remove_done_callback(removed) == 2
    gate.open()
    await future
    await turns()
    assert log == ["kept"]


async def test_removing_compares_by_equality(pool: offgil.Pool, gate: Gate) -> None:
    """A bound method is removed by an equal one, as on a plain future."""
    future = pool.submit(gate)
    log: list[Any] = []
    future.add_done_callback(log.append)
    assert future.remove_done_callback(log.append) == 1
    gate.open()
    await future
    await turns()
    assert log == []


async def test_removing_survives_a_hostile_equality(pool: offgil.Pool, gate: Gate) -> None:
    """An __eq__ that raises is passed on, and one that removes again does no harm."""
    future = pool.submit(gate)

    class Hostile:
        depth = 0

        def __call__(self, _: Any) -> None: ...

        def __eq__(self, other: object) -> bool:
            if Hostile.depth == 0:
                Hostile.depth += 1
                future.remove_done_callback(self)
            return True

        __hash__ = None  # type: ignore[assignment]

    class Raises(Hostile):
        def __eq__(self, other: object) -> bool:
            raise LookupError

        __hash__ = None

    future.add_done_callback(Raises())
    with pytest.raises(LookupError):
        future.remove_done_callback(Raises())
    future = pool.submit(gate)
    for _ in range(3):
        future.add_done_callback(Hostile())
    future.remove_done_callback(Hostile())
    gate.open()
    await future


async def test_a_removed_callback_is_let_go(pool: offgil.Pool, gate: Gate) -> None:
    """Neither a removed nor a called callback is kept alive by its future."""
    future = pool.submit(gate)

    def removed(_: Any) -> None: ...

    def called(_: Any) -> None: ...

    refs = [weakref.ref(removed), weakref.ref(called)]
    future.add_done_callback(removed)
    future.remove_done_callback(removed)
    future.add_done_callback(called)
    del removed, called
    assert refs[0]() is None and refs[1]() is not None
    gate.open()
    await future
    await turns()
    assert refs[1]() is None


async def test_a_raising_callback_is_told_to_the_loop_and_the_rest_runs(
    make_pool: Callable[..., offgil.Pool], loop_errors: LoopErrors
) -> None:
    """The exception goes to the loop's handler; other callbacks and futures are not touched."""
    pool = make_pool(1)
    futures = [pool.submit(ex.echo, i) for i in range(5)]
    log: list[int] = []

    def raising(_: Any) -> None:
        raise ZeroDivisionError

    for i, future in enumerate(futures):
        future.add_done_callback(raising)
        future.add_done_callback(partial(note, log, i))
    finish(pool)
    assert await asyncio.gather(*futures) == list(range(5))
    await turns()
    assert sorted(log) == list(range(5))
    errors = loop_errors.take()
    assert [type(e["exception"]) for e in errors] == [ZeroDivisionError] * 5


async def test_a_callback_runs_in_its_context(pool: offgil.Pool) -> None:
    """It sees the context given to it, or the one in which it was added; nothing leaks out."""
    var = contextvars.ContextVar("var", default="outside")
    given = contextvars.copy_context()
    given.run(var.set, "given")
    log: list[str] = []

    def note(_: Any) -> None:
        log.append(var.get())
        var.set("changed by a callback")

    first, second = pool.submit(ex.echo, 1), pool.submit(ex.echo, 2)
    first.add_done_callback(note, context=given)
    var.set("when added")
    second.add_done_callback(note)
    var.set("later")
    await asyncio.wait([first, second])
    await turns()
    assert sorted(log) == ["given", "when added"]
    assert var.get() == "later"
    assert given.run(var.get) == "changed by a callback"


async def test_a_callback_runs_outside_any_task(pool: offgil.Pool) -> None:
    """In a callback there is a running loop and no current task."""
    future = pool.submit(ex.echo, 1)
    log: list[Any] = []
    future.add_done_callback(
        lambda _: log.append((asyncio.get_running_loop(), asyncio.current_task()))
    )
    await future
    await turns()
    assert log == [(asyncio.get_running_loop(), None)]


async def test_a_callback_can_submit_and_cancel(pool: offgil.Pool) -> None:
    """A callback may use the pool and cancel other futures of the same batch."""
    loop = asyncio.get_running_loop()
    chained = loop.create_future()

    def submit_again(_: Any) -> None:
        pool.submit(ex.echo, 42).add_done_callback(lambda f: chained.set_result(f.result()))

    pool.submit(ex.echo, 1).add_done_callback(submit_again)
    assert await asyncio.wait_for(chained, LIMIT) == 42
    futures = [pool.submit(ex.echo, i) for i in range(10)]
    for future in futures:
        future.add_done_callback(lambda _: [f.cancel() for f in futures])
    await asyncio.wait(futures)
    assert all(f.cancelled() or f.result() == i for i, f in enumerate(futures))


# --------------------------------------------------------------------------------------------------
# exceptions nobody looked at


async def test_an_exception_that_nobody_retrieves_is_told_to_the_loop(
    pool: offgil.Pool, loop_errors: LoopErrors
) -> None:
    """As for any asyncio future, each time, also when the future died in a cycle."""
    for in_a_cycle in (False, True, False, True):
        future: Any = pool.submit(ex.fail, "invalid_argument")
        await asyncio.wait([future])
        if in_a_cycle:
            future.itself = future
        del future
        gc.collect()
        await turns()
        (error,) = loop_errors.take()
        assert error["message"] == "Future exception was never retrieved"
        assert isinstance(error["exception"], ValueError)
        assert ("source_traceback" in error) == DEBUG


async def test_an_exception_that_was_retrieved_is_not_told(pool: offgil.Pool) -> None:
    """Awaiting the future or asking for its exception is enough."""
    with pytest.raises(ValueError):
        await pool.submit(ex.fail, "invalid_argument")
    future = pool.submit(ex.fail, "invalid_argument")
    await asyncio.wait([future])
    future.exception()
    del future
    gc.collect()
    await turns()


async def test_exceptions_reach_every_task(pool: offgil.Pool) -> None:
    """A task can catch a job's exception and go on in order."""

    async def job() -> str:
        try:
            await pool.submit(ex.fail, "length_error")
        except ValueError:
            assert asyncio.current_task() is not None
            return f"caught, then {await pool.submit(ex.echo, 1)}"
        return "not raised"

    assert await asyncio.gather(*(job() for _ in range(50))) == ["caught, then 1"] * 50


# --------------------------------------------------------------------------------------------------
# tasks


async def test_current_task_is_right_inside_a_woken_task(pool: offgil.Pool) -> None:
    """current_task() names the task that woke, also when tasks wake each other's neighbours."""
    wrong: list[Any] = []

    async def job(n: int) -> None:
        me = asyncio.current_task()
        for i in range(n):
            await pool.submit(ex.echo, i)
            if asyncio.current_task() is not me:
                wrong.append(asyncio.current_task())
            await asyncio.sleep(0)
            if asyncio.current_task() is not me:
                wrong.append(asyncio.current_task())

    await asyncio.gather(*(job(20) for _ in range(50)))
    assert wrong == []


async def test_each_task_keeps_its_context(pool: offgil.Pool) -> None:
    """A context variable set before an await has its value after it, in every task."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")

    async def job(i: int) -> int:
        var.set(i)
        for _ in range(5):
            await pool.submit(ex.echo, i)
            assert var.get() == i
        return var.get()

    assert await asyncio.gather(*(job(i) for i in range(100))) == list(range(100))
    with pytest.raises(LookupError):
        var.get()


async def test_a_ticker_is_never_starved(pool: offgil.Pool) -> None:
    """While 256 tasks hammer the pool, another task gets its turn every few thousand results."""
    ended = 0
    gaps: list[int] = []
    jobs = 100 if not DEBUG else 40

    async def hammer() -> None:
        nonlocal ended
        for i in range(jobs):
            assert await pool.submit(ex.echo, i) == i
            ended += 1

    async def tick() -> None:
        while ended < 256 * jobs:
            before = ended
            await asyncio.sleep(0)
            gaps.append(ended - before)

    await asyncio.gather(tick(), *(hammer() for _ in range(256)))
    assert max(gaps) < 8000, "the loop did not turn"
    assert sum(gaps) == ended


async def test_one_task_that_awaits_a_batch_in_order_lets_others_run(
    make_pool: Callable[..., offgil.Pool], flavour: Flavour
) -> None:
    """Awaiting thousands of results of one batch, one after the other, does not hold the loop."""
    if flavour.kind == "plain":
        pytest.skip("awaiting plain futures that are done never lets the loop turn")
    pool = make_pool(1)
    asyncio.get_running_loop().set_debug(False)  # which makes 100 000 futures take seconds
    n = 100_000  # many times what fits into one drain
    futures = [pool.submit(ex.echo, i) for i in range(n)]
    finish(pool)
    ended = 0
    gaps: list[int] = []

    async def tick() -> None:
        while ended < n:
            before = ended
            await asyncio.sleep(0)
            gaps.append(ended - before)

    ticker = asyncio.create_task(tick())
    for i, future in enumerate(futures):
        assert await future == i
        ended += 1
    await ticker
    assert max(gaps) < n / 2, "the loop did not turn"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_eager_tasks(pool: offgil.Pool, gate: Gate) -> None:
    """Tasks that start inside create_task await our futures like any other task."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")

    async def job(i: int) -> int:
        var.set(i)
        result: int = await pool.submit(ex.echo, i)
        assert var.get() == i
        assert asyncio.current_task() is not None
        return result

    assert await asyncio.gather(*(job(i) for i in range(300))) == list(range(300))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job(i)) for i in range(100)]
    assert [t.result() for t in tasks] == list(range(100))

    finished = pool.submit(ex.echo, 5)
    await finished

    async def wait(future: Any) -> Any:
        return await future

    eager = asyncio.create_task(wait(finished))
    assert eager.done() and eager.result() == 5, "nothing to wait for: done in create_task"

    held = asyncio.create_task(wait(pool.submit(gate)))
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held

    async def nest(depth: int) -> Any:
        return await (asyncio.create_task(nest(depth - 1)) if depth else pool.submit(ex.echo, 9))

    assert await asyncio.create_task(nest(20)) == 9
    gate.open()


async def test_pure_python_tasks(pool: offgil.Pool) -> None:
    """asyncio's Python implementation of Task, which looks closer, is content too."""
    loop = asyncio.get_running_loop()

    async def add() -> int:
        first: int = await pool.submit(ex.echo, 1)
        return first + await pool.submit(ex.echo, 2)

    async def fail() -> str:
        with pytest.raises(ValueError):
            await pool.submit(ex.fail, "invalid_argument")
        return "caught"

    python_task = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    assert await python_task(add(), loop=loop) == 3
    assert await python_task(fail(), loop=loop) == "caught"
    assert await asyncio.gather(*(python_task(add(), loop=loop) for _ in range(50))) == [3] * 50


async def test_awaiting_through_hand_written_iterators(pool: offgil.Pool) -> None:
    """Both `yield from future` and `yield from future.__await__()` give the result."""

    class Through:
        def __init__(self, future: Any, explicit: bool) -> None:
            self.future, self.explicit = future, explicit

        def __await__(self) -> Any:
            return (yield from self.future.__await__() if self.explicit else self.future)

    assert await Through(pool.submit(ex.echo, 1), True) == 1
    assert await Through(pool.submit(ex.echo, 2), False) == 2
    with pytest.raises(ValueError):
        await Through(pool.submit(ex.fail, "invalid_argument"), True)


async def test_a_coroutine_that_is_thrown_into_or_closed(pool: offgil.Pool, gate: Gate) -> None:
    """A coroutine driven by hand can be left while it waits; the future is not touched."""
    future: Any = pool.submit(gate)

    async def wait() -> Any:
        return await future

    thrown, closed = wait(), wait()
    assert thrown.send(None) is future
    with pytest.raises(LookupError):
        thrown.throw(LookupError("thrown"))
    future._asyncio_future_blocking = False
    assert closed.send(None) is future
    closed.close()
    future._asyncio_future_blocking = False
    assert not future.done()
    gate.open()
    assert await future == "through the gate"


async def test_awaiting_without_a_task_is_refused(pool: offgil.Pool, gate: Gate) -> None:
    """Resuming the iterator of a pending future raises, as on a plain future."""
    iterator: Any = pool.submit(gate).__await__()
    future = next(iterator)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)
    future._asyncio_future_blocking = False
    gate.open()
    await future


async def test_a_task_of_another_loop_is_refused(
    pool: offgil.Pool, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """Awaiting it in a task of another loop raises RuntimeError there and harms nobody here."""
    future = pool.submit(gate)
    raised: list[str] = []

    async def other() -> None:
        try:
            await future
        except RuntimeError as error:
            raised.append(str(error))

    thread = in_thread(lambda: run_in_new_loop(other()))
    await until(lambda: not thread.is_alive())
    assert len(raised) == 1 and "different loop" in raised[0]
    gate.open()
    await asyncio.wait([future], timeout=LIMIT)
    assert future.result() == "through the gate"


# --------------------------------------------------------------------------------------------------
# repr, references


async def test_repr_tells_state_and_callbacks(pool: offgil.Pool, gate: Gate) -> None:
    """repr shows what a plain future's shows: state, callbacks, result or exception."""
    future = pool.submit(gate)
    before = callbacks(future)

    def my_callback(_: Any) -> None: ...

    future.add_done_callback(my_callback)
    assert "pending" in repr(future) and "my_callback" in repr(future)
    added = [entry for entry in callbacks(future) if entry not in before]
    assert len(added) == 1 and added[0][0] is my_callback
    assert ("created at" in repr(future)) == DEBUG
    gate.open()
    await future
    assert "finished" in repr(future) and "result='through the gate'" in repr(future)
    failed = pool.submit(ex.fail, "invalid_argument")
    await asyncio.wait([failed])
    assert "exception=ValueError" in repr(failed)
    assert isinstance(failed.exception(), ValueError)
    held = pool.submit(ex.echo, 1)
    held.cancel()
    assert "cancelled" in repr(held)


async def test_repr_of_a_waiting_task_names_the_future(pool: offgil.Pool, gate: Gate) -> None:
    """A debugger sees what a task waits for, and on the future who waits."""
    future = pool.submit(gate)

    async def wait() -> Any:
        return await future

    task = asyncio.create_task(wait())
    await turns()
    assert "wait_for=<" in repr(task)
    assert "wakeup" in repr(future).lower()
    gate.open()
    assert await task == "through the gate"


async def test_a_cycle_through_a_future_is_collected(pool: offgil.Pool) -> None:
    """The collector sees through callbacks, attributes and results."""
    box: Any = Box()
    box.future = pool.submit(ex.echo, 1)
    box.future.add_done_callback(lambda _, box=box: None)
    box.future.box = box
    refs = [weakref.ref(box), weakref.ref(box.future)]
    await box.future
    await turns()
    del box
    gc.collect()
    assert [ref() for ref in refs] == [None, None]

    box = Box()
    box.future = pool.submit(box.itself)  # the result holds its own future
    await box.future
    await turns()
    ref = weakref.ref(box)
    del box
    gc.collect()
    assert ref() is None


async def test_a_cycle_through_a_queued_job_is_not_lost(pool: offgil.Pool, gate: Gate) -> None:
    """A future that only its own job still needs is delivered, and dies afterwards."""
    held = await gate.occupy(pool)
    box: Any = Box()
    log: list[Any] = []
    box.future = pool.submit(ex.echo, 3)
    box.future.add_done_callback(lambda f, box=box: log.append(f.result()))
    ref = weakref.ref(box)
    del box
    gc.collect()
    assert ref() is not None
    gate.open()
    await asyncio.gather(*held)
    await until(lambda: log)
    await turns()
    gc.collect()
    assert log == [3] and ref() is None


async def test_a_dropped_future_still_runs_its_job(pool: offgil.Pool) -> None:
    """Nobody has to keep the future: the job runs, and its result goes quietly."""
    ran: list[int] = []
    for i in range(100):
        pool.submit(ran.append, i)
        pool.submit(ex.echo, i)
    await pool.drain()
    assert sorted(ran) == list(range(100))
    assert check_balance(pool).completed == 200


async def test_a_weak_reference_is_told(pool: offgil.Pool) -> None:
    """A weak reference's callback is called when the future dies, without a collection."""
    future = pool.submit(ex.echo, 1)
    dead: list[Any] = []
    ref = weakref.ref(future, dead.append)
    await future
    await turns()
    del future
    await turns()
    assert ref() is None and dead == [ref]


async def test_futures_leave_nothing_behind(pool: offgil.Pool) -> None:
    """Thousands of awaits leave the number of live objects where it was."""

    async def job() -> None:
        for i in range(50):
            await pool.submit(ex.echo, i)

    async def count() -> int:
        await asyncio.gather(*(job() for _ in range(20)))
        await turns()
        gc.collect()
        return len(gc.get_objects())

    await count()
    before = await count()
    for _ in range(3):
        after = await count()
    assert after - before < 60


# --------------------------------------------------------------------------------------------------
# in the hands of the user


async def test_user_sets_the_result_first(pool: offgil.Pool, gate: Gate) -> None:
    """set_result by the user wins; awaiters wake through the loop; the job's result is dropped."""
    future = pool.submit(gate)
    log: list[Any] = []

    async def wait() -> None:
        log.append(await future)

    task = asyncio.create_task(wait())
    await turns()
    future.add_done_callback(lambda _: log.append("callback"))
    future.set_result("mine")
    assert log == [], "nothing runs inside set_result"
    await task
    await turns()
    assert log == ["mine", "callback"]
    with pytest.raises(asyncio.InvalidStateError):
        future.set_result("again")
    gate.open()
    await pool.drain()
    await turns()
    assert future.result() == "mine"


async def test_user_sets_an_exception_first(pool: offgil.Pool, gate: Gate) -> None:
    """set_exception by the user wins, with asyncio's checks of what it is given."""

    class Odd(Exception):
        def __new__(cls) -> Any:
            return 3

    future = pool.submit(gate)
    for what in (3, Odd):
        with pytest.raises(TypeError):
            future.set_exception(what)  # type: ignore[arg-type]
        assert not future.done()

    async def wait() -> None:
        await future

    task = asyncio.create_task(wait())
    await turns()
    future.set_exception(KeyError("mine"))
    with pytest.raises(KeyError):
        await task
    gate.open()
    await pool.drain()
    assert isinstance(future.exception(), KeyError)


async def test_a_cancel_that_is_refused_changes_nothing(pool: offgil.Pool, gate: Gate) -> None:
    """cancel() with arguments that it does not take is an error; the job goes on."""
    future: Any = pool.submit(gate)
    waiting: Any = asyncio.create_task(asyncio.wait_for(future, LIMIT))
    await turns()
    for args, named in (((1, 2), {}), ((), {"foo": 1}), ((1,), {"msg": 2})):
        with pytest.raises(TypeError):
            future.cancel(*args, **named)
        assert not future.done()
    gate.open()
    assert await waiting == "through the gate"


async def test_stop_iteration_wakes_who_awaits(pool: offgil.Pool, gate: Gate) -> None:
    """Where set_exception takes a StopIteration, the awaiting task hears of it at once."""
    future = pool.submit(gate)

    async def wait() -> str:
        return await future

    task = asyncio.create_task(wait())
    await turns()
    try:
        future.set_exception(StopIteration())
    except TypeError:
        gate.open()
        assert await asyncio.wait_for(task, LIMIT) == "through the gate"
    else:
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(task, LIMIT / 2)  # the gate is closed
        gate.open()


async def test_stop_iteration_is_treated_as_on_a_plain_future(
    pool: offgil.Pool, gate: Gate
) -> None:
    """set_exception(StopIteration) is refused or wrapped, as this Python's asyncio has it."""
    outcomes = []
    for future in (asyncio.get_running_loop().create_future(), pool.submit(gate)):
        try:
            future.set_exception(StopIteration)
            outcomes.append((type(future.exception()), future.done()))
        except TypeError as error:
            outcomes.append((type(error), future.done()))
    assert outcomes[0] == outcomes[1]
    gate.open()


async def test_methods_of_the_base_called_unbound(pool: offgil.Pool, gate: Gate) -> None:
    """asyncio.Future's own methods, called on our future, tell and do the right thing."""
    base: Any = asyncio.Future
    future = pool.submit(gate)
    assert base.done(future) is False and base.cancelled(future) is False
    assert base.get_loop(future) is asyncio.get_running_loop()
    log: list[Any] = []
    base.add_done_callback(future, lambda _: log.append("base"))
    future.add_done_callback(lambda _: log.append("ours"))
    gate.open()
    await future
    await turns()
    assert sorted(log) == ["base", "ours"]
    assert base.done(future) and base.result(future) == "through the gate"
    assert base.exception(future) is None


async def test_the_base_cancel_called_unbound(pool: offgil.Pool, gate: Gate) -> None:
    """asyncio.Future.cancel(future) frees the awaiter too, at the latest when the job has ended."""
    future = pool.submit(gate)

    async def wait() -> None:
        await future

    task = asyncio.create_task(wait())
    await turns()
    asyncio.Future.cancel(future)
    gate.open()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done and task.cancelled()


async def test_the_base_set_result_called_unbound(pool: offgil.Pool, gate: Gate) -> None:
    """asyncio.Future.set_result(future, x) wins, and frees the awaiter when the job has ended."""
    future = pool.submit(gate)

    async def wait() -> Any:
        return await future

    task = asyncio.create_task(wait())
    await turns()
    asyncio.Future.set_result(future, "unbound")
    gate.open()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done and task.result() == "unbound"


# --------------------------------------------------------------------------------------------------
# what may not be swallowed


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("in_task", [False, True], ids=["callback", "task"])
def test_interrupts_leave_the_loop_and_lose_nothing(
    flavour: Flavour,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    stop: type[BaseException],
    in_task: bool,
    gate: Gate,
) -> None:
    """KeyboardInterrupt and SystemExit end the loop's run; the next run delivers the rest."""
    loop = loop_factory()
    asyncio.set_event_loop(loop)
    pool = flavour.new_pool(1)
    log: list[int] = []
    futures: list[Any] = []
    stopping: list[Any] = []

    def raising(_: Any) -> None:
        raise stop

    async def raises(future: Any) -> None:
        await future
        raise stop

    async def waits(i: int, future: Any) -> None:
        assert await future == i
        log.append(i)

    async def begin() -> None:
        await gate.occupy(pool)
        futures.extend(pool.submit(ex.echo, i) for i in range(10))
        if in_task:
            stopping.append(asyncio.create_task(raises(futures[0])))
        else:
            futures[0].add_done_callback(raising)
        stopping.extend(asyncio.create_task(waits(i, futures[i])) for i in range(1, 10))
        await turns()
        gate.open()
        finish(pool)
        await asyncio.wait_for(asyncio.Event().wait(), LIMIT)

    async def rest() -> None:
        await until(lambda: len(log) == 9, limit=5)

    try:
        main = loop.create_task(begin())
        with pytest.raises(stop):
            loop.run_until_complete(main)
        loop.run_until_complete(rest())
        assert log == list(range(1, 10))
        main.cancel()
        loop.run_until_complete(asyncio.wait([main, *stopping]))
        if in_task:
            assert isinstance(stopping[0].exception(), stop)
        loop.run_until_complete(pool.aclose())
    finally:
        loop.close()
        asyncio.set_event_loop(None)


# --------------------------------------------------------------------------------------------------
# what it costs


async def test_a_callback_whose_comparison_replaces_it(pool: offgil.Pool, flavour: Flavour) -> None:
    """remove_done_callback() takes away what it has compared, and nothing that came instead."""
    if flavour.kind == "plain":
        pytest.skip("the base compares until it finds no more")
    future = pool.submit(ex.spin, 20_000)
    called: list[str] = []

    class Replaced:
        def __call__(self, _: object) -> None:
            called.append("replaced")

        def __eq__(self, other: object) -> bool:
            future.remove_done_callback(self)
            future.add_done_callback(lambda _: called.append("instead"))
            return True

        __hash__ = None  # type: ignore[assignment]

    future.add_done_callback(Replaced())
    future.remove_done_callback(lambda _: None)
    await asyncio.wait([future], timeout=LIMIT)
    await turns()
    assert called == ["instead"]


async def test_an_await_by_the_unbound_method(pool: offgil.Pool) -> None:
    """A wrapper that forwards to asyncio.Future's own method can be awaited."""

    class Wrapper:
        def __init__(self, future: asyncio.Future[Any]) -> None:
            self.future = future

        def __await__(self) -> Any:
            return asyncio.Future.__await__(self.future)

    assert await Wrapper(pool.submit(ex.echo, 7)) == 7
    with pytest.raises(ValueError):
        await Wrapper(pool.submit(ex.fail, "invalid_argument"))


@pytest.mark.parametrize("name", ["cancel", "set_result", "set_exception", "remove_done_callback"])
async def test_its_methods_describe_themselves(pool: offgil.Pool, name: str) -> None:
    """As the base's do."""
    future = pool.submit(ex.echo, 1)
    of_base = inspect.signature(getattr(asyncio.Future, name))
    method = getattr(type(future), name)
    assert str(inspect.signature(method)) == str(of_base)
    assert method.__doc__
    await future


def wake_ups(flavour: Flavour, n: int) -> tuple[int, int]:
    """Say how many of n awaits are resumed inside a drain, and how many through the loop.

    In debug mode the loop calls each callback itself, so that it can tell which one was slow.
    """
    if flavour.kind == "plain":
        return (0, 0)
    return (0, n) if DEBUG else (n, 0)


async def test_an_await_is_one_inline_wake_up(pool: offgil.Pool, flavour: Flavour) -> None:
    """Each plain await is resumed by the drain itself, and by nothing else."""
    before = pool.stats()
    for i in range(100):
        assert await pool.submit(ex.echo, i) == i
    after = pool.stats()
    inline = after.inline_wakeups - before.inline_wakeups
    forwarded = after.forwarded_callbacks - before.forwarded_callbacks
    assert (inline, forwarded) == wake_ups(flavour, 100)


async def test_a_failed_await_is_one_inline_wake_up(pool: offgil.Pool, flavour: Flavour) -> None:
    """An exception takes the same way as a result."""
    before = pool.stats()
    for _ in range(20):
        with pytest.raises(ValueError):
            await pool.submit(ex.fail, "invalid_argument")
    after = pool.stats()
    inline = after.inline_wakeups - before.inline_wakeups
    forwarded = after.forwarded_callbacks - before.forwarded_callbacks
    assert (inline, forwarded) == wake_ups(flavour, 20)


async def test_gather_is_one_inline_wake_up_per_future(pool: offgil.Pool, flavour: Flavour) -> None:
    """gather's own callback is kept and called by the drain, too."""
    before = pool.stats()
    await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(100)))
    after = pool.stats()
    inline = after.inline_wakeups - before.inline_wakeups
    forwarded = after.forwarded_callbacks - before.forwarded_callbacks
    assert (inline, forwarded) == wake_ups(flavour, 100)


async def test_a_second_callback_is_forwarded(pool: offgil.Pool, flavour: Flavour) -> None:
    """Only the first callback is kept aside; the others are the base future's business."""
    if flavour.kind == "plain":
        pytest.skip("a plain future has only the base's callbacks")
    before = pool.stats()
    future = pool.submit(ex.echo, 1)
    for _ in range(3):
        future.add_done_callback(lambda _: None)
    async with asyncio.timeout(LIMIT):
        await future
    await turns()
    after = pool.stats()
    inline = after.inline_wakeups - before.inline_wakeups
    forwarded = after.forwarded_callbacks - before.forwarded_callbacks
    kept = wake_ups(flavour, 1)
    assert (inline, forwarded) == (kept[0], kept[1] + 3)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "forwarded"])
async def test_a_callback_may_raise_what_is_no_exception(
    pool: offgil.Pool, loop_errors: LoopErrors, kept: bool
) -> None:
    """As from any handle of a loop: only SystemExit and KeyboardInterrupt leave it."""
    future = pool.submit(ex.echo, 1)
    ran = []

    def cancelled(_: Any) -> None:
        raise asyncio.CancelledError

    future.add_done_callback(cancelled if kept else ran.append)
    future.add_done_callback(ran.append if kept else cancelled)
    assert await pool.submit(ex.echo, 2) == 2
    await until(lambda: ran == [future])
    await until(lambda: len(loop_errors) == 1)
    (told,) = loop_errors.take()
    assert isinstance(told["exception"], asyncio.CancelledError)


def test_a_future_of_a_closed_loop_can_still_be_cancelled(
    flavour: Flavour, loop_factory: Callable[[], asyncio.AbstractEventLoop], gate: Gate
) -> None:
    """As with the base: that its callback cannot be scheduled is told; the state has changed."""
    pool = flavour.new_pool(1)

    async def submit() -> Any:
        future = pool.submit(gate)
        future.add_done_callback(print)
        return future

    loop = loop_factory()
    future = loop.run_until_complete(submit())
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        future.cancel()
    assert future.cancelled()
    gate.open()
    run_in_new_loop(pool.aclose(), loop_factory)


def test_what_dies_with_a_future_may_run_the_collector(
    flavour: Flavour, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A callback that dies uncalled, with a loop that was closed too early, collects garbage."""
    pool = flavour.new_pool(1)
    died = []

    class Collecting:
        def __call__(self, _: Any) -> None: ...

        def __del__(self) -> None:
            died.append(gc.collect())

    async def submit() -> None:
        for i in range(10):
            pool.submit(ex.echo, i).add_done_callback(Collecting())

    for _ in range(20):
        loop = loop_factory()
        loop.run_until_complete(submit())
        loop.close()
        pool.stats()
    run_in_new_loop(pool.aclose(), loop_factory)
    del loop
    gc.collect()
    assert len(died) == 200


async def test_submit_does_not_ask_for_debug_mode_each_time(
    pool: offgil.Pool, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio.Future asks its loop whenever one is made; ours once per batch."""
    if flavour.kind == "plain" or DEBUG:
        pytest.skip("made by asyncio.Future itself")
    loop = asyncio.get_running_loop()
    asked = []
    monkeypatch.setattr(loop, "get_debug", lambda: bool(asked.append(None)))
    assert await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(1000))) == [*range(1000)]
    assert len(asked) < 500


async def test_debug_mode_may_be_switched_on_meanwhile(pool: offgil.Pool, gate: Gate) -> None:
    """Futures made after a delivery have their traceback, though a job is always in flight."""
    loop = asyncio.get_running_loop()
    loop.set_debug(False)
    blocked = pool.submit(gate)
    assert getattr(pool.submit(ex.echo, 1), "_source_traceback", None) is None
    loop.set_debug(True)
    await pool.submit(ex.echo, 2)
    with_traceback: Any = pool.submit(ex.echo, 3)
    made_at = [frame.name for frame in with_traceback._source_traceback]
    assert "test_debug_mode_may_be_switched_on_meanwhile" in made_at
    gate.open()
    await asyncio.gather(blocked, with_traceback)


def test_a_done_future_in_a_cycle_with_its_loop_is_collected(
    flavour: Flavour, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The loop's handler belongs to an object that keeps a future of the loop."""
    pool = flavour.new_pool(1)

    class Application:
        def __init__(self) -> None:
            self.loop = loop_factory()
            self.loop.set_exception_handler(self.handle)

        def handle(self, *_: Any) -> None: ...

        async def start(self) -> None:
            self.future = pool.submit(ex.echo, 1000)
            await self.future

    application = Application()
    application.loop.run_until_complete(application.start())
    assert application.future.result() == 1000
    run_in_new_loop(pool.aclose(), loop_factory)
    application.loop.close()
    died = weakref.ref(application)
    del application
    gc.collect()
    assert died() is None
