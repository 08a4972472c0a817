"""The executor's futures: results, exceptions, cancellation, time limits, waiting, looks.

Everything here holds for the standard pool and for ours alike.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest
from executors import Box, Kind, both_sorts, hold, hold_callbacks
from support import LIMIT, Gate, block_until, check_script, open_fds, os_threads, until

from offgil import examples as ex

# --------------------------------------------------------------------------------------------------
# what it is


def test_it_is_a_thread_pool_executor(executor: Any, kind: Kind) -> None:
    """Class checks of asyncio, Dask and others accept it, and its futures."""
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    assert kind.type.__name__ == "ThreadPoolExecutor"
    for fn, args in ((ex.echo, (1,)), (abs, (-1,))):
        future = executor.submit(fn, *args)
        assert isinstance(future, Future)
        assert future.result(LIMIT) == 1


@pytest.mark.parametrize("workers", [0, -1, -(10**30)])
def test_too_few_workers(kind: Kind, workers: int) -> None:
    """ValueError with the standard text, and nothing is started."""
    before = os_threads(), open_fds()
    with pytest.raises(ValueError, match=r"^max_workers must be greater than 0$"):
        kind.new(workers)
    assert (os_threads(), open_fds()) == before


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_workers": "two"}, TypeError, "."),
        ({"max_workers": [2]}, TypeError, "."),
        ({"initializer": 5}, TypeError, r"^initializer must be a callable$"),
        ({"initializer": "init"}, TypeError, r"^initializer must be a callable$"),
        ({"initargs": (1,), "wrokers": 2}, TypeError, "wrokers"),
    ],
)
def test_a_bad_option(kind: Kind, options: dict[str, Any], error: Any, text: str) -> None:
    """The constructor raises, and nothing is started."""
    before = os_threads(), open_fds()
    with pytest.raises(error, match=text):
        kind.new(**options)
    assert (os_threads(), open_fds()) == before


def test_options_by_position(kind: Kind) -> None:
    """max_workers, thread_name_prefix, initializer and initargs, in this order."""
    seen: list[int] = []
    with kind.new(1, "mine", seen.append, (7,)) as executor:
        name = executor.submit(lambda: threading.current_thread().name).result(LIMIT)
    assert (name, seen) == ("mine_0", [7])


# --------------------------------------------------------------------------------------------------
# results


def arguments(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def test_all_arguments_are_the_jobs(executor: Any) -> None:
    """Keywords called self, fn or timeout included; fn itself is given by position."""
    future = executor.submit(arguments, 1, self=2, fn=3, timeout=4)
    assert future.result(LIMIT) == ((1,), {"self": 2, "fn": 3, "timeout": 4})
    with pytest.raises(TypeError):
        executor.submit(fn=arguments)
    with pytest.raises(TypeError):
        executor.submit()


@both_sorts
def test_each_future_has_its_own_result(executor: Any, echo: Callable[[int], int]) -> None:
    """A thousand jobs on two workers; asked in any order and again, each gives the same."""
    futures = [executor.submit(echo, i) for i in range(1000)]
    for i in reversed(range(1000)):
        assert futures[i].result(LIMIT) == i
        assert futures[i].exception(0) is None
        assert futures[i].done() and not futures[i].running() and not futures[i].cancelled()
        assert futures[i].result() is futures[i].result()


def test_sorts_mix_in_order(make_executor: Callable[..., Any]) -> None:
    """One worker runs native and Python jobs in the order in which they were submitted."""
    executor = make_executor(1)
    ran: list[int] = []
    for i in range(0, 300, 3):
        executor.submit(ran.append, i)
        executor.submit(ex.spin, 1)
        executor.submit(ran.append, i + 2)
    executor.submit(ex.echo, 1).result(LIMIT)
    assert ran == [n for i in range(0, 300, 3) for n in (i, i + 2)]


def test_many_threads_get_one_result(
    executor: Any, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """Sixteen threads wait for the same two jobs, a Python and a native one: all are told."""
    (held, _) = hold(executor, gate, 2)
    native = executor.submit(ex.echo, 5)
    seen: list[Any] = []
    ready = threading.Barrier(17)

    def wait(future: Future[Any]) -> None:
        ready.wait(LIMIT)
        seen.append(future.result(LIMIT))

    for _ in range(8):
        in_thread(wait, held)
        in_thread(wait, native)
    ready.wait(LIMIT)
    gate.open()
    block_until(lambda: len(seen) == 16)
    assert sorted(map(str, seen)) == ["5"] * 8 + ["through the gate"] * 8


# --------------------------------------------------------------------------------------------------
# exceptions


def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("not this future"),
        TimeoutError("not a time limit"),
        ExceptionGroup("several", [ValueError(1), OSError(2)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_job_raises_is_the_futures(
    make_executor: Callable[..., Any], error: BaseException
) -> None:
    """The very object, without notes, with the job's frame; and the worker lives."""
    executor = make_executor(1)
    future = executor.submit(raise_it, error)
    assert future.exception(LIMIT) is error
    with pytest.raises(type(error)) as caught:
        future.result(LIMIT)
    assert caught.value is error
    assert not future.cancelled()
    assert not getattr(error, "__notes__", [])
    assert "raise_it" in [entry.name for entry in caught.traceback]
    assert executor.submit(abs, -1).result(LIMIT) == 1
    error.__traceback__ = None


