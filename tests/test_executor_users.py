"""Libraries that take a concurrent.futures executor: Dask, joblib and tqdm.

What passes on the standard executor passes on ours.
"""

from __future__ import annotations

import concurrent.futures
import gc
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import LIMIT, block_until, check_balance

import offgil
from offgil import examples

WORKERS = 2
JOBS = 100
PREFIX = "users"


@pytest.fixture(scope="module", autouse=True)
def freeze_what_was_imported() -> Iterator[None]:
    """Keep the full collections of the tests that follow quick, as conftest does at the start."""
    yield
    gc.collect()
    gc.freeze()


def standard_type() -> type[ThreadPoolExecutor]:
    return ThreadPoolExecutor


def our_type() -> type[ThreadPoolExecutor]:
    return offgil.ThreadPoolExecutor


@pytest.fixture(params=[standard_type, our_type], ids=["standard", "ours"])
def executor_type(request: pytest.FixtureRequest) -> type[ThreadPoolExecutor]:
    return request.param()


@pytest.fixture
def executor(executor_type: type[ThreadPoolExecutor]) -> Iterator[ThreadPoolExecutor]:
    """An executor with two workers, whose balance is checked when the test ends."""
    with executor_type(WORKERS, thread_name_prefix=PREFIX) as executor:
        yield executor
    if type(executor) is not ThreadPoolExecutor:
        stats = check_balance(executor)
        assert stats.pending == stats.running == 0


def name_and(value: Any) -> tuple[str, Any]:
    """Return the name of the thread that runs this, too."""
    return threading.current_thread().name, value


def fail(number: int) -> int:
    raise LookupError(f"job {number}")


def check_named(named: list[tuple[str, Any]], values: Any) -> None:
    """Check the values, and that threads of the executor brought them."""
    assert [value for _, value in named] == [*values]
    assert all(name.startswith(PREFIX) for name, _ in named), named


# --------------------------------------------------------------------------------------------------
# Dask


def worker_id() -> tuple[str, str]:
    from distributed import get_worker

    return name_and(get_worker().id)


@contextmanager
def cluster(folder: Path, **options: Any) -> Iterator[Any]:
    """Open a scheduler and a worker in this process, joined without a socket; return a client."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=WORKERS,
            processes=False,
            # Both listen, whatever is wanted: on this machine only, at ports that are free.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            local_directory=str(folder),
            **options,
        ) as cluster,
        distributed.Client(cluster, timeout=LIMIT) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with cluster(tmp_path_factory.mktemp("dask")) as client:
        yield client


@pytest.fixture
def on_worker(client: Any, executor_type: type[ThreadPoolExecutor]) -> Iterator[Any]:
    """Register an executor on the worker, choose it for what is submitted, return the worker."""
    import dask
    from distributed import WorkerPlugin

    class Executors(WorkerPlugin):
        name = PREFIX

        def setup(self, worker: Any) -> None:
            worker.executors[PREFIX] = executor_type(WORKERS, thread_name_prefix=PREFIX)

        def teardown(self, worker: Any) -> None:
            worker.executors.pop(PREFIX).shutdown()

    client.register_plugin(Executors())
    (worker,) = client.cluster.workers.values()
    try:
        with dask.annotate(executor=PREFIX):
            yield worker
    finally:
        client.unregister_worker_plugin(PREFIX)
    assert PREFIX not in worker.executors


def test_distributed_runs_annotated_tasks_on_it(client: Any, on_worker: Any) -> None:
    futures = client.map(name_and, range(JOBS), pure=False)
    check_named(client.gather(futures, direct=True), range(JOBS))


def test_distributed_knows_its_worker_inside_a_task(client: Any, on_worker: Any) -> None:
    check_named([client.submit(worker_id, pure=False).result(LIMIT)], [on_worker.id])


def test_distributed_runs_a_native_function(client: Any, on_worker: Any) -> None:
    """It is pickled by name, and a task's result is the next one's argument."""
    first = client.submit(examples.echo, 90, pure=False)
    second = client.submit(examples.fibonacci, first, pure=False)
    assert second.result(LIMIT) == examples.fibonacci(90)


def test_distributed_tells_what_a_task_raised(client: Any, on_worker: Any) -> None:
    with pytest.raises(LookupError, match="job 7"):
        client.submit(fail, 7, pure=False).result(LIMIT)
    check_named([client.submit(name_and, 8, pure=False).result(LIMIT)], [8])


def test_distributed_closes_it_with_the_worker(
    executor_type: type[ThreadPoolExecutor], tmp_path: Path
) -> None:
    """One given to the cluster is the worker's default."""
    executor = executor_type(WORKERS, thread_name_prefix=PREFIX)
    with cluster(tmp_path, executor=executor) as client:
        check_named([client.submit(name_and, 1, pure=False).result(LIMIT)], [1])
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)


