"""The interpreter exits cleanly from every state, and a forked child can tell that it is one.

Each case runs in fresh interpreters, OFFGIL_EXIT_REPEATS times (3 if not set), in turn with each
kind of future, channel and loop.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support import LOOPS, end_script, run_script, start_script

REPEATS = int(os.environ.get("OFFGIL_EXIT_REPEATS", "3"))
COMBINATIONS = list(itertools.product(("inline", "plain"), ("eventfd", "callback"), LOOPS))

PRELUDE = """
    import asyncio, os, signal, sys, threading, time, warnings
    import offgil, offgil.examples as ex

    kind, delivery, loop_kind = sys.argv[1:4]
    offgil.Pool._future_kind = kind
    warnings.simplefilter("ignore", DeprecationWarning)  # os.fork with threads

    if loop_kind == "uvloop":
        from uvloop import new_event_loop as loop_class
    else:
        loop_class = asyncio.SelectorEventLoop

    def new_loop():
        loop = loop_class()
        loop.slow_callback_duration = 60  # debug mode must not speak of a slow machine
        return loop

    def run(main):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main)

    def new_pool(workers=2):
        return offgil.Pool(workers, delivery=delivery)

    def x():
        os.write(1, b"x")
"""

# Each state starts its jobs and calls leave(), which ends the main thread in one of four ways.
# Every Python job that was accepted writes one x: none may be lost.
STATES = (
    PRELUDE
    + """
    state, way = sys.argv[4:6]
    pool = new_pool()

    def leave():
        if way == "exit":
            sys.exit(3)
        if way == "exception":
            raise ZeroDivisionError("the end")
        if way == "sigint":
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                time.sleep(0.01)

    async def leave_from_task():
        if way == "sigint":
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        leave()

    def x_slowly():
        time.sleep(0.03)
        x()

    async def start():
        for _ in range(2):
            pool.submit(ex.sleep, 0.02)
            pool.submit(x_slowly).add_done_callback(lambda _: None)
        for _ in range(10):
            pool.submit(ex.sleep, 0.001)
            pool.submit(x)
        pool.submit(ex.fail, "int").cancel()

    async def idle():
        assert await pool.submit(ex.echo, 1) == 1
        await pool.submit(x)
        await leave_from_task()

    async def running():
        pool.submit(ex.sleep, 0.05)
        pool.submit(x_slowly)
        while pool.running < 2 and pool.stats().completed == 0:
            await asyncio.sleep(0)
        await leave_from_task()

    async def queued():
        await start()
        await leave_from_task()

    async def awaiting():
        # The end comes from outside, while a task waits for jobs.
        await start()
        end = sys.exit if way == "exit" else os.kill
        asyncio.get_running_loop().call_soon(end, *((3,) if way == "exit" else (os.getpid(), 2)))
        await asyncio.gather(*(pool.submit(ex.sleep, 0.01) for _ in range(4)))

    async def in_block():
        async with pool:
            await start()
            await leave_from_task()

    def thread():
        # Outlives the main thread, and still submits when that one has ended.
        async def late():
            while threading.main_thread().is_alive():
                assert await pool.submit(ex.echo, 1) == 1
                await asyncio.sleep(0.001)
            await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(100)))
            for _ in range(5):
                await pool.submit(x)

        started = threading.Event()
        threading.Thread(target=lambda: (started.set(), run(late()))).start()
        started.wait()
        leave()

    def daemon():
        # Hammers until the interpreter takes its thread away.
        async def hammer():
            while True:
                await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(10)))
                await pool.submit(len, "abc")
                started.set()

        def body():
            try:
                run(hammer())
            except BaseException:
                pass

        started = threading.Event()
        threading.Thread(target=body, daemon=True).start()
        started.wait()
        leave()

    if state == "unused":
        leave()
    elif state in ("idle", "running", "queued", "awaiting", "in_block"):
        run(globals()[state]())
    elif state == "loop closed":
        run(start())
        leave()
    elif state == "loop left open":
        loop = new_loop()
        loop.run_until_complete(start())
        leave()
    else:
        globals()[state]()
