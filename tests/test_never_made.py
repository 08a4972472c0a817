"""Objects whose __init__ has failed or never ran: an exception from each method, never a crash."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import traceback
from typing import Any

import pytest
from support import check_script, run_script

import offgil
from offgil import _core
from offgil._executor import PoolExecutor

MADE_BY_INIT = [offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor, PoolExecutor]

# --------------------------------------------------------------------------------------------------
# every type, every attribute

# Finds all types by itself, so that one that is added later is in it. Each step is told before it
# is made: a crash names the last one.
EVERYTHING = """
    import asyncio, copy, gc, os, pickle, sys, types, warnings, weakref
    import offgil, offgil.examples as ex
    warnings.simplefilter("ignore")  # of coroutines that were never awaited
    steps = open(sys.argv[1], "w", buffering=1)
    os.chdir(os.path.dirname(sys.argv[1]))  # what takes a path may write there

    async def futures():
        async with offgil.Pool(1) as pool:
            return type(pool.submit(ex.echo, 1)), type(pool.executor.submit(ex.echo, 1))

    kept = asyncio.run(futures())

    def below(base):
        for each in type.__subclasses__(base):
            yield each
            yield from below(each)

    def ours(type_):
        return str(type_.__module__).partition(".")[0] == "offgil"

    types_ = sorted({t for t in below(object) if ours(t)}, key=repr)

    def attempt(what, *args):
        try:
            result = what(*args)
            if isinstance(result, types.CoroutineType):
                try:
                    result.send(None)
                finally:
                    result.close()
            return result
        except Exception as error:
            return error

    def failed(type_):
        made = []
        class Fails(type_):
            def __init__(self, *args):
                made.append(self)
                super().__init__(*args)
        for args in ((), (0,), ("x",), (None, 0), (object(),)):
            attempt(Fails, *args)
        return made[0]

    MAKERS = {
        "new": lambda t: t.__new__(t),
        "object": lambda t: object.__new__(t),
        "base": lambda t: t.__base__.__new__(t),
        "subclass": lambda t: object.__new__(type("Sub", (t,), {})),
        "failed": failed,
    }
    # What a method may be called with: nothing, and what the methods of the library take.
    PLAUSIBLE = (
        *((), (1,), (2,), (0.001,), (None,), (len, "abc"), (ex.echo, 1), (False, False)),
        *(("x",), ("x", "y", "z")),
    )
    OPERATORS = (
        *(repr, str, hash, bool, iter, next, len, vars, gc.get_referents, weakref.ref),
        *(copy.copy, copy.deepcopy, lambda o: o == o, lambda o: o < o, lambda o: o[0]),
    )

    def new(type_, maker):
        made = attempt(MAKERS[maker], type_)
        return None if isinstance(made, Exception) else made

    count = 0
    for type_ in types_:
        for maker in MAKERS:
            if new(type_, maker) is None:
                continue
            for name in dir(new(type_, maker)):
                print(type_, maker, name, file=steps)
                it = new(type_, maker)
                attempt(getattr, it, name)
                for args in PLAUSIBLE:
                    it = new(type_, maker)
                    found = attempt(getattr, it, name)
                    if callable(found):
                        attempt(found, *args)
                        count += 1
                for value in (None, 1, len):
                    attempt(setattr, new(type_, maker), name, value)
                attempt(delattr, new(type_, maker), name)
            it = new(type_, maker)
            print(type_, maker, "as an object", file=steps)
            assert type(it) is not None and repr(type(it))
            for what in OPERATORS:
                attempt(what, it)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                print(type_, maker, "pickle", protocol, file=steps)
                attempt(lambda: pickle.loads(pickle.dumps(it, protocol)))
            for other in types_:
                print(type_, maker, "as a", other, file=steps)
                for name in vars(other):  # the others' methods do not take it
                    attempt(getattr(other, name, None), it)
                    attempt(getattr(other, name, None), it, 1)
                it = new(type_, maker)
                attempt(setattr, it, "__class__", other)
                attempt(repr, it)
            del it
        gc.collect()
    print("done", file=steps)
    print(count, len(types_), *sorted({f"{t.__module__}.{t.__name__}" for t in types_}))