def test_dask_without_a_cluster(executor: ThreadPoolExecutor) -> None:
    """Its threaded scheduler takes any executor as `pool`, and asks it for its size."""
    dask = pytest.importorskip("dask")
    tasks = [dask.delayed(name_and)(number) for number in range(JOBS)]
    check_named(list(dask.compute(*tasks, scheduler="threads", pool=executor)), range(JOBS))


# --------------------------------------------------------------------------------------------------
# joblib


@pytest.fixture
def joblib(executor: ThreadPoolExecutor) -> Iterator[Any]:
    """The library, with a backend on the executor chosen."""
    joblib = pytest.importorskip("joblib", minversion="1.5")
    from joblib.parallel import BACKENDS, ParallelBackendBase

    class Backend(ParallelBackendBase):
        supports_retrieve_callback = True
        supports_sharedmem = True
        uses_threads = True

        def effective_n_jobs(self, n_jobs: int) -> int:
            return WORKERS

        def submit(self, func: Callable[[], Any], callback: Any = None) -> Any:
            future = executor.submit(func)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future: Any) -> Any:
            return future.result()

    joblib.register_parallel_backend(PREFIX, Backend)
    try:
        with joblib.parallel_config(backend=PREFIX):
            yield joblib
    finally:
        del BACKENDS[PREFIX]


def test_joblib_runs_on_it(joblib: Any) -> None:
    """Done callbacks submit the next jobs, so that most are submitted by the workers."""
    found = joblib.Parallel()(joblib.delayed(name_and)(number) for number in range(JOBS))
    check_named(found, range(JOBS))


def test_joblib_yields_results_as_they_come(joblib: Any) -> None:
    parallel = joblib.Parallel(return_as="generator_unordered")
    found = parallel(joblib.delayed(examples.echo)(number) for number in range(JOBS))
    assert sorted(found) == [*range(JOBS)]


def test_joblib_raises_what_a_job_raised(joblib: Any) -> None:
    with pytest.raises(LookupError, match="job 0"):
        joblib.Parallel()(joblib.delayed(fail)(0) for _ in range(JOBS))


# --------------------------------------------------------------------------------------------------
# tqdm


@pytest.fixture
def tqdm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The progress bar, without its thread that looks after slow bars."""
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    return tqdm


def test_tqdm_counts_what_as_completed_yields(tqdm: Any, executor: ThreadPoolExecutor) -> None:
    futures = [executor.submit(name_and, number) for number in range(JOBS)]
    futures += [executor.submit(examples.echo, number) for number in range(JOBS)]
    screen = io.StringIO()
    completed = list(tqdm(as_completed(futures, LIMIT), total=len(futures), file=screen))
    assert set(completed) == set(futures)
    check_named([future.result() for future in futures[:JOBS]], range(JOBS))
    assert [future.result() for future in futures[JOBS:]] == [*range(JOBS)]
    assert f"{2 * JOBS}/{2 * JOBS}" in screen.getvalue()


def test_tqdm_is_moved_by_done_callbacks(tqdm: Any, executor: ThreadPoolExecutor) -> None:
    with tqdm(total=JOBS, file=io.StringIO()) as bar:
        for number in range(JOBS):
            executor.submit(examples.echo, number).add_done_callback(lambda _: bar.update())
        block_until(lambda: bar.n == JOBS)


def test_tqdm_maps(
    tqdm: Any, executor_type: type[ThreadPoolExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread_map replaces the executor's `submit`, so that `map` tells the bar of each job."""
    contrib = pytest.importorskip("tqdm.contrib.concurrent")
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", executor_type)
    told: list[int] = []

    class Bar(tqdm):
        def update(self, n: int = 1) -> None:
            told.append(n)
            super().update(n)

    found = contrib.thread_map(
        name_and,
        range(JOBS),
        max_workers=WORKERS,
        thread_name_prefix=PREFIX,
        tqdm_class=Bar,
        file=io.StringIO(),
    )
    check_named(found, range(JOBS))
    assert sum(told) == JOBS