"""
)

XS = {
    "unused": 0,
    "idle": 1,
    "running": 1,
    "queued": 12,
    "awaiting": 12,
    "in_block": 12,
    "loop closed": 12,
    "loop left open": 12,
    "thread": 5,
    "daemon": 0,
}
WAYS = {
    "return": (0, ""),
    "exit": (3, ""),
    "exception": (1, "ZeroDivisionError: the end"),
    "sigint": (-signal.SIGINT, "KeyboardInterrupt"),
}
# What an interpreter prints for an uncaught exception, chained ones included.
TRACEBACK = re.compile(
    r"""(\ .*|\n*Traceback\ \(most\ recent\ call\ last\):|asyncio\.exceptions\.CancelledError|
    During\ handling\ of\ the\ above\ exception,\ another\ exception\ occurred:|
    ZeroDivisionError:\ the\ end|KeyboardInterrupt|)""",
    re.VERBOSE,
)


def runs(
    code: str, *args: str, offset: int = 0, **env: str
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run the code REPEATS times, two at a time, in turn with each combination."""
    cycle = itertools.islice(itertools.cycle(COMBINATIONS), offset, offset + REPEATS)
    started: list[subprocess.Popen[str]] = []
    try:
        for combination in cycle:
            started.append(start_script(code, *combination, *args, **env))
            if len(started) == 2:
                yield end_script(started.pop(0))
        while started:
            yield end_script(started.pop(0))
    finally:
        for process in started:
            process.kill()
            process.communicate()


