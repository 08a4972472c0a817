"""The worker threads as Python sees them: names, frames, tracing, thread data, initializers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path
from typing import Any

import pytest
from executors import PRELUDE, Kind
from made_natives import PATH
from support import LIMIT, Gate, block_until, check_script, os_threads, run_script

import offgil
from offgil import examples as ex

# --------------------------------------------------------------------------------------------------
# signals


def check_terminates(child: subprocess.Popen[bytes]) -> None:
    try:
        child.terminate()
        assert child.wait(LIMIT / 4) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_when_threads_start(make_executor: Callable[..., Any]) -> None:
    """One for a submit that finds none idle; for three in turn one, or two on a busy machine."""
    started: list[int] = []
    executor = make_executor(4, initializer=lambda: started.append(threading.get_ident()))
    for _ in range(3):
        executor.submit(abs, -1).result(LIMIT)
        time.sleep(0.05)  # until it is idle again
    assert 1 <= len(started) <= 2
    gate = threading.Event()
    waiting = [executor.submit(gate.wait, LIMIT) for _ in range(6)]
    block_until(lambda: len(set(started)) == 4)
    gate.set()
    assert all(future.result(LIMIT) for future in waiting)


def test_a_child_process_of_a_job(executor: Any) -> None:
    """It can be terminated. It inherited a mask that blocks every signal."""
    check_terminates(executor.submit(subprocess.Popen, ["sleep", "60"]).result(LIMIT))


@pytest.mark.parametrize("delivery", ["eventfd", "callback"])
async def test_a_child_process_of_a_pools_job(delivery: str) -> None:
    """The same from a pool, and from `to_thread`."""
    async with offgil.Pool(1, delivery=delivery) as pool:
        check_terminates(await pool.submit(subprocess.Popen, ["sleep", "60"]))
    check_terminates(await offgil.to_thread(subprocess.Popen, ["sleep", "60"]))


CRASH = (
    PRELUDE
    + """
    import ctypes, faulthandler, resource
    from made_natives import made_native

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def crash():
        ctypes.string_at(0)

    crash = {"python": crash, "native": made_native(crashes=True)}[sys.argv[2]]
    ThreadPoolExecutor(1).submit(crash).result()
"""
)


@pytest.mark.parametrize("sort", ["python", "native"])
def test_the_fault_handler_sees_a_crash_in_a_job(kind: Kind, sort: str) -> None:
    """It says so, with the job's frames. The process ended without a word."""
    done = run_script(CRASH, kind.module, sort, **PATH)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr
    if sort == "python":
        assert "in crash" in done.stderr


# --------------------------------------------------------------------------------------------------
# names and frames


def me() -> tuple[str, bool, bool, bool]:
    """Say who runs this, and whether threading knows it."""
    thread = threading.current_thread()
    return (
        thread.name,
        thread in threading.enumerate(),
        thread.ident == threading.get_ident() and thread.native_id == threading.get_native_id(),
        thread.is_alive(),
    )


def test_a_job_knows_its_thread(make_executor: Callable[..., Any], gate: Gate) -> None:
    """current_thread() is <prefix>_<n>, alive, and in threading.enumerate()."""
    executor = make_executor(3, "mine")
    both = threading.Barrier(3)

    def job() -> tuple[str, bool, bool, bool]:
        both.wait(LIMIT)
        return me()

    seen = [future.result(LIMIT) for future in [executor.submit(job) for _ in range(3)]]
    assert sorted(seen) == [(f"mine_{n}", True, True, True) for n in range(3)]


def test_the_default_name(kind: Kind) -> None:
    """ThreadPoolExecutor-<m>_<n>, with another m for each executor."""
    names = []
    for _ in range(2):
        with kind.new(1) as executor:
            names.append(executor.submit(me).result(LIMIT)[0])
    assert names[0] != names[1]
    assert all(re.fullmatch(r"ThreadPoolExecutor-\d+_0", name) for name in names)


