"""The executor's end: shutdown in every form, being dropped, interrupts, the interpreter's exit."""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import pytest
from executors import PRELUDE, Box, Kind, both_sorts, hold
from support import LIMIT, Gate, block_until, check_script, open_fds, os_threads, run_script

import offgil
from offgil import examples as ex

REFUSED = r"^cannot schedule new futures after shutdown$"

# --------------------------------------------------------------------------------------------------
# shutdown


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("cancel_futures", [True, False])
def test_shutdown_may_be_repeated(kind: Kind, used: bool, wait: bool, cancel_futures: bool) -> None:
    """Any number of times and in any form; every submit after it is refused with the text."""
    before = os_threads()
    executor = kind.new(2)
    if used:
        assert executor.submit(ex.echo, 1).result(LIMIT) == 1
    for _ in range(3):
        assert executor.shutdown(wait, cancel_futures=cancel_futures) is None
        executor.shutdown()
        for fn, args in ((ex.echo, (1,)), (abs, (1,))):
            with pytest.raises(RuntimeError, match=REFUSED):
                executor.submit(fn, *args)
    assert os_threads() == before


def test_cancel_futures_is_a_keyword(executor: Any) -> None:
    """As in the standard library; a wrong one is told, and nothing ends."""
    with pytest.raises(TypeError):
        executor.shutdown(True, True)
    with pytest.raises(TypeError):
        executor.shutdown(cancel=True)
    assert executor.submit(ex.echo, 1).result(LIMIT) == 1


@both_sorts
def test_shutdown_waits_for_every_job(kind: Kind, echo: Callable[[int], int]) -> None:
    """When it returns, all are done, the threads are gone, and the results are there."""
    before = os_threads()
    executor = kind.new(2)
    slow = [executor.submit(time.sleep, 0.02), executor.submit(ex.sleep, 0.02)]
    rest = [executor.submit(echo, i) for i in range(500)]
    executor.shutdown()
    assert all(future.done() for future in (*slow, *rest))
    assert [future.result(0) for future in rest] == [*range(500)]
    assert os_threads() == before


def test_the_with_statement_waits_and_hides_nothing(kind: Kind) -> None:
    """Its end is a shutdown; an exception inside comes out."""
    with kind.new(2) as executor:
        futures = [executor.submit(ex.spin, 100) for _ in range(50)]
    assert all(future.done() for future in futures)
    with pytest.raises(KeyError, match="mine"):
        with kind.new(2) as executor:
            future = executor.submit(time.sleep, 0.01)
            raise KeyError("mine")
    assert future.done()
    with pytest.raises(RuntimeError, match=REFUSED):
        executor.submit(abs, 1)


