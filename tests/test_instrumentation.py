"""Tracers wrap the standard executor's submit: what they carry from there to a job reaches ours.

As OpenTelemetry's ThreadingInstrumentor, Sentry's threading integration and their like do it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import unittest.mock
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import wrapt
from executors import Kind
from support import LIMIT

import offgil
from offgil import examples as ex

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


def look() -> str:
    return request.get()


def carrying(fn: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """Return what runs `fn` under the request of who calls this."""
    mine = request.get() if name is None else name

    def carried(*args: Any, **kwargs: Any) -> Any:
        token = request.set(mine)
        try:
            return fn(*args, **kwargs)
        finally:
            request.reset(token)

    return carried


def wrap_by_wrapt() -> None:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        assert isinstance(instance, ThreadPoolExecutor)
        return wrapped(carrying(args[0]), *args[1:], **kwargs)

    wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", wrapper)


def wrap_by_closure() -> None:
    standard = ThreadPoolExecutor.submit

    @functools.wraps(standard)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return standard(self, carrying(fn), *args, **kwargs)

    setattr(ThreadPoolExecutor, "submit", submit)  # noqa: B010 (mypy)


def wrap_by_one_that_knows_itself() -> None:
    """And has things in its closure that answer to any name, or refuse to be asked."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"asked for {name}")

    standard, answers, refuses = ThreadPoolExecutor.submit, unittest.mock.MagicMock(), Proxy()

    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        assert submit and answers is not None and refuses is not None
        return standard(self, carrying(fn), *args, **kwargs)

    setattr(ThreadPoolExecutor, "submit", submit)  # noqa: B010 (mypy)


def wrap_twice() -> None:
    wrap_by_wrapt()
    wrap_by_closure()
    wrap_by_wrapt()


WAYS = [wrap_by_wrapt, wrap_by_closure, wrap_by_one_that_knows_itself, wrap_twice]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def instrument(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Wrap the standard class's submit; it is as it was when the test has ended."""
    before = vars(ThreadPoolExecutor)["submit"]
    yield request.param
    setattr(ThreadPoolExecutor, "submit", before)  # noqa: B010


@pytest.fixture(autouse=True)
def in_a_request() -> Iterator[None]:
    token = request.set("mine")
    yield
    request.reset(token)


def test_the_submitters_request_reaches_the_job(kind: Kind, instrument: Callable[[], None]) -> None:
    """At submit and at map; not before it is asked for, and not after."""
    with kind.new(1) as executor:
        assert executor.submit(look).result(LIMIT) == "none"
        before = vars(ThreadPoolExecutor)["submit"]
        instrument()
        assert executor.submit(look).result(LIMIT) == "mine"
        assert list(executor.map(lambda _: look(), range(2))) == ["mine", "mine"]
        future = executor.submit(divmod, 7, 4)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(LIMIT) == (1, 3)
        setattr(ThreadPoolExecutor, "submit", before)  # noqa: B010
        assert executor.submit(look).result(LIMIT) == "none"


def test_at_the_other_doors(only_ours: Kind, instrument: Callable[[], None]) -> None:
    """A pool's executor, and run_in_executor and to_thread after install()."""
    instrument()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with offgil.Pool(1) as pool:
            assert pool.executor.submit(look).result(LIMIT) == "mine"
            assert await loop.run_in_executor(pool.executor, look) == "mine"
        executor = offgil.install(workers=1)
        assert await loop.run_in_executor(None, look) == "mine"
        assert await asyncio.to_thread(look) == "mine"
        assert list(executor.map(lambda _: look(), range(2))) == ["mine", "mine"]

    asyncio.run(main())


def test_a_native_function_is_run_as_ever(only_ours: Kind, instrument: Callable[[], None]) -> None:
    """It sees no request, and no thread takes the GIL for it; nor where to_thread submits it."""
    instrument()

    async def main() -> None:
        executor = offgil.install(workers=1)
        assert await asyncio.to_thread(ex.echo, 5) == 5
        assert executor.stats().gil_acquisitions == 0

    asyncio.run(main())
    with only_ours.new(1) as executor:
        assert executor.submit(ex.echo, 5).result(LIMIT) == 5
        assert executor.stats().gil_acquisitions == 0  # type: ignore[attr-defined]


def test_errors_are_those_of_submit(kind: Kind, instrument: Callable[[], None]) -> None:
    """After the shutdown, and without a function."""
    instrument()
    executor = kind.new(1)
    with pytest.raises((TypeError, IndexError)):
        executor.submit()  # type: ignore[call-arg]
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(look)


def test_a_wrapper_that_does_not_show_what_it_wraps(only_ours: Kind) -> None:
    """Submit goes past it."""
    before = vars(ThreadPoolExecutor)["submit"]
    called: list[Any] = []

    class Hidden:
        def __get__(self, instance: Any, owner: Any) -> Any:
            called.append(instance)
            return functools.partial(before, instance)

    setattr(ThreadPoolExecutor, "submit", Hidden())  # noqa: B010
    try:
        with only_ours.new(1) as executor:
            assert executor.submit(look).result(LIMIT) == "none"
    finally:
        setattr(ThreadPoolExecutor, "submit", before)  # noqa: B010
    assert called == []


def test_a_wrapper_that_is_switched_off(kind: Kind) -> None:
    """As wrapt has it."""
    is_on = False

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(carrying(args[0]), *args[1:], **kwargs)

    before = vars(ThreadPoolExecutor)["submit"]
    wrapped = wrapt.FunctionWrapper(before, wrapper, enabled=lambda: is_on)
    setattr(ThreadPoolExecutor, "submit", wrapped)  # noqa: B010
    try:
        with kind.new(1) as executor:
            assert executor.submit(look).result(LIMIT) == "none"
            is_on = True
            assert executor.submit(look).result(LIMIT) == "mine"
    finally:
        setattr(ThreadPoolExecutor, "submit", before)  # noqa: B010


def test_opentelemetry(kind: Kind) -> None:
    """Its ThreadingInstrumentor, with the real thing."""
    context = pytest.importorskip("opentelemetry.context")
    threading_ = pytest.importorskip("opentelemetry.instrumentation.threading")
    instrumentor = threading_.ThreadingInstrumentor()
    instrumentor.instrument()
    token = context.attach(context.set_value("request", "mine"))
    try:
        with kind.new(1) as executor:
            assert executor.submit(context.get_value, "request").result(LIMIT) == "mine"
    finally:
        context.detach(token)
        instrumentor.uninstrument()