@pytest.mark.parametrize("what", ["domain_error", "out_of_range", "int"])
def test_a_native_functions_exceptions(executor: Any, what: str) -> None:
    """They are those of a direct call."""
    with pytest.raises(Exception) as direct:
        ex.fail(what)
    future = executor.submit(ex.fail, what)
    error = future.exception(LIMIT)
    assert (type(error), str(error)) == (type(direct.value), str(direct.value))
    with pytest.raises(type(error)):
        future.result(LIMIT)


def test_a_job_may_wait_for_another(executor: Any, gate: Gate) -> None:
    """While a worker is free for it, or runs it already, it is nobody's concern."""

    def outer(future: Any) -> Any:
        return (future or executor.submit(ex.echo, 5)).result(LIMIT)

    assert executor.submit(outer, None).result(LIMIT) == 5
    (held,) = hold(executor, gate, 1)
    waits = executor.submit(outer, held)
    block_until(waits.running)
    gate.open()
    assert waits.result(LIMIT) == "through the gate"


# --------------------------------------------------------------------------------------------------
# cancellation


@both_sorts
def test_cancel_in_every_state(
    make_executor: Callable[..., Any], gate: Gate, echo: Callable[[int], int]
) -> None:
    """PENDING: True, and it never runs; RUNNING and FINISHED: False; cancelled already: True."""
    executor = make_executor(1)
    ran: list[int] = []
    (running,) = hold(executor, gate, 1)
    native, python = executor.submit(echo, 1), executor.submit(ran.append, 1)
    after = executor.submit(echo, 2)
    assert not (native.running() or native.done() or native.cancelled())

    for future in (native, python):
        assert future.cancel() and future.cancel()
        assert future.cancelled() and future.done() and not future.running()
        with pytest.raises(CancelledError):
            future.result()
        with pytest.raises(CancelledError):
            future.exception()
    assert not running.cancel()
    assert running.running() and not running.cancelled() and not running.done()

    gate.open()
    assert running.result(LIMIT) == "through the gate"
    assert after.result(LIMIT) == 2
    assert not running.cancel() and not after.cancel()
    assert not running.cancelled() and ran == []
    assert native.cancel()


def test_a_running_native_job_cannot_be_cancelled(executor: Any) -> None:
    """It is RUNNING as soon as it runs, and ends with its result."""
    future = executor.submit(ex.sleep, 0.05)
    block_until(lambda: future.running() or future.done())
    assert not future.cancel()
    assert future.result(LIMIT) is None


