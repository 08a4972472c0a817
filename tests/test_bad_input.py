"""Bad arguments, the wrong moment, a system with nothing left to give: clean errors, no leaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from executors import Kind
from support import LIMIT, LOOPS, check_balance, check_script, open_fds, os_threads, run_script

import offgil
from offgil import examples as ex

# --------------------------------------------------------------------------------------------------
# the constructor

BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"workers": 0}, ValueError, "workers"),
    ({"workers": -1}, ValueError, "workers"),
    ({"workers": -(10**30)}, (ValueError, OverflowError), "workers"),  # type: ignore[list-item]
    ({"workers": 10**30}, (ValueError, OverflowError), "workers"),  # type: ignore[list-item]
    ({"workers": "two"}, TypeError, "workers"),
    ({"workers": 2.0}, TypeError, "workers"),
    ({"workers": [2]}, TypeError, "workers"),
    ({"max_pending": 0}, ValueError, "max_pending"),
    ({"max_pending": -5}, ValueError, "max_pending"),
    ({"max_pending": 1.5}, TypeError, "max_pending"),
    ({"max_pending": "many"}, TypeError, "max_pending"),
    ({"delivery": "x"}, ValueError, "delivery"),
    ({"delivery": ""}, ValueError, "delivery"),
    ({"delivery": None}, TypeError, "delivery"),
    ({"delivery": 1}, TypeError, "delivery"),
    ({"name": 5}, TypeError, "name"),
    ({"name": "\ud800"}, ValueError, "surrogates not allowed, in name"),
    ({"delivery": "\ud800"}, ValueError, "surrogates not allowed, in delivery"),
    ({"workers": 32_769}, ValueError, "workers must be between 1 and 32768, not 32769"),
    ({"name": b"bytes"}, TypeError, "name"),
    ({"nice": "low"}, TypeError, "nice"),
    ({"nice": 0.5}, TypeError, "nice"),
    ({"spin": -1.0}, ValueError, "spin"),
    ({"spin": float("nan")}, ValueError, "spin"),
    ({"spin": float("inf")}, ValueError, "spin"),
    ({"spin": "long"}, TypeError, "spin"),
    ({"spin": True}, TypeError, "spin"),
    ({"spin": 10**400}, ValueError, "spin"),
    ({"wrokers": 2}, TypeError, "wrokers"),
]


@pytest.mark.parametrize(("options", "error", "named"), BAD_OPTIONS)
def test_a_bad_option_is_named(options: dict[str, Any], error: Any, named: str) -> None:
    """Pool() raises an error that names the argument, and starts nothing."""
    before = os_threads(), open_fds()
    with pytest.raises(error, match=named):
        offgil.Pool(**options)
    assert (os_threads(), open_fds()) == before


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (offgil.ThreadPoolExecutor, "max_workers"),
        (offgil.AsyncioExecutor, "pool_or_workers"),
        (lambda workers: offgil.install(workers=workers), "workers"),
    ],
)
async def test_too_many_workers(make: Any, named: str) -> None:
    """ValueError that names the argument, which the docstrings tell the limit of."""
    with pytest.raises(ValueError, match=rf"^{named} must be between 1 and 32768, not 32769$"):
        make(32_769)
    for documented in (offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor):
        assert "32 768" in str(documented.__doc__)
    assert "32 768" in str(offgil.install.__doc__)


@pytest.mark.parametrize("wait", ["x", "", None, 0, 1, [], [1]])
@pytest.mark.parametrize("cancel", ["x", "", None, [1]])
def test_shutdown_takes_anything_for_true_or_false(executor: Any, wait: Any, cancel: Any) -> None:
    """As the standard executor does; it was pybind11's "incompatible function arguments"."""
    executor.submit(abs, 1)
    executor.shutdown(wait=wait, cancel_futures=cancel)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_shutdown_with_an_object_that_is_neither(only_ours: Kind) -> None:
    """What its __bool__ raises; nothing has changed."""

    class Neither:
        def __bool__(self) -> bool:
            raise LookupError("neither")

    with only_ours.new(1) as executor:
        for options in ({"wait": Neither()}, {"cancel_futures": Neither()}):
            with pytest.raises(LookupError, match="neither"):
                executor.shutdown(**options)  # type: ignore[arg-type]
        assert executor.submit(abs, -1).result(LIMIT) == 1


