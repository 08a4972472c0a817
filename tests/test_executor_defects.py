"""Defects of the standard pool that ours does not have: each test is red there and green here.

`xfail(strict=True)` keeps this true: a test that passes on the standard pool fails the suite.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executors import OURS, PRELUDE, STANDARD, Kind, both_sorts, hold
from support import LIMIT, Gate, LoopErrors, block_until, check_script

from offgil import examples as ex

# Newer releases have mended these two (gh-132063, gh-112182); the source says whether this one has.
FALSE_IS_SUCCESS = "if self._exception:" in inspect.getsource(
    concurrent.futures.Future._Future__get_result  # type: ignore[attr-defined]
)
STOP_ITERATION_IS_LOST = "raise TypeError" in inspect.getsource(
    asyncio.futures._PyFuture.set_exception  # type: ignore[attr-defined]
)

# How long a test waits for what the standard pool never does.
SHORT = 0.3


def standard_pool(says: str, raises: Any = AssertionError, there: bool = True) -> Any:
    """Run a test on both pools; expect it to fail on the standard one, if the defect is `there`."""
    defect = pytest.mark.xfail(there, reason=says, raises=raises, strict=True)
    kinds = [pytest.param(STANDARD, id="standard", marks=defect), pytest.param(OURS, id="ours")]
    return pytest.mark.parametrize("kind", kinds)


def patience(kind: Kind) -> float:
    return LIMIT if kind.ours else SHORT


# --------------------------------------------------------------------------------------------------
# 1


@standard_pool("the worker dies, and with it the pool", TimeoutError)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@both_sorts
def test_a_callback_raises_a_base_exception(
    make_executor: Callable[..., Any],
    kind: Kind,
    gate: Gate,
    caplog: pytest.LogCaptureFixture,
    echo: Callable[[int], int],
    error: type[BaseException],
) -> None:
    """It is logged as any exception is; the callbacks after it run, and the worker lives."""
    executor = make_executor(1)
    hold(executor, gate, 1)
    future = executor.submit(echo, 1)
    seen: list[Any] = []

    def fail(_: Any) -> None:
        raise error("in a callback")

    future.add_done_callback(fail)
    future.add_done_callback(seen.append)
    gate.open()
    assert future.result(LIMIT) == 1
    assert executor.submit(echo, 2).result(patience(kind)) == 2
    assert executor.submit(abs, -3).result(patience(kind)) == 3
    block_until(lambda: seen == [future])
    (record,) = (r for r in caplog.records if r.name == "concurrent.futures")
    assert record.getMessage() == f"exception calling callback for {future!r}"
    assert record.exc_info is not None and record.exc_info[0] is error


# --------------------------------------------------------------------------------------------------
# 2

NO_THREAD = (
    PRELUDE
    + """
    import ctypes
    import offgil.examples as ex
    shim = ctypes.CDLL(None)

    for n in (1, 2, 3):
        executor = ThreadPoolExecutor(3)
        shim.fail_thread(n, 1)
        for fn, args in ((x, ()), (ex.echo, (1,)), (x, ())):
            try:
                executor.submit(fn, *args)
            except RuntimeError as error:
                assert "thread" in str(error) and n == 1, error
            else:
                assert n > 1, "no error though no thread could be had"
        shim.fail_thread(0, 0)
        # What could not be had then can be had now.
        assert executor.submit(abs, -1).result(10) == 1
        assert executor.submit(ex.echo, 2).result(10) == 2
        executor.shutdown()