def test_cancel_wakes_who_waits(
    make_executor: Callable[..., Any], gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """result() in another thread raises CancelledError at the cancel, not when the queue moves."""
    executor = make_executor(1)
    hold(executor, gate, 1)
    futures = [executor.submit(ex.echo, 1), executor.submit(abs, -1)]
    ended: list[str] = []
    about_to_wait = threading.Barrier(3)

    def wait(future: Future[int]) -> None:
        about_to_wait.wait(LIMIT)
        try:
            future.result(LIMIT)
        except CancelledError:
            ended.append("cancelled")

    for future in futures:
        in_thread(wait, future)
    about_to_wait.wait(LIMIT)
    for future in futures:
        assert future.cancel()
    block_until(lambda: ended == ["cancelled"] * 2)
    done, pending = concurrent.futures.wait(futures, timeout=0)
    gate.open()
    # The standard library calls a cancelled job done when a worker has come across it.
    assert not done & pending
    assert concurrent.futures.wait(futures, timeout=LIMIT).not_done == set()


# --------------------------------------------------------------------------------------------------
# time limits


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 0.02])
def test_a_time_limit(executor: Any, gate: Gate, timeout: float) -> None:
    """result and exception raise TimeoutError; the job goes on and can be asked again."""
    held, _ = hold(executor, gate, 2)
    waiting = executor.submit(ex.echo, 1)
    for future in (held, waiting):
        with pytest.raises(TimeoutError):
            future.result(timeout)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.exception(timeout=timeout)
        assert not future.done()
    gate.open()
    assert held.result(timeout=LIMIT) == "through the gate"
    assert waiting.result(LIMIT) == 1
    assert waiting.result(timeout) == 1


@pytest.mark.parametrize("timeout", ["1", [], b"1"])
def test_a_time_limit_that_makes_no_sense(executor: Any, gate: Gate, timeout: Any) -> None:
    """TypeError, as from a lock; the future is none the worse."""
    (held,) = hold(executor, gate, 1)
    with pytest.raises(TypeError):
        held.result(timeout)
    gate.open()
    assert held.result(LIMIT) == "through the gate"


# --------------------------------------------------------------------------------------------------
# wait, as_completed, wrap_future


def test_wait_for_the_first(executor: Any, gate: Gate) -> None:
    """FIRST_COMPLETED and FIRST_EXCEPTION return while another job goes on."""
    (held,) = hold(executor, gate, 1)
    for fn, args, when in (
        (ex.echo, (1,), concurrent.futures.FIRST_COMPLETED),
        (abs, (-1,), concurrent.futures.FIRST_COMPLETED),
        (ex.fail, ("int",), concurrent.futures.FIRST_EXCEPTION),
        (int, ("x",), concurrent.futures.FIRST_EXCEPTION),
    ):
        future = executor.submit(fn, *args)
        done, not_done = concurrent.futures.wait([held, future], LIMIT, when)
        assert (done, not_done) == ({future}, {held})
    gate.open()


def test_wait_for_all(executor: Any) -> None:
    """ALL_COMPLETED: jobs of each sort, done before, meanwhile, cancelled, failed."""
    futures = [executor.submit(ex.spin, 50) for _ in range(100)]
    futures += [executor.submit(time.sleep, 0) for _ in range(100)]
    futures += [executor.submit(ex.fail, "int"), executor.submit(int, "x")]
    for future in futures[50:150:7]:
        future.cancel()
    done, not_done = concurrent.futures.wait(futures, LIMIT)
    assert done == set(futures) and not not_done


def test_as_completed(executor: Any) -> None:
    """Every future comes once, done, also when it is given twice."""
    futures = [executor.submit(ex.echo, i) for i in range(100)]
    futures += [executor.submit(abs, i) for i in range(100)]
    seen = []
    for future in concurrent.futures.as_completed(futures + futures[:10], LIMIT):
        assert future.done()
        seen.append(future)
    assert len(seen) == 200 and set(seen) == set(futures)
    assert sorted(future.result(0) for future in seen) == sorted([*range(100)] * 2)


def test_as_completed_gives_up(executor: Any, gate: Gate) -> None:
    """TimeoutError counts what is missing, after what was there."""
    held = hold(executor, gate, 1)
    quick = executor.submit(ex.echo, 1)
    quick.result(LIMIT)
    came = []
    with pytest.raises(TimeoutError, match=re.escape("1 (of 2) futures unfinished")):
        for future in concurrent.futures.as_completed([*held, quick], timeout=0.05):
            came.append(future)
    assert came == [quick]


