"""Where ours differs from the standard pool on purpose: one test each, with both expectations.

The README has the same list; the defects of the standard pool are in test_executor_defects.py.
"""

from __future__ import annotations

import concurrent.futures
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from executors import PRELUDE, Kind, hold
from support import LIMIT, Gate, block_until, blocked_by_threads, check_script, run_script

import offgil
from offgil import examples as ex


def test_what_cannot_be_called(executor: Any, kind: Kind) -> None:
    """Standard: the job fails. Ours: TypeError at submit, and nothing is queued."""
    for fn in (None, 5, "echo", object()):
        if kind.ours:
            with pytest.raises(TypeError, match=rf"\bfn\b.*{type(fn).__name__}"):
                executor.submit(fn)
        else:
            assert isinstance(executor.submit(fn).exception(LIMIT), TypeError)


def test_arguments_that_a_native_function_does_not_take(executor: Any, kind: Kind) -> None:
    """Standard: the job fails. Ours: the same error at submit, where the caller is."""
    for fn, args, error in (
        (ex.echo, ("x",), TypeError),
        (ex.echo, (), TypeError),
        (ex.echo, (1, 2), TypeError),
        (ex.echo, (2**70,), OverflowError),
    ):
        if kind.ours:
            with pytest.raises(error, match="echo"):
                executor.submit(fn, *args)
        else:
            assert isinstance(executor.submit(fn, *args).exception(LIMIT), error)
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1


def test_a_job_raises_stop_iteration(executor: Any, kind: Kind) -> None:
    """Standard: result() raises it. Ours: RuntimeError from it, as inside a generator."""
    future = executor.submit(next, iter(()))
    error = future.exception(LIMIT)
    if kind.ours:
        assert type(error) is RuntimeError and isinstance(error.__cause__, StopIteration)
        with pytest.raises(RuntimeError):
            future.result()
    else:
        assert type(error) is StopIteration


def test_where_a_native_jobs_callbacks_run(
    make_executor: Callable[..., Any], kind: Kind, gate: Gate
) -> None:
    """Standard: on the worker. Ours: on a thread for callbacks, which Python knows by name."""
    executor = make_executor(1, "mine")
    hold(executor, gate, 1)
    seen: list[tuple[str, bool]] = []

    def note(_: Any) -> None:
        thread = threading.current_thread()
        seen.append((thread.name, thread in threading.enumerate()))

    for _ in range(3):
        executor.submit(ex.spin, 1).add_done_callback(note)
    gate.open()
    block_until(lambda: len(seen) == 3)
    assert set(seen) == {("mine-gil" if kind.ours else "mine_0", True)}


def test_signals_on_a_worker(make_executor: Callable[..., Any], kind: Kind) -> None:
    """Blocked as by who starts it: a child process inherits that.

    Python's handlers run on the main thread either way.
    """
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        executor = make_executor(1, "masked")
        for _ in range(65):  # so many that they get a thread that brings them
            executor.submit(ex.echo, 1).result(LIMIT)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
    makers = usual | {signal.SIGUSR2}
    blocked = blocked_by_threads("masked")
    if kind.ours:
        block_until(lambda: blocked_by_threads("masked").get("masked-gil") == makers)
    if kind.ours or sys.version_info >= (3, 14):  # before, a thread's name was Python's alone
        assert blocked["masked_0"] == makers
    else:
        assert not blocked
    assert executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(LIMIT) == makers


LATE = (
    PRELUDE
    + """
    import offgil.examples as ex
    executor = ThreadPoolExecutor(2)
    executor.submit(x).result(10)

    def late():
        threading.main_thread().join()
        try:
            assert executor.submit(ex.echo, 5).result(10) == 5
            executor.submit(x).result(10)
            assert list(executor.map(abs, range(-9, 0))) == [*range(9, 0, -1)]
            executor.submit(x)
        except RuntimeError as error:
            print(error, flush=True)

    threading.Thread(target=late).start()
"""
)


def test_a_thread_that_outlives_the_main_one(kind: Kind) -> None:
    """Standard: refused (CPython #148280). Ours: it may submit, and nothing of it is lost."""
    out = check_script(LATE, kind.module)
    if kind.ours:
        assert out == "xxx"
    else:  # a worker may have called the executor shut down before
        assert re.fullmatch("xcannot schedule new futures after (interpreter )?shutdown\n", out)


@pytest.mark.parametrize("timeout", [1e100, float("inf")])
def test_a_time_limit_beyond_all_time(
    executor: Any, kind: Kind, gate: Gate, timeout: float
) -> None:
    """Standard: OverflowError. Ours: it waits as without a limit."""
    (held,) = hold(executor, gate, 1)
    if kind.ours:
        threading.Timer(0.02, gate.open).start()
        assert held.result(timeout) == "through the gate"
    else:
        with pytest.raises(OverflowError):
            held.result(timeout)
        gate.open()