"""
)


@standard_pool("the job of a submit that failed runs later")
def test_a_thread_that_cannot_start(kind: Kind, thread_shim: Path) -> None:
    """RuntimeError, and that submit's job never runs; the executor serves when threads can be had.

    Where a later one cannot start, the first does all the work.
    """
    ran = check_script(NO_THREAD, kind.module, LD_PRELOAD=str(thread_shim))
    assert ran == "xxxx", "where the first thread could be had, and only there"


# --------------------------------------------------------------------------------------------------
# 3

FORK = (
    PRELUDE
    + """
    import offgil, offgil.examples as ex

    patience = float(sys.argv[2])
    executor = ThreadPoolExecutor(1)
    held = threading.Event()
    running = executor.submit(held.wait, 20)
    while not running.running():
        time.sleep(0.001)
    pending = [executor.submit(abs, -1), executor.submit(ex.echo, 1)]
    unused = ThreadPoolExecutor(1)

    def child():
        for call in (
            lambda: executor.submit(abs, -1).result(patience),
            lambda: executor.submit(ex.echo, 1).result(patience),
            *(lambda f=f: f.result(patience) for f in pending),
            lambda: pending[0].exception(patience),
        ):
            try:
                call()
            except RuntimeError as error:
                # The standard library has no name for it.
                assert isinstance(error, offgil.PoolBroken), error
            except TimeoutError:
                print("waited for a thread that is not there", flush=True)
                os._exit(1)
        executor.shutdown(wait=False)
        with ThreadPoolExecutor(2) as new:
            assert list(new.map(abs, range(10))) == list(new.map(ex.echo, range(10)))
        assert unused.submit(abs, -1).result(20) == 1
        x()

    pid = os.fork()
    if not pid:
        signal.alarm(20)
        child()
        sys.exit()  # by the ordinary exit
    status = os.waitpid(pid, 0)[1]
    held.set()
    assert status == 0
    assert [f.result(20) for f in (running, *pending)] == [True, 1, 1]
    executor.shutdown()
    x()
"""
)


@standard_pool("a forked child waits for ever")
def test_a_forked_child(kind: Kind) -> None:
    """PoolBroken at once, from submit and from a future that was pending; the parent goes on.

    A new executor, and one that had not been used, serve in the child, which ends normally.
    """
    assert check_script(FORK, kind.module, str(patience(kind))) == "xx"


FORK_AND_LOOK = (
    PRELUDE
    + """
    import offgil, offgil.examples as ex

    patience = float(sys.argv[2])
    executor = ThreadPoolExecutor(1)
    held = threading.Event()
    running = executor.submit(held.wait, 20)
    while not running.running():
        time.sleep(0.001)
    jobs = [(abs, -1), (ex.echo, 1)]
    fresh, observed, kept = ([executor.submit(*job) for job in jobs] for _ in range(3))
    pending = [running, *fresh, *observed, *kept]
    concurrent.futures.wait(observed, 0)
    called = []
    for future in kept:
        future.add_done_callback(called.append)

    def child():
        if concurrent.futures.wait(pending, patience).not_done:
            print("waited for a thread that is not there", flush=True)
            os._exit(1)
        for future in concurrent.futures.as_completed(pending, 20):
            assert future.done() and not (future.running() or future.cancelled() or future.cancel())
            assert isinstance(future.exception(), offgil.PoolBroken)
            assert "raised PoolBroken" in repr(future)
            future.add_done_callback(called.append)
        assert set(called[:2]) == set(kept) and len(called) == 2 + len(pending)
        x()

    pid = os.fork()
    if not pid:
        signal.alarm(20)
        child()
        sys.exit()
    status = os.waitpid(pid, 0)[1]
    held.set()
    assert status == 0
    assert [f.result(20) for f in pending] == [True] + 6 * [1]
    executor.shutdown()
    assert called == kept
    x()
"""
)


@standard_pool("a forked child waits for ever")
def test_a_forked_child_looks_at_a_future(kind: Kind) -> None:
    """What was pending has failed there, for wait() too, and tells so by its callbacks.

    wait() waited for ever where result() raised PoolBroken.
    """
    assert check_script(FORK_AND_LOOK, kind.module, str(patience(kind))) == "xx"


# --------------------------------------------------------------------------------------------------
# 4

NESTED = (
    PRELUDE
    + """
    workers, how, patience = int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    executor = ThreadPoolExecutor(workers)
    together = threading.Barrier(workers)

    def outer():
        together.wait(10)
        return getattr(executor.submit(abs, -1), how)()

    futures = [executor.submit(outer) for _ in range(workers)]
    try:
        errors = [future.exception(patience) for future in futures]
    except TimeoutError:
        print("deadlock", flush=True)
        os._exit(1)
    # At least the last one is told; whoever waited before it may have been served since.
    told = [error for error in errors if error is not None]
    assert told and all(type(error) is RuntimeError for error in told), errors
    assert executor.submit(abs, -5).result(20) == 5
    executor.shutdown()
    x()