EVERY_ERROR = """
    import asyncio, os, sys, types, warnings
    import offgil, offgil._core as core, offgil.examples as ex
    warnings.simplefilter("ignore")
    os.chdir(sys.argv[1])  # what takes a path may write there

    def is_public(it, name):
        is_private = name.startswith("_") and not name.startswith("__")
        return callable(getattr(it, name)) and not is_private and name not in object.__dict__

    told, calls = {}, 0
    ARGUMENTS = (
        *((), ("x",), (None,), (object(),), (1.5,), (-1,), (10**30,), ("\\ud800",), ([], {})),
        *((abs,), (abs, "x"), (ex.echo, "x"), (ex.fail, "\\ud800"), ("x", "y", "z"), (*"abcdef",)),
    )
    KEYWORDS = ({}, {"nonsense": 1}, {"\\ud800": 1}, {"wait": "x"}, {"timeout": "x"}, {"fn": 1})
    KEYWORDS += ({"workers": "x"}, {"name": 5}, {"max_pending": "x"}, {"pool": 5}, {"limit": "x"})

    async def attempt(name, what, args, keywords):
        global calls
        calls += 1
        try:
            result = what(*args, **keywords)
            if isinstance(result, (types.CoroutineType, asyncio.Future)):
                await asyncio.wait_for(result, 10)
            elif isinstance(result, core.Future):
                result.result(10)
        except Exception as error:
            told.setdefault(f"{type(error).__name__}: {error}", f"{name}{args}{keywords}")

    async def try_all(name, what):
        for args in ARGUMENTS:
            for keywords in KEYWORDS:
                await attempt(name, what, args, keywords)

    def makers():
        yield lambda: offgil.Pool(1)
        yield lambda: offgil.ThreadPoolExecutor(1)
        yield lambda: offgil.AsyncioExecutor(1)

    async def main():
        for module in (offgil, core, ex):
            for name, thing in vars(module).items():
                # examples has functions that are pybind11's own, on purpose
                is_ours = module is not ex or isinstance(thing, offgil.NativeFunction)
                if callable(thing) and not name.startswith("__") and is_ours and name != "sleep":
                    await try_all(name, thing)
        for make in makers():
            for name in dir(make()):
                if is_public(make(), name):
                    it = make()
                    await try_all(name, getattr(it, name))
        pool = offgil.Pool(1)
        futures = pool.submit(abs, 1), pool.executor.submit(abs, 1)
        assert await futures[0] == futures[1].result(10) == 1
        for future in futures:
            for name in dir(future):
                if is_public(future, name):
                    await try_all(name, getattr(future, name))
        await pool.aclose()

    asyncio.run(asyncio.wait_for(main(), 200))
    print(calls, flush=True)
    for text, call in told.items():
        print(ascii(text), "|", ascii(call))
"""

PHRASES = ("incompatible", "Invoked with", "pybind", "Unable to c", "std::", "Internal error")


def test_no_error_is_in_pybind11s_words(tmp_path: Path) -> None:
    """Every callable of the package, its objects' methods included, called with what is wrong."""
    done = run_script(EVERY_ERROR, str(tmp_path), limit=240)
    assert done.returncode == 0, done.stderr
    calls, *told = done.stdout.splitlines()
    assert int(calls) > 5000 and len(told) > 100, "hardly anything was asked"
    told += done.stderr.splitlines()  # by the loop, of callbacks that cannot be called
    assert [line for line in told if any(phrase in line for phrase in PHRASES)] == []


def test_options_are_keywords() -> None:
    """Only `workers` may be given by position."""
    with pytest.raises(TypeError):
        offgil.Pool(1, "name")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["", "x" * 300, "Grüße", "a\0b", "%s%n", "/etc"], ids=ascii)
async def test_any_string_is_a_name(name: str) -> None:
    """A name that does not fit a thread's is cut; the pool works."""
    async with offgil.Pool(1, name=name) as pool:
        assert await pool.submit(ex.echo, 1) == 1
        assert await pool.submit(len, "abc") == 3
        repr(pool)


@pytest.mark.parametrize("base", [offgil.Pool, offgil.ThreadPoolExecutor])
async def test_a_subclass_that_submits_before_it_is_made(base: Any) -> None:
    """It gets an error that says what is missing, and can go on from there."""

    class Early(base):  # type: ignore[misc]
        def __init__(self) -> None:
            with pytest.raises(TypeError, match="__init__"):
                self.submit(ex.echo, 1)
            super().__init__(1)

    Early()
    with pytest.raises(TypeError, match="__init__"):
        base.__new__(base).submit(ex.echo, 1)