def test_cancel_futures_cancels_what_waits(
    make_executor: Callable[..., Any], gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """And only that: the running job ends with its result. Whoever waits or watches is told."""
    executor = make_executor(1)
    ran: list[int] = []
    (running,) = hold(executor, gate, 1)
    waiting = [executor.submit(ran.append, i) for i in range(20)]
    waiting += [executor.submit(ex.echo, i) for i in range(20)]
    called: list[Any] = []
    for future in waiting:
        future.add_done_callback(called.append)
    told: list[int] = []

    def wait(i: int) -> None:
        with pytest.raises(CancelledError):
            waiting[i].result(LIMIT)
        told.append(i)

    for i in (0, 39):
        in_thread(wait, i)
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    block_until(lambda: len(called) == len(waiting))  # one may be in the dispatcher's hands
    assert sorted(map(id, called)) == sorted(map(id, waiting))
    block_until(lambda: len(told) == 2)
    assert running.running()
    gate.open()
    executor.shutdown()
    assert running.result(0) == "through the gate"
    assert ran == [] and len(called) == 40


def test_shutdown_without_waiting_loses_nothing(kind: Kind, gate: Gate) -> None:
    """It returns at once; what runs and what waits is finished, and the threads then end."""
    before = os_threads()
    executor = kind.new(2)
    held = hold(executor, gate, 2)
    waiting = [executor.submit(fn, i) for i in range(20) for fn in (ex.echo, abs)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in (*held, *waiting))
    gate.open()
    assert [f.result(LIMIT) for f in waiting] == [i for i in range(20) for _ in range(2)]
    block_until(lambda: os_threads() == before)
    executor.shutdown()


def test_a_shutdown_that_waits_after_one_that_does_not(
    kind: Kind, gate: Gate, in_thread: Callable[..., threading.Thread]
) -> None:
    """It waits for the jobs; so do several at once."""
    executor = kind.new(2)
    held = hold(executor, gate, 2)
    executor.shutdown(wait=False)
    ended: list[bool] = []

    def end() -> None:
        executor.shutdown()
        ended.append(all(future.done() for future in held))

    for _ in range(4):
        in_thread(end)
    time.sleep(0.02)  # not for luck: whoever does not wait is caught, nobody who does is blamed
    assert ended == []
    gate.open()
    block_until(lambda: ended == [True] * 4)


def test_an_unused_executor_has_no_threads(kind: Kind) -> None:
    """Neither made nor shut down it starts one."""
    before = os_threads(), open_fds()
    executor = kind.new(8)
    assert os_threads() == before[0]
    executor.shutdown()
    del executor
    gc.collect()
    assert (os_threads(), open_fds()) == before


# --------------------------------------------------------------------------------------------------
# dropped


def test_an_executor_that_is_dropped(kind: Kind, gate: Gate) -> None:
    """Queued jobs finish, the threads exit, the object dies, nothing leaks."""
    before = os_threads(), open_fds()
    executor: Any = kind.new(2)
    ref = weakref.ref(executor)
    held = hold(executor, gate, 2)
    futures = [executor.submit(fn, i) for i in range(20) for fn in (ex.echo, abs)]
    del executor
    gc.collect()
    gate.open()
    assert [f.result(LIMIT) for f in futures] == [i for i in range(20) for _ in range(2)]
    assert [f.result(LIMIT) for f in held] == ["through the gate"] * 2
    block_until(lambda: ref() is None)
    block_until(lambda: (os_threads(), open_fds()) == before)


def test_an_executor_that_is_dropped_by_its_last_job(kind: Kind) -> None:
    """The only reference is a job's argument: the worker that drops it must not join itself."""
    before = os_threads()
    executor: Any = kind.new(1)
    ref = weakref.ref(executor)
    entered = threading.Event()

    def job(_: Any) -> None:
        entered.wait(LIMIT)

    future = executor.submit(job, [executor])
    del executor
    entered.set()
    assert future.result(LIMIT) is None
    block_until(lambda: gc.collect() is not None and ref() is None)
    block_until(lambda: os_threads() == before)


def test_an_executor_in_a_cycle_is_collected(kind: Kind) -> None:
    """Through its owner, whose method was a job, and the job's result."""

    class Owner:
        def __init__(self) -> None:
            self.executor = kind.new(1)
            self.future = self.executor.submit(self.job)

        def job(self) -> Owner:
            return self

    before = os_threads()
    owner = Owner()
    assert owner.future.result(LIMIT) is owner
    ref = weakref.ref(owner)
    del owner
    block_until(lambda: gc.collect() is not None and ref() is None)
    block_until(lambda: os_threads() == before)


@pytest.mark.parametrize("used", [False, True])
def test_an_executor_whose_initializer_is_its_owners_method(kind: Kind, used: bool) -> None:
    """Is collected with its owner; also while no job has started its threads.

    The collector knew of no reference from an executor of ours to its initializer. A worker of the
    standard one keeps it, and so all of them, for as long as it lives, which is for ever.
    """
    if used and not kind.ours:
        pytest.skip("it is never collected")

    class Owner:
        def __init__(self) -> None:
            self.begun = threading.Barrier(3)
            self.executor = kind.new(2, initializer=self.begin)

        def begin(self) -> None:
            self.begun.wait(LIMIT)

    before = os_threads()
    owner = Owner()
    if used:
        futures = [owner.executor.submit(abs, -1) for _ in range(2)]
        owner.begun.wait(LIMIT)
        assert [future.result(LIMIT) for future in futures] == [1, 1]
    ref = weakref.ref(owner)
    del owner
    block_until(lambda: gc.collect() is not None and ref() is None)
    block_until(lambda: os_threads() == before)


@pytest.mark.parametrize("used", [False, True])
def test_a_pool_whose_initializer_is_its_owners_method(used: bool) -> None:
    """Is collected with its owner, also while not all of its workers have begun."""

    class Owner:
        def __init__(self) -> None:
            self.pool = offgil.Pool(2, initializer=self.begin)

        def begin(self) -> None:
            pass

    before = os_threads()
    owner = Owner()
    if used:
        assert owner.pool.executor.submit(abs, -1).result(LIMIT) == 1
    ref = weakref.ref(owner)
    del owner
    block_until(lambda: gc.collect() is not None and ref() is None)
    block_until(lambda: os_threads() == before)


def test_a_collection_while_an_executor_is_made(only_ours: Kind) -> None:
    """It may come at any step, also before __init__ has run or without it."""
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            mine = type("Mine", (only_ours.type,), {})
            mine(1, initializer=lambda: None).shutdown()
            mine.__new__(mine)
            gc.collect()
    finally:
        gc.set_threshold(*threshold)


# --------------------------------------------------------------------------------------------------
# references


@pytest.mark.parametrize("keep_future", [True, False])
def test_no_stale_references(executor: Any, keep_future: bool) -> None:
    """fn, arguments and, with the future, the result are dropped when the job has ended."""

    class Function(Box):
        def __call__(self, *_: Any, **__: Any) -> Box:
            return Box()

    fn, arg, kwarg = Function(), Box(), Box()
    refs = [weakref.ref(thing) for thing in (fn, arg, kwarg)]
    future = executor.submit(fn, arg, kwarg=kwarg)
    del fn, arg, kwarg
    refs.append(weakref.ref(future))
    refs.append(weakref.ref(future.result(LIMIT)))
    if not keep_future:
        del future
        block_until(lambda: not any(ref() for ref in refs))
    else:
        block_until(lambda: not any(ref() for ref in refs[:3]))
        assert refs[4]() is future.result()


def test_no_stale_references_after_an_exception(executor: Any) -> None:
    """The exception and what its traceback sees go with the future, without a collection."""

    class Told(Exception):
        pass

    def fail(box: Box) -> None:
        raise Told(box)

    box = Box()
    refs = [weakref.ref(box)]
    gc.disable()
    try:
        future = executor.submit(fail, box)
        del box
        refs.append(weakref.ref(future.exception(LIMIT)))
        del future
        block_until(lambda: not any(ref() for ref in refs))
    finally:
        gc.enable()


def test_callbacks_are_dropped_with_the_future(executor: Any) -> None:
    """Also those of native jobs."""
    refs = []
    for fn, args in ((ex.echo, (1,)), (abs, (1,))):
        box = Box()
        refs.append(weakref.ref(box))
        future = executor.submit(fn, *args)
        future.add_done_callback(partial(lambda box, future: None, box))
        future.result(LIMIT)
        del box, future
    block_until(lambda: not any(ref() for ref in refs))


# --------------------------------------------------------------------------------------------------
# Ctrl-C

INTERRUPTED = (
    PRELUDE
    + """
    what = sys.argv[2]
    executor = ThreadPoolExecutor(1)
    held = threading.Event()
    future = executor.submit(held.wait, 20)
    while not future.running():
        time.sleep(0.001)
    waiting = executor.submit(x)

    def interrupt():
        time.sleep(0.05)  # by then the main thread waits; it is told in any case
        os.kill(os.getpid(), signal.SIGINT)

    start = time.monotonic()
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        if what == "result":
            future.result()
        elif what == "exception with a time limit":
            waiting.exception(20)
        elif what == "wait":
            concurrent.futures.wait([future])
        elif what == "shutdown":
            executor.shutdown()
        else:
            list(executor.map(abs, [1, 2]))
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - start < 10, future.running(), flush=True)
    held.set()
    waiting.result(20)
    x()
"""
)


@pytest.mark.parametrize(
    "what", ["result", "exception with a time limit", "wait", "map", "shutdown"]
)
def test_an_interrupt_ends_the_wait(kind: Kind, what: str) -> None:
    """KeyboardInterrupt comes at once out of whatever waits; the jobs go on and none is lost."""
    out = check_script(INTERRUPTED, kind.module, what)
    assert out == "interrupted True True\nxx"


# --------------------------------------------------------------------------------------------------
# the interpreter's exit

EXIT = (
    PRELUDE
    + """
    import offgil.examples as ex
    state, way = sys.argv[2:4]
    executor = ThreadPoolExecutor(2)
    if state != "unused":
        for _ in range(3):
            executor.submit(x_slowly).add_done_callback(lambda _: x())
            executor.submit(ex.sleep, 0.02).add_done_callback(lambda _: x())
        executor.submit(x)
        executor.submit(x).cancel()
    if state == "shut down":
        executor.shutdown(wait=False)
    elif state == "dropped":
        del executor
    if way == "exit":
        sys.exit(3)
    if way == "exception":
        raise ZeroDivisionError("the end")
"""
)
# Three jobs, their callbacks and those of three native jobs, and one more job. One job was
# cancelled, unless a worker was quicker.
XS = re.compile("x{10,11}")


@pytest.mark.parametrize("way", ["return", "exit", "exception"])
@pytest.mark.parametrize("state", ["unused", "queued", "shut down", "dropped"])
def test_the_interpreter_exits(kind: Kind, state: str, way: str) -> None:
    """Queued and running jobs finish, callbacks too; exit code and stderr are as without."""
    done = run_script(EXIT, kind.module, state, way)
    assert done.returncode == {"return": 0, "exit": 3, "exception": 1}[way], done.stderr
    assert re.fullmatch("" if state == "unused" else XS, done.stdout), done.stdout
    last = done.stderr.splitlines()[-1:]
    assert last == (["ZeroDivisionError: the end"] if way == "exception" else []), done.stderr


@pytest.mark.parametrize("registered", ["before the import", "later"])
def test_submit_after_the_exit_has_begun(kind: Kind, registered: str) -> None:
    """In an atexit handler: RuntimeError with the standard text."""
    code = """
        import atexit, importlib, sys

        if sys.argv[2] == "later":
            importlib.import_module(sys.argv[1])

        @atexit.register
        def last():
            for executor in (unused, used):
                try:
                    executor.submit(abs, 1)
                except RuntimeError as error:
                    print(error)
                executor.shutdown()

        ThreadPoolExecutor = importlib.import_module(sys.argv[1]).ThreadPoolExecutor
        unused, used = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        used.submit(abs, 1).result(10)
    """
    text = "cannot schedule new futures after interpreter shutdown"
    first, second = check_script(code, kind.module, registered).splitlines()
    assert first == text
    # The standard library's workers may be quicker to call their executor shut down.
    assert second == text or (not kind.ours and re.match(REFUSED, second))


def test_an_interrupt_during_the_final_join(kind: Kind) -> None:
    """Ctrl-C while the exit waits for a job: no crash and no hang."""
    code = (
        PRELUDE
        + """
    leaving = threading.Event()

    def job():
        leaving.wait(10)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

    executor = ThreadPoolExecutor(1)
    executor.submit(job)
    executor.submit(x)
    leaving.set()
    """
    )
    done = run_script(code, kind.module)
    assert done.returncode in (0, -2), done.stderr
    assert "Fatal" not in done.stderr and "terminate" not in done.stderr


def test_a_child_of_multiprocessing(kind: Kind) -> None:
    """A used executor in the parent, and the child makes its own and ends normally."""
    code = (
        PRELUDE
        + """
    import multiprocessing

    def work():
        with ThreadPoolExecutor(2) as own:
            sys.exit(own.submit(abs, -7).result(10))

    executor = ThreadPoolExecutor(2)
    assert executor.submit(abs, -1).result(10) == 1
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(20)
    assert process.exitcode == 7, process.exitcode
    assert executor.submit(abs, -1).result(10) == 1
    """
    )
    assert check_script(code, kind.module) == ""


def test_an_unused_executor_survives_a_fork(kind: Kind) -> None:
    """Made before the fork, first used after it: it works on both sides."""
    code = (
        PRELUDE
        + """
    executor = ThreadPoolExecutor(2)
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(executor.map(abs, range(-10, 0))) == [*range(10, 0, -1)]
    x()
    """
    )
    assert check_script(code, kind.module) == "xx"


def test_a_thread_that_ends_knows_whose_it_is(kind: Kind) -> None:
    """What a thread's own data runs when it dies must not make the thread wait for its own end."""
    if not kind.ours:
        pytest.skip("it raises 'cannot join current thread' and changes its state")
    executor = kind.new(1)
    mine = threading.local()
    told: list[str] = []

    class Last:
        def __del__(self) -> None:
            try:
                executor.shutdown(wait=True)
            except RuntimeError as e:
                told.append(str(e))

    def leave_behind() -> None:
        mine.last = Last()

    executor.submit(leave_behind).result(LIMIT)
    executor.shutdown(wait=False)
    block_until(lambda: told)
    assert "it would have to wait for" in told[0]
    executor.shutdown(wait=True)


def test_a_thread_that_ends_may_meet_an_exception(kind: Kind) -> None:
    """What its own data runs when it dies may use the executor; the first exception crashed it."""
    code = """
    class Last:
        def __del__(self):
            try:
                executor.submit(int)
            except RuntimeError as e:
                print(e)

    def leave_behind():
        mine.last = Last()

    mine = threading.local()
    executor = ThreadPoolExecutor(1)
    executor.submit(leave_behind).result()
    executor.shutdown()
    """
    said = check_script(PRELUDE + code, kind.module)
    assert said == "cannot schedule new futures after shutdown\n"


CANCEL_THE_LAST = (
    PRELUDE
    + """
    def threads():
        return len(os.listdir("/proc/self/task"))

    class Argument:
        def __del__(self):
            # The job comes back, the last of a dropped executor: a second for that to end.
            held.set()
            give_up = time.monotonic() + 1
            while threads() > 1 and time.monotonic() < give_up:
                time.sleep(0.001)

    held = threading.Event()
    executor = ThreadPoolExecutor(1)
    running = executor.submit(held.wait, 20)
    last = executor.submit(print, Argument())

    def wait():
        try:
            last.result(20)
        except concurrent.futures.CancelledError:
            x()

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not running.running():
        time.sleep(0.001)
    del executor
    if last.cancel():
        x()
    waiter.join()
"""
)


def test_the_last_job_is_cancelled_while_its_executor_goes(only_ours: Kind) -> None:
    """Its arguments take their time to die, the job comes back meanwhile: a use after free."""
    assert check_script(CANCEL_THE_LAST, only_ours.module) == "xx"


# --------------------------------------------------------------------------------------------------
# callbacks inside shutdown(cancel_futures=True)


@pytest.mark.parametrize("cancel_in", ["job", "thread"])
@both_sorts
def test_a_callback_of_a_cancelled_job_asks_for_another(
    only_ours: Kind, gate: Gate, echo: Callable[[int], int], cancel_in: str
) -> None:
    """Whichever is cancelled first, the other has been by then.

    Where a job called shutdown, the callback waited for ever, for the thread that it ran on.
    """
    executor = only_ours.new(2)
    go = Gate()

    def shut_down() -> None:
        go()
        executor.shutdown(wait=False, cancel_futures=True)

    executor.submit(shut_down if cancel_in == "job" else gate)
    hold(executor, gate, 1)
    first, second = executor.submit(echo, 1), executor.submit(echo, 2)
    told: list[type[BaseException]] = []

    def ask_for(other: Future[int]) -> None:
        try:
            other.result(LIMIT / 2)
        except (CancelledError, TimeoutError) as error:
            told.append(type(error))

    first.add_done_callback(lambda _: ask_for(second))
    second.add_done_callback(lambda _: ask_for(first))
    go.open()
    if cancel_in == "thread":
        executor.shutdown(wait=False, cancel_futures=True)
    block_until(lambda: len(told) == 2)
    assert set(told) == {CancelledError}
    gate.open()


ASK_FOR_THE_NEXT = (
    PRELUDE
    + """
    import offgil.examples as ex

    executor = ThreadPoolExecutor(1)
    executor.submit(ex.echo, 1).result(10)
    sys.setswitchinterval(1000)  # from here on the main thread has the GIL, until it waits
    first, second, third = (executor.submit(ex.sleep, s) for s in (0.1, 0, 0))
    for future in (second, third):
        future._state  # somebody watches, as wait() and as_completed() do

    def ask(_):
        if sys.argv[2] == "result":
            third.result(10)
        else:
            assert concurrent.futures.wait([third], 10).done
        x()

    second.add_done_callback(ask)
    while hasattr(executor, "stats") and executor.stats().completed < 4:
        pass
    executor.shutdown(cancel_futures=True)
    x()
"""
)


@pytest.mark.parametrize("how", ["result", "wait"])
def test_a_callback_asks_for_what_comes_back_with_its_own_job(only_ours: Kind, how: str) -> None:
    """Both come back to the thread that calls shutdown, where the callback waited for ever."""
    assert check_script(ASK_FOR_THE_NEXT, only_ours.module, how) == "xx"