"""
)


@standard_pool("a deadlock, in silence")
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("how", ["result", "exception"])
def test_a_job_waits_for_a_job_of_the_same_full_pool(kind: Kind, workers: int, how: str) -> None:
    """RuntimeError in the job that would wait for ever; the executor goes on."""
    assert check_script(NESTED, kind.module, str(workers), how, str(patience(kind))) == "x"


# --------------------------------------------------------------------------------------------------
# 5


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Empty(Exception):
    def __len__(self) -> int:
        return 0


def fail_with(error: type[Exception]) -> None:
    raise error("yet an exception")


@standard_pool(
    "the exception is returned as success", pytest.fail.Exception, there=FALSE_IS_SUCCESS
)
@pytest.mark.parametrize("error", [Falsy, Empty])
def test_an_exception_that_is_false(
    make_executor: Callable[..., Any], kind: Kind, error: type[Exception]
) -> None:
    """It is raised all the same."""
    future = make_executor(1).submit(fail_with, error)
    assert isinstance(future.exception(LIMIT), error)
    with pytest.raises(error):
        future.result()


# --------------------------------------------------------------------------------------------------
# 6


@standard_pool("the awaiting task is never told", TimeoutError, there=STOP_ITERATION_IS_LOST)
async def test_a_job_raises_stop_iteration(
    make_executor: Callable[..., Any], kind: Kind, loop_errors: LoopErrors
) -> None:
    """Whoever awaits it gets RuntimeError, from the StopIteration."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(make_executor(1), next, iter(()))
    try:
        with pytest.raises(RuntimeError) as caught:
            await asyncio.wait_for(future, patience(kind))
        assert isinstance(caught.value.__cause__, StopIteration)
    finally:
        if not kind.ours:
            loop_errors.take()


# --------------------------------------------------------------------------------------------------
# 7


@standard_pool("'cannot join current thread', and the pool is shut down", RuntimeError)
@pytest.mark.parametrize("cancel_futures", [True, False])
def test_a_worker_waits_for_its_own_end(
    make_executor: Callable[..., Any], kind: Kind, gate: Gate, cancel_futures: bool
) -> None:
    """RuntimeError, and nothing changed: what waits is not cancelled, and submits are accepted."""
    executor = make_executor(1)

    def job() -> None:
        gate()
        executor.shutdown(cancel_futures=cancel_futures)

    future = executor.submit(job)
    waiting = [executor.submit(abs, -1), executor.submit(ex.echo, 1)]
    gate.open()
    assert type(future.exception(LIMIT)) is RuntimeError
    assert executor.submit(abs, -2).result(LIMIT) == 2
    assert [f.result(LIMIT) for f in waiting] == [1, 1]


# --------------------------------------------------------------------------------------------------
# and one more


@standard_pool("wait() never hears of a job that shutdown has cancelled")
def test_wait_for_what_a_shutdown_cancels(
    make_executor: Callable[..., Any], kind: Kind, gate: Gate
) -> None:
    """wait and as_completed count a job that shutdown(cancel_futures=True) cancelled as done."""
    executor = make_executor(1)
    hold(executor, gate, 1)
    waiting = [executor.submit(fn, 1) for fn in (abs, ex.echo) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open()
    done, _ = concurrent.futures.wait(waiting, patience(kind))
    assert done == set(waiting)
    assert set(concurrent.futures.as_completed(waiting, LIMIT)) == set(waiting)