# --------------------------------------------------------------------------------------------------
# submit


async def test_what_cannot_be_called_is_refused(pool: offgil.Pool) -> None:
    """submit and run raise TypeError that says which argument is wrong; nothing is queued."""
    for fn in (None, 5, "echo", object(), [ex.echo]):
        with pytest.raises(TypeError, match=rf"\bfn\b.*{type(fn).__name__}"):
            pool.submit(fn)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"\bfn\b"):
            await pool.run(fn)  # type: ignore[arg-type]
    assert check_balance(pool).submitted == 0


async def test_submit_needs_a_function(pool: offgil.Pool) -> None:
    """submit() without anything, or with keywords only, raises TypeError that says so."""
    with pytest.raises(TypeError, match=r"\bfn\b"):
        pool.submit()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"\bfn\b"):
        pool.submit(fn=ex.echo)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await pool.run()  # type: ignore[call-arg]
    assert pool.stats().submitted == 0


async def test_bad_python_arguments_fail_in_the_job(pool: offgil.Pool) -> None:
    """A Python callable is given what it was given; its TypeError is the job's."""
    future = pool.submit(len)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await future
    with pytest.raises(TypeError):
        await pool.submit(dict, 1, b=2)  # type: ignore[arg-type]
    assert pool.stats().failed == 2


def test_submit_needs_a_running_loop() -> None:
    """Outside a loop, and inside one that is not running, submit raises RuntimeError."""
    pool = offgil.Pool(1)
    try:
        for fn in (ex.echo, int):
            with pytest.raises(RuntimeError, match="loop"):
                pool.submit(fn, 1)
        loop = LOOPS["asyncio"]()
        asyncio.set_event_loop(loop)
        with pytest.raises(RuntimeError, match="loop"):
            pool.submit(ex.echo, 1)
        asyncio.set_event_loop(None)
        assert pool.stats().submitted == 0
        loop.run_until_complete(pool.aclose())
        with pytest.raises(offgil.PoolClosed):
            loop.run_until_complete(pool.run(ex.echo, 1))
        loop.close()
    finally:
        asyncio.set_event_loop(None)


async def test_a_bad_timeout_of_aclose(pool: offgil.Pool) -> None:
    """aclose raises TypeError, and the pool stays open."""
    for timeout in ("1", b"1", [1]):
        with pytest.raises(TypeError):
            await pool.aclose(timeout=timeout)  # type: ignore[arg-type]
        assert await pool.submit(ex.echo, 1) == 1


# --------------------------------------------------------------------------------------------------
# no more file descriptors

FEW_FDS = """
    import asyncio, errno, gc, importlib, linecache, os, resource, sys, traceback
    import offgil, offgil.examples as ex
    try:
        import uvloop
    except ImportError:
        pass

    kind, delivery, loop_kind = sys.argv[1:]
    offgil.Pool._future_kind = kind

    def fds():
        return len(os.listdir("/proc/self/fd")) - 1

    def threads():
        return len(os.listdir("/proc/self/task"))

    def leave(n):
        # The lowest numbers are given out first: fill the holes below, then allow n more.
        soft = max(map(int, os.listdir("/proc/self/fd"))) + 1
        holes = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while True:
            try:
                holes.append(os.dup(0))
            except OSError:
                break
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft + n, hard))
        return holes

    def restore(holes):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for fd in holes:
            os.close(fd)

    def clean(error):
        # An OSError with the right errno, or a RuntimeError whose text says it.
        return (isinstance(error, OSError) and error.errno == errno.EMFILE) or (
            isinstance(error, RuntimeError) and "Too many open files" in str(error))

    async def settled(before):  # a thread that was joined is listed a little longer
        for _ in range(3000):
            if (fds(), threads()) == before:
                return True
            await asyncio.sleep(0.001)
        return False

    async def attempt(n):
        pool = None
        refused = 0
        holes = leave(n)
        try:
            try:
                pool = offgil.Pool(2, delivery=delivery)
                assert await asyncio.wait_for(pool.submit(ex.echo, n), 10) == n
                assert await asyncio.wait_for(pool.submit(len, "abc"), 10) == 3
            except (OSError, RuntimeError) as error:
                assert clean(error), repr(error)
                refused = 1
                del error
        finally:
            restore(holes)
        if pool is not None:    # made, but could not serve: now it can
            if refused:
                assert pool.stats().submitted == pool.stats().completed, pool.stats()
            assert await asyncio.wait_for(pool.submit(ex.echo, n), 10) == n
            await pool.aclose()
        return refused

    async def main():
        await attempt(20)  # warm-up
        await asyncio.sleep(0)  # a channel is taken down in its loop's next turn
        gc.collect()
        before = fds(), 1
        assert await settled(before), (fds(), threads())
        refused = []
        for n in [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 0]:
            refused.append(await attempt(n))
            await asyncio.sleep(0)
            gc.collect()
            assert await settled(before), (n, fds(), threads(), before)
        return refused

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard = 4096 if hard == resource.RLIM_INFINITY else hard
    new_loop = uvloop.new_event_loop if loop_kind == "uvloop" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(*runner.run(main()))
"""