@both_sorts
async def test_wrap_future(executor: Any, echo: Callable[[int], int]) -> None:
    """A wrapped future gives its result, or its exception, to a task of the loop."""
    wrapped = [asyncio.wrap_future(executor.submit(echo, i)) for i in range(100)]
    assert await asyncio.wait_for(asyncio.gather(*wrapped), LIMIT) == [*range(100)]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(executor.submit(divmod, 1, 0))
    done = executor.submit(echo, 3)
    done.result(LIMIT)
    assert await asyncio.wrap_future(done) == 3


async def test_wrap_future_and_cancel(executor: Any, gate: Gate) -> None:
    """Cancelling the task withdraws a waiting job and leaves a running one alone."""
    held, _ = hold(executor, gate, 2)
    for fn, args in ((ex.echo, (1,)), (abs, (-1,))):
        waiting = executor.submit(fn, *args)
        wrapped = asyncio.wrap_future(waiting)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        await until(waiting.cancelled)  # the wrapper tells in the loop's next turn
    wrapped = asyncio.wrap_future(held)
    wrapped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wrapped
    assert held.running()
    gate.open()
    assert held.result(LIMIT) == "through the gate"


# --------------------------------------------------------------------------------------------------
# looks


def test_repr(make_executor: Callable[..., Any], gate: Gate) -> None:
    """As the standard future's, in every state."""
    executor = make_executor(1)
    (held,) = hold(executor, gate, 1)
    cancelled, returned, failed = (
        executor.submit(*job) for job in ((abs, 1), (ex.echo, 1), (ex.fail, "domain_error"))
    )
    plain = executor.submit(str, 1)

    def text(future: Future[Any]) -> str:
        return re.sub(r"^<Future at 0x[0-9a-f]+ ", "<", repr(future))

    assert text(held) == "<state=running>"
    assert text(returned) == text(cancelled) == "<state=pending>"
    cancelled.cancel()
    assert text(cancelled) == "<state=cancelled>"
    gate.open()
    concurrent.futures.wait([held, returned, failed, plain], LIMIT)
    assert text(held) == text(plain) == "<state=finished returned str>"
    assert text(returned) == "<state=finished returned int>"
    assert text(failed) == "<state=finished raised ValueError>"


def test_it_cannot_be_pickled(make_executor: Callable[..., Any], kind: Kind) -> None:
    """Neither the executor nor a future of it: TypeError that says so."""
    executor = make_executor(2)
    future = executor.submit(ex.echo, 1)
    for thing in (executor, future):
        if thing is executor and not kind.ours and sys.version_info >= (3, 14):
            error, says = pickle.PicklingError, "Can't pickle"
        else:
            error, says = TypeError, "cannot pickle"
        with pytest.raises(error, match=says):
            pickle.dumps(thing)
    assert future.result(LIMIT) == 1


@pytest.mark.parametrize("is_ready", [True, False])
def test_what_is_being_handled_is_the_context_of_what_a_job_raised(
    executor: Any, is_ready: bool
) -> None:
    """As for any exception that is raised in an except block."""
    future = executor.submit(int, "no number")
    if is_ready:
        concurrent.futures.wait([future], LIMIT)
    with pytest.raises(ValueError, match="no number") as caught:
        try:
            raise KeyError("looked up first")
        except KeyError:
            future.result(LIMIT)
    assert isinstance(caught.value.__context__, KeyError)
    with pytest.raises(ValueError, match="another") as caught:
        try:
            raise KeyError("looked up first")
        except KeyError:
            list(executor.map(int, ["another"]))
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.parametrize(
    "name",
    [
        *("result", "exception", "done", "running", "cancelled", "cancel"),
        *("add_done_callback", "set_running_or_notify_cancel"),
    ],
)
def test_a_futures_methods_have_signatures(executor: Any, name: str) -> None:
    """The standard future's."""
    standard = inspect.signature(getattr(concurrent.futures.Future(), name))
    assert inspect.signature(getattr(executor.submit(abs, 1), name)) == standard


