"""Pools and executors are plain classes: what can be mixed into any class can be into these."""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import gc
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest
from support import LIMIT

import offgil
from offgil import examples as ex

T = TypeVar("T")

BASES = [offgil.Pool, offgil.ThreadPoolExecutor, offgil.AsyncioExecutor]
each_base = pytest.mark.parametrize("base", BASES)


def works(made: Any) -> bool:
    """Use it once, and close it."""
    if isinstance(made, offgil.Pool):
        return asyncio.run(used_once(made)) == 5
    with made:
        return bool(made.submit(ex.echo, 5).result(LIMIT) == 5)


async def used_once(pool: offgil.Pool) -> int:
    async with pool:
        return await pool.submit(ex.echo, 5)


@each_base
def test_the_metaclass_is_type(base: Any) -> None:
    """It was pybind11's, which no other can be mixed with."""
    assert {type(each) for each in base.__mro__} <= {type, abc.ABCMeta}
    assert type(base) is type


class Submits(abc.ABC):
    @abc.abstractmethod
    def submit(self, fn: Any, /, *args: Any) -> Any: ...


class Named(abc.ABC):
    @abc.abstractmethod
    def its_name(self) -> str: ...


@runtime_checkable
class HasName(Protocol):
    def its_name(self) -> str: ...


@runtime_checkable
class CanSubmit(Protocol):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...


class Box(Generic[T]):
    pass


@dataclass
class Settings:
    size: int = 3


@each_base
@pytest.mark.parametrize("first", [True, False], ids=["in front", "behind"])
@pytest.mark.parametrize("mixin", [Named, HasName, Box[int], Generic[T]], ids=str)  # type: ignore[misc]
def test_a_mixin(base: Any, mixin: Any, first: bool) -> None:
    """An ABC, a Protocol, a Generic; in front of the class or behind it."""

    def body(namespace: dict[str, Any]) -> None:
        namespace["its_name"] = lambda self: "mine"

    bases = (mixin, base) if first else (base, mixin)
    made = types.new_class("Mixed", bases, exec_body=body)(2)
    assert isinstance(made, base) and made.its_name() == "mine"
    assert isinstance(made, HasName) and isinstance(made, CanSubmit)
    assert works(made)


@each_base
def test_an_abstract_method_is_asked_for(base: Any) -> None:
    """As of any class; and what the class has itself counts."""

    class Lacking(base, Named):  # type: ignore[misc]
        pass

    class Complete(base, Submits):  # type: ignore[misc]
        pass

    with pytest.raises(TypeError, match=r"Can't instantiate abstract class Lacking.*its_name"):
        Lacking(1)
    assert works(Complete(1))


@each_base
def test_a_virtual_subclass(base: Any) -> None:
    """ABCMeta.register takes it."""

    class Registry(abc.ABC):  # noqa: B024
        pass

    Registry.register(base)
    made = base(1)
    assert isinstance(made, Registry)
    assert works(made)


@each_base
def test_a_dataclass_beside_it(base: Any) -> None:
    """Whose __init__ knows nothing of ours: the subclass calls both."""

    class Configured(Settings, base):  # type: ignore[misc]
        def __init__(self) -> None:
            Settings.__init__(self, 4)
            base.__init__(self, 1)

    made = Configured()
    assert made.size == 4
    assert works(made)


@each_base
def test_a_dataclass_of_its_own(base: Any) -> None:
    """Made in __post_init__."""

    @dataclass(eq=False)
    class Own(base):  # type: ignore[misc]
        size: int = 1

        def __post_init__(self) -> None:
            super().__init__(self.size)

    assert works(Own(2))


@each_base
def test_a_chain_of_inits(base: Any) -> None:
    """Each calls super().__init__ with what it does not know; the class's own ends the chain.

    As with the standard executor, whose __init__ calls no other.
    """
    calls = []

    class First:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            calls.append("first")
            super().__init__(*args, **kwargs)

    class Left(base):  # type: ignore[misc]
        def __init__(self, *args: Any, left: int = 0, **kwargs: Any) -> None:
            calls.append("left")
            super().__init__(*args, **kwargs)

    class Right(base):  # type: ignore[misc]
        def __init__(self, *args: Any, right: int = 0, **kwargs: Any) -> None:
            calls.append("right")
            super().__init__(*args, **kwargs)

    class Last:
        def __init__(self) -> None:
            calls.append("never")

    class All(First, Left, Right, Last):
        pass

    assert works(All(1, left=2, right=3))
    assert calls == ["first", "left", "right"]


@each_base
def test_init_subclass_and_slots(base: Any) -> None:
    """Both are a class's own business."""
    seen = []

    class Registered(base):  # type: ignore[misc]
        __slots__ = ("__extra", "more")

        def __init_subclass__(cls, *, key: str, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            seen.append(key)

    class Leaf(Registered, key="leaf"):
        __slots__ = ()

    made = Leaf(1)
    made.more, made.other = 1, 2
    assert (seen, made.more, vars(made)["other"]) == (["leaf"], 1, 2)
    assert works(made)


@each_base
def test_its_class_attributes_may_be_set(base: Any) -> None:
    """Also a property of ours, by one of the subclass's."""

    class Own(base):  # type: ignore[misc]
        @property
        def workers(self) -> int:
            return 77

    made = Own(1)
    assert made.workers == 77
    Own.workers = 5
    assert made.workers == 5
    assert works(made)


@each_base
def test_a_subclass_and_its_instances_are_collected(base: Any) -> None:
    """Also where an instance refers to itself."""

    class Own(base):  # type: ignore[misc]
        pass

    made = Own(1)
    made.itself = made
    refs = weakref.ref(made), weakref.ref(Own)
    assert works(made)
    del made, Own
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_two_that_do_not_mix() -> None:
    """A class that would be a pool and an executor at once is refused where it is defined."""
    with pytest.raises(TypeError, match=r"lay-?out conflict"):
        type("Both", (offgil.Pool, offgil.ThreadPoolExecutor), {})


def test_an_executor_stays_the_standard_ones_subclass() -> None:
    """To isinstance, also through ABCs and subclasses of the standard one."""

    class Standard(concurrent.futures.ThreadPoolExecutor):
        def mine(self) -> int:
            return 1

    class Ours(offgil.ThreadPoolExecutor, Standard):
        pass

    with Ours(1) as executor:
        assert executor.mine() == 1
        assert executor.submit(ex.echo, 2).result(LIMIT) == 2
    assert issubclass(offgil.ThreadPoolExecutor, concurrent.futures.ThreadPoolExecutor)