def test_buffersize(executor: Any, kind: Kind) -> None:
    """Standard: from Python 3.14 on. Ours: on every version (see test_executor_map.py)."""
    if kind.ours or sys.version_info >= (3, 14):
        assert list(executor.map(abs, [-1, -2], buffersize=1)) == [1, 2]
    else:
        with pytest.raises(TypeError):
            executor.map(abs, [-1, -2], buffersize=1)


def test_a_bound(kind: Kind) -> None:
    """Standard: none. Ours: max_pending (see test_executor_backpressure.py)."""
    if kind.ours:
        kind.new(1, max_pending=1, on_full="raise").shutdown()
    else:
        with pytest.raises(TypeError):
            kind.new(1, max_pending=1)


def test_stats(only_ours: Kind) -> None:
    """Standard: none. Ours counts as a pool does; native jobs that nobody watches need no GIL."""
    with only_ours.new(1) as executor:
        stats: Callable[[], offgil.PoolStats] = executor.stats  # type: ignore[attr-defined]
        for _ in range(65):  # so many that they get a thread that brings them
            executor.submit(ex.echo, 1).result(LIMIT)
        block_until(lambda: stats().gil_acquisitions >= 1)
        time.sleep(0.05)  # what they have left behind lingers
        before = stats().gil_acquisitions
        begin = time.monotonic()
        futures = [executor.submit(ex.spin, 1) for _ in range(100)]
        assert all(future.exception(LIMIT) is None for future in futures)
        taken = stats().gil_acquisitions - before
        # What nobody watches lingers for 20 ms before a thread brings it: until then, none.
        assert taken <= (time.monotonic() - begin) // 0.020
        executor.submit(ex.fail, "int").exception(LIMIT)
        executor.submit(int, "x").exception(LIMIT)
        executor.submit(abs, -1).result(LIMIT)
    s = stats()
    assert (s.submitted, s.completed, s.failed) == (168, 166, 2)
    assert s.pending == s.running == s.cancelled == s.expired == 0


def test_the_thread_of_a_job(executor: Any, kind: Kind) -> None:
    """Standard: a Thread. Ours: a stand-in with the worker's name, each time the same."""

    def me() -> threading.Thread:
        return threading.current_thread()

    threads = {executor.submit(me).result(LIMIT) for _ in range(20)}
    assert {type(thread).__name__ for thread in threads} == {
        "_DummyThread" if kind.ours else "Thread"
    }
    assert {thread.daemon for thread in threads} == {False}
    assert len(threads) <= executor._max_workers


def test_what_is_inside(executor: Any, kind: Kind) -> None:
    """Standard: a set of threads and a queue. Ours: neither; `submit` is not the base's."""
    executor.submit(abs, -1).result(LIMIT)
    assert {hasattr(executor, name) for name in ("_threads", "_work_queue")} == {not kind.ours}
    standard = concurrent.futures.ThreadPoolExecutor
    assert (type(executor).submit is standard.submit) == (not kind.ours)
    assert isinstance(executor, standard) and type(executor).__name__ == "ThreadPoolExecutor"


@pytest.mark.parametrize("workers", [True, 1.5])
def test_a_number_of_workers_that_is_no_int(kind: Kind, workers: Any) -> None:
    """Standard: accepted. Ours: TypeError."""
    if kind.ours:
        with pytest.raises(TypeError, match="workers"):
            offgil.ThreadPoolExecutor(workers)
    else:
        concurrent.futures.ThreadPoolExecutor(workers).shutdown()


GREEN = {
    "gevent": """
        import gevent.monkey
        gevent.monkey.patch_all()
    """,
    "something like it": """
        import concurrent.futures.thread, threading
        threading.Lock = type("Semaphore", (), {"__module__": "eventlet.semaphore"})
    """,
}


@pytest.mark.parametrize("code", GREEN.values(), ids=GREEN)
def test_green_threads_are_refused(only_ours: Kind, code: str) -> None:
    """Whoever waited for a future stopped all greenlets, or waited for ever; a pool is fine."""
    if "gevent" in code:
        pytest.importorskip("gevent")
    done = run_script(
        code
        + """
        import offgil
        for make in (offgil.ThreadPoolExecutor, lambda: offgil.Pool(1).executor):
            try:
                make()
            except RuntimeError as error:
                print(error)
        """
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second and re.match("(gevent|eventlet) has patched threading", first)


def test_green_threads_that_leave_threading_alone(only_ours: Kind) -> None:
    """Are no reason to refuse."""
    pytest.importorskip("gevent")
    done = run_script("""
        import gevent.monkey
        gevent.monkey.patch_all(thread=False)
        import offgil, offgil.examples as ex
        with offgil.ThreadPoolExecutor(1) as executor:
            print(executor.submit(ex.echo, 1).result(10), executor.submit(abs, -2).result(10))
    """)
    assert done.stdout == "1 2\n", done.stderr