def test_the_default_number_of_workers(kind: Kind) -> None:
    """As many as the standard executor would start."""
    with kind.new() as executor, Kind("standard", "concurrent.futures").new() as standard:
        assert executor._max_workers == standard._max_workers


def test_a_worker_is_one_thread_to_python(make_executor: Callable[..., Any]) -> None:
    """From job to job the same Thread object, and thread-local data stays."""
    executor = make_executor(1)
    mine = threading.local()

    def count() -> tuple[int, int]:
        mine.count = getattr(mine, "count", 0) + 1
        return mine.count, id(threading.current_thread())

    seen = []
    for _ in range(20):
        seen.append(executor.submit(count).result(LIMIT))
        executor.submit(ex.spin, 1).result(LIMIT)
    assert [n for n, _ in seen] == [*range(1, 21)]
    assert len({thread for _, thread in seen}) == 1


def a_job_that_stands_still(gate: Gate) -> str:
    return gate()


def test_a_debugger_sees_the_jobs_frames(executor: Any, gate: Gate, tmp_path: Path) -> None:
    """sys._current_frames and faulthandler's dump show the job, under its thread's identity."""
    futures = [executor.submit(a_job_that_stands_still, gate) for _ in range(2)]
    block_until(lambda: all(future.running() for future in futures))

    def names(frame: Any) -> list[str]:
        found = []
        while frame is not None:
            found.append(frame.f_code.co_name)
            frame = frame.f_back
        return found

    def workers() -> list[int]:
        frames = sys._current_frames()
        return [t for t, f in frames.items() if "a_job_that_stands_still" in names(f)]

    block_until(lambda: len(workers()) == 2)
    known = {thread.ident: thread.name for thread in threading.enumerate()}
    assert all(re.search(r"_[01]$", known[ident]) for ident in workers())
    with open(tmp_path / "dump", "w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        assert file.read().count("in a_job_that_stands_still") == 2
    gate.open()


def traced(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_hooks_set_through_threading(kind: Kind, name: str) -> None:
    """threading.setprofile and settrace apply to every job of workers that start afterwards."""
    seen: list[tuple[str, str]] = []

    def hook(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is traced.__code__:
            seen.append((event, threading.current_thread().name))
        return hook

    set_hook = getattr(threading, f"set{name}")
    set_hook(hook)
    try:
        with kind.new(1, "hooked") as executor:
            for i in range(3):
                assert executor.submit(traced, i).result(LIMIT) == i + 1
    finally:
        set_hook(None)
    assert {thread for _, thread in seen} == {"hooked_0"}
    events = [event for event, _ in seen]
    assert events.count("call") == events.count("return") == 3
    if name == "trace":
        assert events.count("line") == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
@pytest.mark.parametrize("name", ["profile", "trace"])
def test_hooks_set_in_all_threads(make_executor: Callable[..., Any], name: str) -> None:
    """threading.setprofile_all_threads and settrace_all_threads reach workers that exist."""
    executor = make_executor(1)
    assert executor.submit(traced, 1).result(LIMIT) == 2
    seen: list[str] = []

    def hook(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is traced.__code__:
            seen.append(event)
        return hook

    set_hook = getattr(threading, f"set{name}_all_threads")
    set_hook(hook)
    try:
        assert executor.submit(traced, 1).result(LIMIT) == 2
    finally:
        set_hook(None)
    assert "call" in seen


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_a_worker_inherits_the_context_where_threads_do(kind: Kind) -> None:
    """Warnings that are caught in the submitting thread are caught in a job too."""
    check_script(
        """
        import contextvars, importlib, sys, warnings
        executor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor(1)
        value = contextvars.ContextVar("value", default=None)

        def job():
            warnings.warn("seen")
            return value.get()

        value.set(7)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert executor.submit(job).result(20) == 7
            assert len(seen) == 1
            value.set(8)  # the worker is there already
            assert executor.submit(job).result(20) == 7
        executor.shutdown()
        """,
        kind.module,
        PYTHON_THREAD_INHERIT_CONTEXT="1",
        PYTHON_CONTEXT_AWARE_WARNINGS="1",
    )


def test_a_deep_recursion_is_an_exception(executor: Any) -> None:
    """RecursionError, not the end of the process: the stack is large enough."""

    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    assert isinstance(executor.submit(deeper, 0).exception(LIMIT), RecursionError)
    assert executor.submit(abs, -1).result(LIMIT) == 1


STACKS = """
    import asyncio, ctypes, importlib, sys, threading

    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_ulong

    def stack(*_):
        attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
        assert libc.pthread_getattr_np(ctypes.c_ulong(libc.pthread_self()), attributes) == 0
        assert libc.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
        return size.value >> 10

    def of_thread():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(stack()))
        thread.start()
        thread.join()
        return seen[0]
"""


def test_a_worker_has_the_stack_of_a_python_thread(kind: Kind) -> None:
    """Of the size that is current when the job comes, as threading.stack_size() has it."""
    out = check_script(
        STACKS
        + """
    ThreadPoolExecutor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor
    for size in 0, 256, 300 * 1024:
        with ThreadPoolExecutor(1) as executor:
            threading.stack_size(size << 10)
            print(executor.submit(stack).result(10) == of_thread())
    """,
        kind.module,
    )
    assert out.split() == ["True"] * 3


def test_stacks_at_the_other_doors(only_ours: Kind) -> None:
    """A pool, the process's own, asyncio's default executor, and the threads of callbacks."""
    out = check_script(
        STACKS
        + """
    import offgil, offgil.examples as ex

    async def main():
        async with offgil.Pool(1) as pool:
            print(await pool.submit(stack))
        print(await offgil.to_thread(stack))
        offgil.install()
        print(await asyncio.to_thread(stack))

    threading.stack_size(300 << 20)
    asyncio.run(main())
    with offgil.ThreadPoolExecutor(1) as executor:
        gate = threading.Event()
        executor.submit(gate.wait)
        seen = []
        executor.submit(ex.echo, 1).add_done_callback(lambda _: seen.append(stack()))
        gate.set()
    print(*seen)
    """
    )
    assert out.split() == [str(300 << 10)] * 4


def test_a_job_recurses_as_deeply_as_the_stack_allows(kind: Kind) -> None:
    """Through C: what the size of the stack is there for. Pythons have limits of their own."""
    out = check_script(
        """
        import importlib, sys, threading

        def deep(n):
            return 0 if n == 0 else 1 + max(map(deep, (n - 1,)))

        sys.setrecursionlimit(60_000)
        threading.stack_size(256 << 20)
        ThreadPoolExecutor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor
        with ThreadPoolExecutor(1) as executor:
            error = executor.submit(deep, 25_000).exception(30)
        assert error is None or isinstance(error, RecursionError), error
        print(sys.version_info < (3, 12), error is None)
        """,
        kind.module,
    )
    before_3_12, returned = out.split()
    assert returned == "True" or before_3_12 == "False"


def test_many_workers_with_little_memory(kind: Kind) -> None:
    """Small stacks are what makes room for them."""
    check_script(
        """
        import importlib, resource, sys, threading

        threading.stack_size(256 << 10)
        resource.setrlimit(resource.RLIMIT_AS, (3_000_000 << 10, 3_000_000 << 10))
        ThreadPoolExecutor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor
        with ThreadPoolExecutor(400) as executor:
            all_of_them = threading.Barrier(400)
            for future in [executor.submit(all_of_them.wait, 20) for _ in range(400)]:
                future.result(20)
        """,
        kind.module,
        MALLOC_ARENA_MAX="2",  # each takes 64 MiB of addresses
    )


FORK = """
    import os, sys, threading, time, warnings
    import offgil, offgil.examples as ex

    warnings.simplefilter("ignore", DeprecationWarning)  # os.fork with threads
    over = threading.Event()

    def fork(after, in_child=lambda: None):
        time.sleep(after)
        pid = os.fork()
        if pid == 0:
            in_child()
            os._exit(0)
        give_up = time.monotonic() + 3
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > give_up:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                print("the child hangs", flush=True)
                break
            time.sleep(0.001)
        over.set()
"""


def test_a_callback_forks_while_a_thread_begins(only_ours: Kind, slow_locks_shim: str) -> None:
    """The one that stands by. Up to 3.11 the child waited for a lock of the interpreter's."""
    out = check_script(
        FORK
        + """
    for after in (0, 0.001, 0.002, 0.004):
        over.clear()
        with offgil.ThreadPoolExecutor(1) as executor:
            gate = threading.Event()
            executor.submit(gate.wait)
            executor.submit(ex.echo, 1).add_done_callback(lambda _: fork(after))
            gate.set()
            assert over.wait(15)
    """,
        SLOW="-gil",
        LD_PRELOAD=slow_locks_shim,
    )
    assert out == ""


def test_a_fork_while_allocations_are_traced(only_ours: Kind) -> None:
    """Then a thread that begins needs the GIL, which the thread that forks has."""
    out = check_script(
        FORK
        + """
    import tracemalloc

    def use_another():
        with offgil.ThreadPoolExecutor(1) as another:
            assert another.submit(abs, -1).result(5) == 1

    tracemalloc.start()
    for i in range(20):
        executor = offgil.ThreadPoolExecutor(2)
        executor.submit(abs, 1)
        fork(0.0001 * (i % 4), in_child=use_another)
        executor.shutdown()
    """
    )
    assert out == ""


def test_a_job_forks_while_a_worker_begins(only_ours: Kind, slow_locks_shim: str) -> None:
    """Its neighbour, with its first Python job."""
    out = check_script(
        FORK
        + """
    for after in (0, 0.001, 0.002, 0.004):
        over.clear()
        with offgil.ThreadPoolExecutor(2, "slow") as executor:
            both = threading.Barrier(2)
            for i in range(2):  # native jobs: no state of Python's is made for them
                executor.submit(ex.sleep, 0.05)
            executor.submit(fork, after)
            executor.submit(abs, 1)
            assert over.wait(15)
    """,
        SLOW="slow_1",
        LD_PRELOAD=slow_locks_shim,
    )
    assert out == ""


# --------------------------------------------------------------------------------------------------
# initializers


def test_the_initializer_runs_on_each_worker(make_executor: Callable[..., Any]) -> None:
    """Once, before its first job, with initargs, on the same thread with the same name."""
    mine = threading.local()
    started: list[str] = []

    def initialize(a: int, b: int) -> None:
        mine.sum = a + b
        started.append(threading.current_thread().name)

    executor = make_executor(2, "init", initialize, (3, 4))
    both = threading.Barrier(2)

    def job() -> tuple[int, str]:
        both.wait(LIMIT)
        return mine.sum, threading.current_thread().name

    futures = [executor.submit(job) for _ in range(2)]
    assert sorted(f.result(LIMIT) for f in futures) == [(7, "init_0"), (7, "init_1")]
    assert sorted(started) == ["init_0", "init_1"]
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1
    assert len(started) == 2


BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=["ValueError", "exit"])
def test_an_initializer_that_fails(
    kind: Kind, gate: Gate, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """BrokenThreadPool from what waits, native or not, and from later submits; told as CRITICAL."""

    def initialize() -> None:
        gate()
        raise error

    before = os_threads()
    caplog.set_level(logging.CRITICAL, "concurrent.futures")
    executor = kind.new(1, initializer=initialize)
    called: list[Any] = []
    futures = [executor.submit(fn, 1) for fn in (abs, ex.echo) for _ in range(3)]
    for future in futures:
        future.add_done_callback(called.append)
    gate.open()
    for future in futures:
        with pytest.raises(BrokenThreadPool, match=f"^{BROKEN}$") as caught:
            future.result(LIMIT)
        assert isinstance(caught.value, BrokenExecutor) and isinstance(caught.value, RuntimeError)
    block_until(lambda: executor._broken)
    for fn in (abs, ex.echo):
        with pytest.raises(BrokenThreadPool, match=f"^{BROKEN}$"):
            executor.submit(fn, 1)
    block_until(lambda: len(called) == len(futures))
    assert sorted(map(id, called)) == sorted(map(id, futures))
    records = [r for r in caplog.records if r.name == "concurrent.futures"]
    assert [(r.levelno, r.getMessage()) for r in records] == [
        (logging.CRITICAL, "Exception in initializer:")
    ]
    assert records[0].exc_info is not None and records[0].exc_info[1] is error
    caplog.clear()
    error.__traceback__ = None
    executor.shutdown()
    assert os_threads() == before


def test_an_initializer_that_fails_on_one_of_several(kind: Kind, gate: Gate) -> None:
    """Whichever worker it is, every future ends, with a result or BrokenThreadPool."""
    lock, count = threading.Lock(), [0]

    def initialize() -> None:
        with lock:
            count[0] += 1
            mine = count[0]
        if mine == 2:
            raise ValueError("the second one")

    logger = logging.getLogger("concurrent.futures")
    logger.disabled = True
    try:
        executor = kind.new(3, initializer=initialize)
        futures = []
        for i in range(50):
            try:
                futures.append(executor.submit(abs, -i))
                futures.append(executor.submit(ex.echo, i))
            except BrokenThreadPool:
                break
        hold_on = [future.exception(LIMIT) for future in futures]
        assert all(e is None or isinstance(e, BrokenThreadPool) for e in hold_on)
        block_until(lambda: executor._broken)
        executor.shutdown()
    finally:
        logger.disabled = False


def test_a_job_is_cancelled_while_its_pool_breaks(
    kind: Kind, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits for it is told, be it by the cancel or by the pool."""
    if not kind.ours:
        pytest.skip("waits for ever")

    def fail() -> None:
        gate()
        raise ZeroDivisionError

    executor = kind.new(1, initializer=fail)
    first, second = executor.submit(abs, 1), executor.submit(abs, 2)
    answers: list[bool] = []
    first.add_done_callback(lambda _: answers.append(second.cancel()))
    second.add_done_callback(lambda _: None)
    gate.open()
    assert concurrent.futures.wait([first, second], LIMIT).not_done == set()
    block_until(lambda: answers)  # who waits is told before the callbacks
    assert answers == [second.cancelled()]
    executor.shutdown()


def test_code_that_runs_while_threads_start_may_submit(only_ours: Kind) -> None:
    """A finalizer or a signal handler on the thread of the first submit: it waited for itself."""
    pool = offgil.Pool(1)
    executor = only_ours.new(1)
    inner: list[Future[int]] = []

    class Loop(asyncio.SelectorEventLoop):
        armed = False

        def is_closed(self) -> bool:  # asked before a pool starts: results of loops that are gone
            if self.armed:
                self.armed = False
                inner.append(executor.submit(abs, -1))
            return super().is_closed()

    async def main() -> None:
        await pool.submit(abs, -1)

    loop = Loop()
    loop.run_until_complete(main())
    loop.armed = True
    assert executor.submit(abs, -2).result(LIMIT) == 2
    assert [future.result(LIMIT) for future in inner] == [1]
    executor.shutdown()
    loop.close()


# --------------------------------------------------------------------------------------------------
# threads that jobs start

STARTED_BY_A_JOB = (
    PRELUDE
    + """
    import offgil.examples as ex

    at_exit = threading.Event()

    def late():
        threading.main_thread().join(20)
        x()

    def start(_=None):
        threading.Thread(target=late).start()

    executor = ThreadPoolExecutor(1)
    started = executor.submit(start)
    # On the other kind of thread that runs Python code. The job is long enough to be observed.
    told = executor.submit(ex.sleep, 0.02)
    told.add_done_callback(start)
    started.result(20)
    told.result(20)
    executor.shutdown()
"""
)


def test_threads_that_jobs_start_are_waited_for(kind: Kind) -> None:
    """At exit, as those of any thread that is no daemon. They were daemons: the exit ended them."""
    assert check_script(STARTED_BY_A_JOB, kind.module) == "xx"