"""


def test_every_attribute_of_everything_that_was_never_made(tmp_path: Any) -> None:
    """Each method and property of each type, called with nothing and with what it may take.

    `repr`, `workers`, `stats`, `shutdown`... of a pool that has not been made ended the process, as
    did a pickle of any pool by the oldest protocols.
    """
    steps = tmp_path / "steps"
    done = run_script(EVERYTHING, str(steps), limit=240)
    last = steps.read_text().splitlines()[-1:]
    assert (done.returncode, last) == (0, ["done"]), f"{done.stderr[-2000:]}\n{done.stdout[-500:]}"
    calls, types, *names = done.stdout.split()
    assert {
        "offgil._core.Pool",
        "offgil._core.Future",
        "offgil.Future",
        "offgil._trace.Trace",
    } <= set(names)
    assert int(calls) > 100 * int(types), "the walk has seen hardly anything"


# --------------------------------------------------------------------------------------------------
# what they say

QUESTIONS: list[tuple[Any, list[Any]]] = [
    (
        offgil.Pool,
        [
            *(lambda p: p.workers, lambda p: p.pending, lambda p: p.running, lambda p: p.executor),
            *(lambda p: p.stats(), lambda p: p.submit(len, "abc"), lambda p: p.submit(abs)),
            *(lambda p: asyncio.run(p.aclose()), lambda p: asyncio.run(p.drain())),
            *(lambda p: asyncio.run(p.run(len, "abc")), lambda p: asyncio.run(leave(p))),
            *(lambda p: offgil.AsyncioExecutor(p), lambda p: PoolExecutor(p, "name")),
        ],
    ),
    *(
        (
            executor,
            [
                *(lambda e: e.submit(len, "abc"), lambda e: e.shutdown(), lambda e: e.stats()),
                *(lambda e: e.shutdown(wait=False, cancel_futures=True), lambda e: e._shutdown),
                *(lambda e: list(e.map(len, ["abc"])), lambda e: e.__exit__(None, None, None)),
                lambda e: list(e.map(len, ["abc"], buffersize=1)),
            ],
        )
        for executor in MADE_BY_INIT[1:]
    ),
]


async def leave(pool: offgil.Pool) -> None:
    async with pool:
        pass


@pytest.mark.parametrize(("type_", "questions"), QUESTIONS)
def test_it_says_what_is_missing(type_: Any, questions: list[Any]) -> None:
    """TypeError that names the class and its __init__; each of these was a crash."""
    for question in questions:
        with pytest.raises(TypeError, match=rf"{type_.__name__}\.__init__\(\) has not been called"):
            question(type_.__new__(type_))


def test_a_repr_of_a_pool_says_so() -> None:
    """It is what a traceback with locals shows."""

    class Named(offgil.Pool):
        pass

    for made in (offgil.Pool, Named):
        assert made.__name__ in repr(made.__new__(made))
        assert "__init__" in repr(made.__new__(made))
    assert "ThreadPoolExecutor" in repr(object.__new__(offgil.ThreadPoolExecutor))


@pytest.mark.parametrize("make", [offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor])
def test_a_traceback_with_locals(make: Any) -> None:
    """As `pytest -l` prints it, of an __init__ that refuses its argument."""
    with pytest.raises(ValueError) as raised:
        make(0)
    told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    assert re.search(rf"self = <.*{make.__name__}", "".join(told.format()))


def test_a_subclass_that_fails_and_shuts_down_in_del() -> None:
    """Its __del__ gets the usual exception, which Python reports; the process lives on."""
    done = run_script(
        """
        import offgil

        class Own(offgil.ThreadPoolExecutor):
            def __init__(self):
                raise KeyError("before super().__init__")
            def __del__(self):
                self.shutdown(wait=False)

        try:
            Own()
        except KeyError:
            pass
        print("alive")
        """
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")
    assert "TypeError: Own.__init__() has not been called" in done.stderr


# --------------------------------------------------------------------------------------------------
# __init__ again, and on what is no such object


@pytest.mark.parametrize("make", [offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor])
def test_a_second_init_changes_nothing(make: Any) -> None:
    """RuntimeError: what the first one has made may be in use by other threads."""
    made = make(2)
    was = repr(made), vars(made).copy()
    with pytest.raises(
        RuntimeError, match=rf"{make.__name__}\.__init__\(\) has been called already"
    ):
        made.__init__(1)
    assert (repr(made), vars(made)) == was
    if isinstance(made, offgil.Pool):
        asyncio.run(made.aclose())
    else:
        assert made.submit(len, "abc").result(20) == 3
        made.shutdown()


@pytest.mark.parametrize("make", [offgil.Pool, offgil.ThreadPoolExecutor])
def test_an_init_that_failed_may_be_called_again(make: Any) -> None:
    """It has left nothing behind."""
    made = make.__new__(make)
    with pytest.raises(ValueError):
        made.__init__(0)
    made.__init__(1)
    asyncio.run(made.aclose()) if make is offgil.Pool else made.shutdown()


def test_two_threads_that_make_the_same_object() -> None:
    """Starting a pool's threads releases the GIL: one of the two makes it, the other is refused."""
    out = check_script(
        """
        import sys, threading, offgil
        sys.setswitchinterval(1e-6)
        for _ in range(100):
            pool, ended = offgil.Pool.__new__(offgil.Pool), []
            start = threading.Barrier(2)
            def make():
                start.wait()
                try:
                    offgil.Pool.__init__(pool, 1)
                    ended.append("made")
                except RuntimeError:
                    ended.append("refused")
            threads = [threading.Thread(target=make) for _ in range(2)]
            for each in threads: each.start()
            for each in threads: each.join()
            assert sorted(ended) == ["made", "refused"], ended
            assert pool.workers == 1
        print("ok")
        """
    )
    assert out == "ok\n"