def explain(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.args[3:]}: {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(60 + 3 * REPEATS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", XS)
def test_exit(state: str, way: str) -> None:
    """The right exit code, no signal, no hang, nothing lost, and stderr as without a pool."""
    if state == "awaiting" and way in ("return", "exception"):
        pytest.skip("a task that awaits can only be ended from outside")
    code, last_line = WAYS[way]
    offset = list(XS).index(state) + 3 * list(WAYS).index(way)
    # In debug mode a loop that was left open complains by itself when the interpreter dies.
    env = {"PYTHONASYNCIODEBUG": ""} if state == "loop left open" else {}
    for done in runs(STATES, state, way, offset=offset, **env):
        assert done.returncode == code, explain(done)
        assert done.stdout == "x" * XS[state], explain(done)
        lines = done.stderr.splitlines()
        assert (lines[-1] if lines else "") == last_line, explain(done)
        assert all(TRACEBACK.fullmatch(line) for line in lines), explain(done)


def test_the_expected_exits_are_those_of_plain_asyncio() -> None:
    """The codes and last lines this file expects are what the interpreter gives without a pool."""
    plain = """
        import asyncio, os, signal, sys
        way = sys.argv[1]
        async def main():
            if way == "sigint":
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(30)
            elif way == "exit":
                sys.exit(3)
            elif way == "exception":
                raise ZeroDivisionError("the end")
        asyncio.run(main())
    """
    for way, (code, last_line) in WAYS.items():
        done = end_script(start_script(plain, way))
        lines = done.stderr.splitlines()
        assert (done.returncode, lines[-1] if lines else "") == (code, last_line)
        assert all(TRACEBACK.fullmatch(line) for line in lines)


INTERRUPTED = (
    PRELUDE
    + """
    pool = new_pool()
    leaving = threading.Event()

    def interrupt():
        leaving.wait(10)
        for _ in range(3):
            time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        os.write(1, b"x")

    async def main():
        pool.submit(ex.sleep, 0.1)
        pool.submit(interrupt)
        pool.submit(x)

    run(main())
    leaving.set()
"""
)


@pytest.mark.timeout(60 + 3 * REPEATS)
def test_an_interrupt_during_the_final_join_does_no_harm() -> None:
    """Ctrl-C while the exit waits for jobs: no crash, no hang, and no job is torn apart."""
    for done in runs(INTERRUPTED):
        # As with the standard library's executor, KeyboardInterrupt may be told and the code is 0;
        # an impatient user may also get the signal's own exit.
        assert done.returncode in (0, -signal.SIGINT), explain(done)
        assert "Fatal" not in done.stderr and "terminate" not in done.stderr, explain(done)


STUCK = (
    PRELUDE
    + """
    pool = new_pool()

    def for_ever(*_):
        threading.Event().wait()

    async def native():
        pool.submit(ex.sleep, 1000)

    async def python():
        pool.submit(for_ever)

    async def callback():
        pool.executor.submit(ex.sleep, 0.05).add_done_callback(for_ever)

    def impatient():
        while True:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

    async def main():
        await globals()[sys.argv[4]]()
        while pool.running + pool.pending and sys.argv[4] == "callback":
            await asyncio.sleep(0.001)

    run(main())
    threading.Thread(target=impatient, daemon=True).start()
"""
)


@pytest.mark.timeout(60 + 3 * REPEATS)
@pytest.mark.parametrize("what", ["native", "python", "callback"])
def test_who_is_impatient_leaves_behind_what_is_stuck(what: str) -> None:
    """The second Ctrl-C ends a program whose job or callback never will."""
    for done in runs(STUCK, what):
        assert done.returncode in (0, -signal.SIGINT), explain(done)
        assert "Fatal" not in done.stderr and "terminate" not in done.stderr, explain(done)


DROPPED = """
    import asyncio, sys, threading, time, types
    import offgil, offgil.examples as ex

    kind, delivery, scheduled = sys.argv[1:]
    offgil.Pool._future_kind = kind
    left_last = offgil.Pool(1)
    pool = offgil.Pool(1, delivery=delivery)
    delivering = threading.Event()
    armed = False

    class Loop(asyncio.SelectorEventLoop):
        def call_soon(self, callback, *args, context=None):
            by_drain = isinstance(callback, types.BuiltinMethodType) and not isinstance(
                callback.__self__, types.ModuleType | asyncio.Task)
            if armed and (callback is print if scheduled == "callback" else by_drain):
                delivering.set()
                time.sleep(0.3)  # meanwhile the main thread ends, and drops what has arrived
            return super().call_soon(callback, *args, context=context)

    async def deliver():
        global armed
        futures = [pool.submit(ex.echo, i) for i in range(100)]
        for future in futures:
            future.add_done_callback(lambda _: None)
            if scheduled == "callback":
                future.add_done_callback(print)
        asyncio.get_running_loop().slow_callback_duration = 10
        armed = True
        await asyncio.gather(*futures)

    def run():
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(deliver())

    async def keep_the_exit_waiting():
        left_last.submit(ex.sleep, 1)

    threading.Thread(target=run, daemon=True).start()
    delivering.wait(10)
    asyncio.run(keep_the_exit_waiting())
    sys.stdout = None
"""


@pytest.mark.parametrize(
    ("delivery", "scheduled"),
    [("eventfd", "callback"), ("callback", "callback"), ("callback", "drain")],
)
@pytest.mark.parametrize("kind", ["inline", "plain"])
def test_a_daemon_thread_in_a_drain_while_its_results_are_dropped(
    kind: str, delivery: str, scheduled: str
) -> None:
    """The exit drops what has arrived, whatever the drain schedules in the loop just then."""
    done = run_script(DROPPED, kind, delivery, scheduled)
    assert (done.returncode, done.stderr) == (0, ""), explain(done)


KILLED = (
    PRELUDE
    + """
    async def in_callback():
        # The loop's thread is most of the time in Python code that the drain has called.
        async with new_pool() as pool:
            while True:
                future = pool.submit(ex.echo, 1)
                future.add_done_callback(lambda _: time.sleep(0.001))
                await future
                started.set()

    def in_release():
        while True:
            ex.recurse_release(200)
            started.set()

    def in_pools():
        while True:
            new_pool()
            started.set()

    bodies = {"callback": lambda: run(in_callback()), "release": in_release, "pools": in_pools}

    def body():
        try:
            bodies[sys.argv[4]]()
        except BaseException:
            pass  # when the exit has begun, the pool says so

    for _ in range(4):
        started = threading.Event()
        threading.Thread(target=body, daemon=True).start()
        started.wait()
    raise ZeroDivisionError("the end")
"""
)


@pytest.mark.timeout(60 + 3 * REPEATS)
@pytest.mark.parametrize("where", ["callback", "release", "pools"])
def test_a_daemon_thread_may_be_killed_inside_our_frames(where: str) -> None:
    """It wants the GIL while Python finalizes: the exit goes on without it."""
    for done in runs(KILLED, where):
        assert done.returncode == 1, explain(done)
        assert done.stderr.splitlines()[-1] == "ZeroDivisionError: the end", explain(done)


# Executors whose last owner is a job of theirs: they are buried, and whoever comes by joins them.
BURIED = """
    import sys, threading, time
    import offgil

    sys.setswitchinterval(1e-5)

    def bury_for_ever():
        while True:
            try:
                executor = offgil.ThreadPoolExecutor(2)
                executor.submit(list.clear, [executor])
                del executor
            except RuntimeError:  # the exit has begun
                time.sleep(0.001)

    for _ in range(4):
        threading.Thread(target=bury_for_ever, daemon=True).start()
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_exit_while_others_join_what_is_buried() -> None:
    """Either they do or the exit hook does: one destroyed what the other was waiting for.

    That ended about one in six of these processes by a segmentation fault.
    """
    for _ in range(max(1, 10 // REPEATS)):
        for done in runs(BURIED):
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), explain(done)


AT_EXIT = (
    PRELUDE
    + """
    import atexit
    pool = new_pool()

    async def main():
        return await pool.submit(ex.echo, 1)

    def late():
        try:
            assert run(main()) == 1
        except RuntimeError as error:
            assert "shutdown" in str(error) or "exit" in str(error), error
        os.write(1, b"x")

    atexit.register(late)
    threading._register_atexit(late)
    assert run(main()) == 1
"""
)


def test_exit_handlers_may_try_to_submit() -> None:
    """A handler that runs at exit gets a result or a RuntimeError that says why; never a hang."""
    for done in runs(AT_EXIT):
        assert (done.returncode, done.stdout, done.stderr) == (0, "xx", ""), explain(done)


# --------------------------------------------------------------------------------------------------
# fork

FORK = (
    PRELUDE
    + """
    import gc

    def fork():
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # a hang in the child ends it
        return pid

    def joined(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def broken(pool):
        # The child's own loop, the parent's pool.
        began = time.monotonic()
        for fn in (ex.echo, abs):
            try:
                pool.submit(fn, 1)
            except offgil.PoolBroken as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("submit did not raise")
            try:
                await pool.run(fn, 1)
            except offgil.PoolBroken:
                pass
            else:
                raise AssertionError("run did not raise")
        for call in (pool.drain, pool.aclose):
            try:
                await call()
            except offgil.PoolBroken:
                pass
        repr(pool), pool.workers, pool.pending, pool.running, pool.stats()
        assert time.monotonic() - began < 5, "not at once"
        async with new_pool() as fresh:
            assert await asyncio.gather(*(fresh.submit(ex.echo, i) for i in (1, 2))) == [1, 2]
            assert await fresh.submit(len, "abc") == 3

    def child(pool):
        status = 1
        try:
            asyncio._set_running_loop(None)
            run(broken(pool))
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
"""
)

FORK_OUTSIDE = (
    FORK
    + """
    pool = new_pool()

    async def use():
        assert await pool.submit(ex.echo, 1) == 1
        assert await pool.submit(len, "abc") == 3
        pool.submit(ex.sleep, 0.02)
        pool.submit(x)

    run(use())
    pid = fork()
    if pid:
        assert joined(pid) == 0
        run(use())
        run(pool.aclose())
    else:
        run(broken(pool))  # and leaves by the ordinary exit
"""
)

FORK_INSIDE = (
    FORK
    + """
    async def main():
        async with new_pool() as pool:
            for _ in range(3):
                futures = [pool.submit(ex.sleep, 0.002) for _ in range(10)]
                futures += [pool.submit(len, "abc") for _ in range(10)]
                pid = fork()
                if not pid:
                    del futures
                    gc.collect()
                    child(pool)
                assert await asyncio.gather(*futures) == [None] * 10 + [3] * 10
                assert joined(pid) == 0
                assert await pool.submit(ex.echo, 1) == 1

    run(main())
"""
)

FORK_UNDER_LOAD = (
    FORK
    + """
    pool = new_pool(3)
    stop = threading.Event()

    def load():
        async def hammer():
            while not stop.is_set():
                futures = [pool.submit(ex.spin, 5) for _ in range(50)]
                futures += [pool.submit(abs, -i) for i in range(10)]
                futures[20].cancel()
                await asyncio.wait(futures)
                pool.stats()
        run(hammer())

    threads = [threading.Thread(target=load) for _ in range(2)]
    for t in threads:
        t.start()
    while pool.stats().completed == 0:  # a pool that was never used would be the child's as well
        time.sleep(0.001)
    try:
        for _ in range(8):
            pid = fork()
            if not pid:
                child(pool)
            assert joined(pid) == 0
    finally:
        stop.set()
    for t in threads:
        t.join()
    run(pool.aclose())
    stats = pool.stats()
    assert stats.submitted == stats.completed + stats.cancelled, stats
"""
)


FORK_UNUSED = (
    FORK
    + """
    pool, executor = new_pool(), offgil.ThreadPoolExecutor(2)
    of_pool = pool.executor

    async def use():
        assert await asyncio.gather(*(pool.submit(ex.echo, i) for i in range(100))) == [*range(100)]
        assert await pool.submit(len, "abc") == 3

    def use_all():
        run(use())
        for each in (executor, of_pool):
            assert list(each.map(ex.echo, range(100))) == [*range(100)]
            assert each.submit(len, "abc").result(10) == 3

    pid = fork()
    if pid:
        assert joined(pid) == 0
    use_all()
    pid = fork()
    if pid:
        assert joined(pid) == 0
        use_all()
        run(pool.aclose())
    else:
        run(broken(pool))
    del pool, executor, of_pool
    x()
"""
)


@pytest.mark.timeout(60 + 6 * REPEATS)
@pytest.mark.parametrize(
    ("code", "printed"),
    [(FORK_OUTSIDE, "xx"), (FORK_INSIDE, ""), (FORK_UNDER_LOAD, ""), (FORK_UNUSED, "xxxx")],
    ids=["outside a loop", "inside a loop", "under load", "unused"],
)
def test_fork(code: str, printed: str) -> None:
    """The child's old pool raises PoolBroken at once, a new one works; the parent goes on."""
    for done in runs(code):
        assert (done.returncode, done.stdout, done.stderr) == (0, printed, ""), explain(done)


MULTIPROCESSING = (
    PRELUDE
    + """
    import multiprocessing

    pool = new_pool()

    async def use(pool):
        return await pool.submit(ex.echo, 7)

    def work():
        try:
            run(use(pool))
        except offgil.PoolBroken:
            sys.exit(run(use(new_pool())))

    assert run(use(pool)) == 7
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(20)
    assert process.exitcode == 7, process.exitcode
    assert run(use(pool)) == 7
"""
)


def test_a_forked_worker_process() -> None:
    """multiprocessing's fork children can make pools of their own and end normally."""
    for done in runs(MULTIPROCESSING):
        assert (done.returncode, done.stderr) == (0, ""), explain(done)


def test_a_killed_process_takes_its_workers_along() -> None:
    """SIGTERM ends the process at once although native jobs run: nobody blocks it."""
    code = (
        PRELUDE
        + """
    async def main():
        pool = new_pool()
        pool.submit(ex.sleep, 30)
        pool.submit(time.sleep, 30)
        while pool.running < 2:
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(30)

    run(main())
    """
    )
    for done in runs(code):
        assert (done.returncode, done.stderr) == (-signal.SIGTERM, ""), explain(done)