@pytest.mark.parametrize("loop_kind", LOOPS)
@pytest.mark.parametrize(
    ("kind", "delivery"), [("inline", "eventfd"), ("plain", "eventfd"), ("inline", "callback")]
)
def test_a_process_without_file_descriptors(kind: str, delivery: str, loop_kind: str) -> None:
    """Whichever descriptor cannot be had, a clean error says so; nothing leaks or hangs after it.

    With some to spare everything works, also a pool that was made while there were none.
    """
    refused = [int(r) for r in check_script(FEW_FDS, kind, delivery, loop_kind).split()]
    assert len(refused) == 12
    if delivery == "eventfd":
        assert refused[0] == refused[1] == refused[-1] == 1, "no descriptor, and yet no error"
    assert refused[10] == 0, "twenty descriptors are enough"


# --------------------------------------------------------------------------------------------------
# no more threads

FEW_THREADS = """
    import asyncio, ctypes, gc, os, sys, time
    import offgil, offgil.examples as ex

    shim = ctypes.CDLL(None)
    delivery, workers = sys.argv[1], 4

    def threads():
        return len(os.listdir("/proc/self/task"))

    def fds():
        return len(os.listdir("/proc/self/fd")) - 1

    async def settled(before):  # a thread that was joined is listed a little longer
        for _ in range(3000):
            if (threads(), fds()) == before:
                return True
            await asyncio.sleep(0.001)
        return False

    async def use(pool):
        assert await asyncio.wait_for(pool.submit(ex.echo, 1), 10) == 1
        assert await asyncio.wait_for(pool.submit(len, "abc"), 10) == 3

    async def main():
        async with offgil.Pool(workers, delivery=delivery) as pool:  # warm-up
            await use(pool)
        del pool
        await asyncio.sleep(0)  # a channel is taken down in its loop's next turn
        gc.collect()
        before = 1, fds()
        assert await settled(before), (threads(), fds())
        for n in range(1, workers + 4):  # time, workers, dispatcher
            for all_after in (0, 1):
                shim.fail_thread(n, all_after)
                pool, error = None, None
                try:
                    pool = offgil.Pool(workers, delivery=delivery)
                    await use(pool)
                except (RuntimeError, OSError) as e:
                    error = f"{type(e).__name__}: {e}"
                shim.fail_thread(0, 0)
                print(n, all_after, "made" if pool else "not made", error or "no error", sep="|")
                if pool:    # what could not be had then can be had now
                    await use(pool)
                    await pool.aclose()
                del pool
                await asyncio.sleep(0)
                gc.collect()
                assert await settled(before), (n, threads(), fds(), before)
        async with offgil.Pool(workers, delivery=delivery) as pool:
            await use(pool)

    asyncio.run(main())
"""


@pytest.mark.parametrize("delivery", ["eventfd", "callback"])
def test_a_thread_that_cannot_start(thread_shim: Path, delivery: str) -> None:
    """A clean error where no job could run, which can be retried; else the others do the work."""
    out = check_script(FEW_THREADS, delivery, LD_PRELOAD=str(thread_shim), OFFGIL_LOG="error")
    rows = [line.split("|") for line in out.splitlines()]
    assert len(rows) == 14
    needed = 1 if delivery == "eventfd" else 2  # a worker, and who calls the loop
    for n, _, made, error in rows:
        assert made == "made"
        assert (error != "no error") == (int(n) <= needed), (n, error)
        if error != "no error":
            assert "thread" in error.lower(), "the message says what could not be had"
