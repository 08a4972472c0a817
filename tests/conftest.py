"""What every test shares: event loops under watch, pools of each flavour, gates, threads.

* Each async test runs once on asyncio and once on uvloop (where it is installed).
* A loop's exception handler collects; what is still there when the test ends fails it.
* Pools come in three flavours: the future that resumes its awaiter inside the drain, the plain
  asyncio.Future that serves as its oracle, and delivery by callback.
* Executors come in two kinds: the standard library's serves as the oracle of ours.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import support
from executors import KINDS, OURS, Kind
from shims import freed_shim, slow_locks_shim, thread_shim  # noqa: F401 (fixtures)
from support import DEBUG, FLAVOURS, LIMIT, LOOPS, Flavour, Gate, LoopErrors, check_balance

import offgil

# What they test is compiled, or runs in processes of its own, and knows no debug mode.
collect_ignore = (
    [
        "test_bench_overhead.py",
        "test_bench_peers.py",
        "test_bench_service.py",
        "test_demo.py",
        "test_linkage.py",
        "test_sdist.py",
        "test_sdk.py",
        "test_sdk_guards.py",
    ]
    if DEBUG
    else []
)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    return LOOPS


def pytest_configure(config: pytest.Config) -> None:
    # The plugin's runner switches debug mode off unless told, whatever the environment says.
    config.option.asyncio_debug = DEBUG
    # A background job may be started with SIGINT ignored, and what tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # keeps the many full collections of this suite quick


@pytest.fixture(autouse=True)
def loop_errors() -> Iterator[LoopErrors]:
    """Fail the test when a loop's exception handler was called and nobody expected it."""
    support.loop_errors.clear()
    yield support.loop_errors
    gc.collect()  # "exception was never retrieved" is told when the future dies
    left = support.loop_errors.take()
    assert not left, f"the loop's exception handler was called: {left}"


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Make a loop of each kind, for tests that run loops of their own."""
    return LOOPS[request.param]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flavour:
    """Choose the kind of future and the channel for every pool of the test."""
    chosen = FLAVOURS[request.param]
    monkeypatch.setattr(offgil.Pool, "_future_kind", chosen.kind)
    return chosen


@pytest.fixture
async def make_pool(flavour: Flavour) -> AsyncIterator[Callable[..., offgil.Pool]]:
    """Make pools that are closed, and checked, when the test ends."""
    pools: list[offgil.Pool] = []

    def make(workers: int | None = 2, **options: Any) -> offgil.Pool:
        pools.append(flavour.new_pool(workers, **options))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.aclose(cancel_pending=True, timeout=LIMIT)
        check_balance(pool)
        assert pool.pending == pool.running == 0


@pytest.fixture
async def pool(make_pool: Callable[..., offgil.Pool]) -> offgil.Pool:
    """A pool with two workers."""
    return make_pool(2)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Choose the standard library's executor or ours."""
    return KINDS[request.param]


@pytest.fixture(params=["ours"])
def only_ours(request: pytest.FixtureRequest) -> Kind:
    """Our executor, in a test of what the standard one does not have."""
    return OURS


@pytest.fixture
def make_executor(kind: Kind) -> Iterator[Callable[..., Any]]:
    """Make executors that are shut down when the test ends."""
    made: list[Any] = []

    def make(max_workers: int | None = 2, *args: Any, **options: Any) -> Any:
        made.append(kind.new(max_workers, *args, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def executor(make_executor: Callable[..., Any]) -> Any:
    """An executor of either kind with two workers."""
    return make_executor(2)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads change places a hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open at the latest when the test ends."""
    the_gate = Gate()
    yield the_gate
    the_gate.open()


@pytest.fixture
def in_thread() -> Iterator[Callable[..., threading.Thread]]:
    """Run functions in threads; join them and raise what they raised when the test ends."""
    threads: list[threading.Thread] = []
    raised: list[BaseException] = []

    def start(fn: Callable[..., Any], *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                fn(*args)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a thread of the test did not end in time"
    for error in raised:
        raise error
