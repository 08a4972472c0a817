"""The C++ side of offgil. Everything public is in the package offgil."""

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from typing import Any, ParamSpec, TypeVar, final

from typing_extensions import disjoint_base

_P = ParamSpec("_P")
_T = TypeVar("_T")

class PoolError(RuntimeError):
    """Base of what a pool raises about itself."""

class PoolClosed(PoolError):
    """The pool has been closed; make a new one."""

class PoolFull(PoolError):
    """max_pending jobs wait already; use run(), or submit later."""

class PoolBroken(PoolError, BrokenThreadPool):
    """The pool's threads are of no use: they stayed behind in a fork, or an initializer failed.

    Make a new pool.
    """

class NativeError(Exception):
    """A native function threw something that has no counterpart in Python."""

@final
class NativeFunction:
    """A C++ function that runs without the GIL.

    Submit it to a pool, or call it: a direct call releases the GIL.
    """

    __name__: str
    __qualname__: str
    @property
    def __signature__(self) -> inspect.Signature: ...
    def __new__(cls, capsule: object, defaults: tuple[object, ...] = ()) -> NativeFunction: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

@disjoint_base
class Pool:
    """The engine behind offgil.Pool."""

    def __init__(
        self,
        *,
        workers: int | None,
        name: str,
        max_pending: int | None,
        nice: int,
        spin: float,
        delivery: str,
        initializer: Callable[[], object] | None,
        future_kind: str,
    ) -> None: ...
    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]: ...
    def _submit_in_line(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]: ...
    def _when_idle(self) -> asyncio.Future[None]: ...
    def _close(self) -> None: ...
    def _join(self, seconds: float, /) -> bool: ...
    @property
    def _is_closed(self) -> bool: ...
    @property
    def _is_initializing(self) -> bool: ...
    @property
    def _is_calling_back(self) -> bool: ...
    def _cancel_waiting(self) -> int: ...
    def _running_names(self) -> list[str]: ...
    def _is_on_own_thread(self) -> bool: ...
    def _start_trace(self, limit: int, /) -> None: ...
    def _stop_trace(self) -> Callable[[bytes], None]: ...
    def _counters(self) -> dict[str, Any]: ...
    @property
    def workers(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def running(self) -> int: ...

@final
class Future(concurrent.futures.Future[_T]):
    """The future of a job: a concurrent.futures.Future whose cancel() withdraws the job."""

@disjoint_base
class Executor:
    """The engine behind offgil.ThreadPoolExecutor."""

    def __init__(
        self,
        *,
        workers: int | None = None,
        name: str = "",
        initializer: Callable[[], object] | None = None,
        max_pending: int | None = None,
        on_full: str = "block",
        serves_loop: bool = False,
        pool: Pool | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None: ...
    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> concurrent.futures.Future[_T]: ...
    def _submit_concurrent(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> concurrent.futures.Future[_T]: ...
    def _submit_here(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> concurrent.futures.Future[_T]: ...
    def _submit_concurrent_here(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> concurrent.futures.Future[_T]: ...
    def _shut_down(self, wait: object, cancel_futures: object, /) -> None: ...
    def _counters(self) -> dict[str, Any]: ...

def usable_cpu_count() -> int:
    """CPUs that this process may use: affinity and cgroup quota."""