def test_an_init_of_the_wrong_object() -> None:
    """TypeError, as of any type's."""
    core: Any = _core.Pool
    for wrong in (object(), offgil.ThreadPoolExecutor(1), 5, offgil.Pool):
        with pytest.raises(TypeError):
            core.__init__(wrong, workers=1)


# --------------------------------------------------------------------------------------------------
# copies


@pytest.mark.parametrize("make", [offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor])
@pytest.mark.parametrize("made", [True, False])
def test_what_has_threads_is_not_copied(make: Any, made: bool) -> None:
    """TypeError by every protocol; those before 2 ended the process."""
    it = make(1) if made else make.__new__(make)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=f"cannot pickle '{make.__name__}' object"):
            pickle.dumps(it, protocol)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"cannot pickle '{make.__name__}' object"):
            copied(it)
    if made and make is offgil.Pool:
        asyncio.run(it.aclose())


def test_a_subclass_may_be_pickled_in_its_own_way() -> None:
    """By a __reduce__ that makes a new one."""
    executor = Remade(3)
    again = pickle.loads(pickle.dumps(executor))
    assert type(again) is Remade and again._max_workers == 3 and again is not executor


class Remade(offgil.ThreadPoolExecutor):
    def __reduce__(self) -> Any:
        return Remade, (self._max_workers,)


def test_a_class_of_another_make_is_refused() -> None:
    """An instance may become one of a subclass, but not one that holds another C++ object."""

    class Own(offgil.Pool):
        pass

    pool: Any = offgil.Pool(1)
    pool.__class__ = Own
    assert repr(pool).startswith("<test_a_class_of_another_make_is_refused.<locals>.Own 'offgil'")
    for other in (
        offgil.ThreadPoolExecutor,
        type(offgil.Pool.__mro__[1]),
        offgil.NativeFunction,
        int,
    ):
        with pytest.raises(TypeError):
            pool.__class__ = other
    asyncio.run(pool.aclose())
