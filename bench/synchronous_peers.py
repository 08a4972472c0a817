"""The peers whose callers block: all jobs are submitted, then each result is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any

from peer import Batch, Peer, SynchronousPeer, UnavailableError
from workloads import WORKERS, Function

import offgil
from offgil import examples


@contextmanager
def _standard() -> Iterator[Batch]:
    with ThreadPoolExecutor(WORKERS) as executor:
        yield _through(executor, examples.echo_nogil)


@contextmanager
def _offgil() -> Iterator[Batch]:
    if not hasattr(offgil, "ThreadPoolExecutor"):
        raise UnavailableError("this offgil has no ThreadPoolExecutor")
    with offgil.ThreadPoolExecutor(WORKERS) as executor:
        yield _through(executor, examples.echo)


def _through(executor: Executor, echo: Function) -> Batch:
    def batch(numbers: range) -> list[int]:
        return [future.result() for future in [executor.submit(echo, number) for number in numbers]]

    return batch


@contextmanager
def _thread_pool() -> Iterator[Batch]:
    with ThreadPool(WORKERS) as pool:
        yield _applied(pool)


@contextmanager
def _tbb() -> Iterator[Batch]:
    import tbb

    # The caller's thread counts, although it takes no job.
    limit = tbb.global_control(tbb.global_control.max_allowed_parallelism, WORKERS + 1)
    pool = tbb.Pool()
    yield _applied(pool)
    pool.close()
    pool.join()
    del limit


def _applied(pool: Any) -> Batch:
    def batch(numbers: range) -> list[int]:
        waiting = [pool.apply_async(examples.echo_nogil, (number,)) for number in numbers]
        return [one.get() for one in waiting]

    return batch


@contextmanager
def _joblib() -> Iterator[Batch]:
    from joblib import Parallel, delayed

    with Parallel(WORKERS, backend="threading") as parallel:

        def batch(numbers: range) -> list[int]:
            results: list[int] = parallel(delayed(examples.echo_nogil)(n) for n in numbers)
            return results

        yield batch


def _peer(
    name: str, door: Callable[[], AbstractContextManager[Batch]], *packages: str
) -> SynchronousPeer:
    return Peer(name, door, "none", packages)


#: What every ratio is to.
REFERENCE = _peer("ThreadPoolExecutor", _standard)

PEERS: tuple[SynchronousPeer, ...] = (
    REFERENCE,
    _peer("offgil.ThreadPoolExecutor", _offgil, "offgil"),
    _peer("multiprocessing.pool.ThreadPool", _thread_pool),
    _peer("tbb.Pool", _tbb, "tbb4py"),
    _peer("joblib, threading", _joblib, "joblib"),
)