def test_a_first_job_opens_no_file(kind: Kind) -> None:
    """A process that has no descriptor left may submit."""
    check_script(
        """
        import importlib, os, resource, sys
        executor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor(2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.dup(1))
        except OSError:
            pass
        assert executor.submit(int).result(20) == 0
        os._exit(0)  # standard: importing what the exit needs would fail
        """,
        kind.module,
    )


def test_a_future_is_an_ordinary_object(executor: Any) -> None:
    """It has a hash, is equal to itself only, and takes attributes."""
    one, other = executor.submit(ex.echo, 1), executor.submit(ex.echo, 1)
    one.mine = Box()
    assert one == one and one != other
    assert len({one, other, one}) == 2
    assert isinstance(one.mine, Box)


def test_a_finished_future_stays_finished(executor: Any) -> None:
    """Whoever sets it again is told."""
    future = executor.submit(ex.echo, 1)
    future.result(LIMIT)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


@pytest.mark.parametrize("look", [repr, id], ids=["observed", "only called back"])
def test_cancel_while_the_arguments_die(
    only_ours: Kind, gate: Gate, look: Callable[[Any], object]
) -> None:
    """Their end runs code, during which a worker finds the job and tells who observes the future.

    Then cancel() told them once more: 'Future in unexpected state'.
    """
    executor = only_ours.new(1)
    hold(executor, gate, 1)

    class Argument:
        def __del__(self) -> None:
            gate.open()
            executor.submit(abs, 0).result(LIMIT)

    future = executor.submit(id, Argument())
    look(future)
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    assert future.cancel()
    block_until(lambda: seen)
    assert concurrent.futures.wait([future], LIMIT).not_done == set()
    assert list(concurrent.futures.as_completed([future], LIMIT)) == [future]
    assert seen == [future]
    executor.shutdown()


def test_a_finalizer_asks_for_the_result_that_is_being_made(only_ours: Kind) -> None:
    """RuntimeError for whoever asks while his own thread converts it; then the result.

    He waited for himself, without end. Up to Python 3.11 a collection runs in the conversion.
    """
    asked: list[str] = []

    class Cycle:
        def __init__(self, future: Future[Any]) -> None:
            self.myself, self.future = self, future

        def __del__(self) -> None:
            try:
                asked.append(repr(self.future.result()))
            except RuntimeError as error:
                asked.append(str(error))

    threshold = gc.get_threshold()
    with only_ours.new(1) as executor:
        future = executor.submit(ex.fail, "runtime_error")
        block_until(future.done)
        gc.disable()
        Cycle(future)
        gc.set_threshold(1)
        try:
            with pytest.raises(RuntimeError, match=r"^fail: runtime_error"):
                gc.enable()  # the next thing of the collector's that is made is the exception
                future.result(LIMIT)
        finally:
            gc.enable()
            gc.set_threshold(*threshold)
        gc.collect()
    (answer,) = asked
    assert "while this thread converts it" in answer or sys.version_info >= (3, 12)


def test_a_time_limit_is_not_waited_out_twice(
    only_ours: Kind, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """Where somebody looks at the future while result() waits, and those told of it are held up.

    Then result() waited for the job, and for as long again to be told.
    """
    limit = 2.0
    executor = only_ours.new(1)
    told = threading.Event()
    ended: list[float] = []

    def wait() -> None:
        with pytest.raises(TimeoutError):
            future.result(limit)
        ended.append(time.monotonic())

    hold_callbacks(executor, told)
    hold(executor, gate, 1)
    future = executor.submit(ex.echo, 1)
    begun = time.monotonic()
    thread = in_thread(wait)
    try:
        time.sleep(0.1)  # by then it waits
        repr(future)
        time.sleep(0.7 * limit)
        gate.open()
        came_back = time.monotonic()
        thread.join(LIMIT)
    finally:
        told.set()
    assert begun + limit <= ended[0] < came_back + limit
    assert future.result(LIMIT) == 1
    executor.shutdown()
