"""An event loop's default executor, under asyncio itself, Starlette and zarr.

What passes on the standard one passes on ours, set with `set_default_executor` or installed.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support import (
    LIMIT,
    Gate,
    block_until,
    check_balance,
    os_threads,
    run_in_new_loop,
    turns,
    until,
)

import offgil
from offgil import examples

WORKERS = 2
JOBS = 100

Loop = asyncio.AbstractEventLoop
SetDefault = Callable[[Loop], ThreadPoolExecutor]

caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


@pytest.fixture(scope="module", autouse=True)
def freeze_what_was_imported() -> Iterator[None]:
    """Keep the full collections of the tests that follow quick, as conftest does at the start."""
    yield
    gc.collect()
    gc.freeze()


def set_standard(loop: Loop) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(WORKERS)
    loop.set_default_executor(executor)
    return executor


def set_ours(loop: Loop) -> ThreadPoolExecutor:
    executor = offgil.ThreadPoolExecutor(WORKERS)
    loop.set_default_executor(executor)
    return executor


def install(loop: Loop) -> ThreadPoolExecutor:
    return offgil.install(loop, workers=WORKERS)


@pytest.fixture(params=[set_standard, set_ours, install])
def set_default(request: pytest.FixtureRequest) -> SetDefault:
    """Give a loop its default executor and return that; the loop's end shuts it down."""
    return request.param


def check_served(executor: ThreadPoolExecutor, jobs: int) -> None:
    """Check that ours ran so many jobs at least: it is not enough that somebody did."""
    if type(executor) is not ThreadPoolExecutor:
        assert check_balance(executor).completed >= jobs


# --------------------------------------------------------------------------------------------------
# asyncio


async def test_every_kind_of_job_comes_back(set_default: SetDefault) -> None:
    """Native functions and Python ones, with keywords too, by both doors, many at once."""
    loop = asyncio.get_running_loop()
    executor = set_default(loop)
    numbers = range(JOBS)
    jobs: list[Any] = [loop.run_in_executor(None, examples.echo, n) for n in numbers]
    jobs += [loop.run_in_executor(None, lambda n: n, n) for n in numbers]
    jobs += [asyncio.to_thread(examples.echo, n) for n in numbers]
    jobs += [asyncio.to_thread(int, str(n), base=10) for n in numbers]
    results = await asyncio.wait_for(asyncio.gather(*jobs), LIMIT)
    assert results == [*numbers] * 4
    check_served(executor, len(jobs))


async def test_jobs_run_on_other_threads_that_python_knows(set_default: SetDefault) -> None:
    set_default(asyncio.get_running_loop())
    running = threading.Barrier(WORKERS)

    def meet() -> threading.Thread:
        running.wait(LIMIT)  # so that each worker takes one
        assert threading.current_thread() in threading.enumerate()
        return threading.current_thread()

    threads = await asyncio.gather(*(asyncio.to_thread(meet) for _ in range(WORKERS)))
    assert len({*threads, threading.current_thread()}) == WORKERS + 1


async def test_to_thread_brings_the_callers_context_and_run_in_executor_none(
    set_default: SetDefault,
) -> None:
    loop = asyncio.get_running_loop()
    set_default(loop)
    caller.set("the test")
    assert await asyncio.to_thread(caller.get) == "the test"
    assert await loop.run_in_executor(None, caller.get) == "nobody"


async def test_what_a_job_raises_arrives_as_it_was(set_default: SetDefault) -> None:
    loop = asyncio.get_running_loop()
    set_default(loop)
    error = LookupError("from the job")

    def fail() -> None:
        raise error

    for door in (loop.run_in_executor(None, fail), asyncio.to_thread(fail)):
        with pytest.raises(LookupError) as raised:
            await door
        assert raised.value is error
        assert raised.traceback[-1].name == "fail"
        assert not getattr(error, "__notes__", [])


async def test_a_cancelled_job_that_waits_never_runs(set_default: SetDefault, gate: Gate) -> None:
    loop = asyncio.get_running_loop()
    set_default(loop)
    started: list[int] = []

    def hold(number: int) -> None:
        started.append(number)
        gate()

    held = [loop.run_in_executor(None, hold, number) for number in range(WORKERS)]
    await until(lambda: len(started) == WORKERS)
    ran: list[int] = []
    waiting = [asyncio.create_task(asyncio.to_thread(ran.append, n)) for n in range(10)]
    await turns()
    for task in waiting[1:]:
        task.cancel()
    await turns()
    gate.open()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.gather(*held)
    # Jobs start in order: what was before this one and is to run has started when it ends.
    await asyncio.to_thread(ran.append, 10)
    assert [type(outcome) for outcome in outcomes[1:]] == [asyncio.CancelledError] * 9
    assert sorted(ran) == [0, 10]


async def test_a_cancelled_job_that_runs_is_not_waited_for(
    set_default: SetDefault, gate: Gate
) -> None:
    set_default(asyncio.get_running_loop())
    started, ended = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        gate()
        ended.set()

    task = asyncio.create_task(asyncio.to_thread(job))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, LIMIT)
    assert not ended.is_set()
    gate.open()
    await until(ended.is_set)


async def test_names_are_looked_up(set_default: SetDefault) -> None:
    """asyncio's getaddrinfo is a job of the default executor (uvloop has its own)."""
    loop = asyncio.get_running_loop()
    executor = set_default(loop)
    found = await loop.getaddrinfo("localhost", 80, proto=socket.IPPROTO_TCP)
    assert sorted(found) == sorted(socket.getaddrinfo("localhost", 80, proto=socket.IPPROTO_TCP))
    check_served(executor, isinstance(loop, asyncio.SelectorEventLoop))


def test_the_loops_end_waits_for_jobs_and_ends_the_threads(
    set_default: SetDefault,
    loop_factory: Callable[[], Loop],
    gate: Gate,
    in_thread: Callable[..., threading.Thread],
) -> None:
    """As asyncio.run ends: nothing more is accepted, but jobs that nobody awaits run first."""
    ran: list[int] = []

    def refuses(executor: ThreadPoolExecutor) -> bool:
        try:
            executor.submit(int)
        except RuntimeError as error:
            return str(error) == "cannot schedule new futures after shutdown"
        return False

    def open_at_shutdown(executor: ThreadPoolExecutor) -> None:
        block_until(lambda: refuses(executor))
        gate.open()

    async def main() -> ThreadPoolExecutor:
        loop = asyncio.get_running_loop()
        executor = set_default(loop)
        for _ in range(WORKERS):
            loop.run_in_executor(None, gate)
        for number in range(JOBS):
            loop.run_in_executor(None, ran.append, number)
        in_thread(open_at_shutdown, executor)
        return executor

    before = os_threads()
    executor = run_in_new_loop(main(), loop_factory)
    assert sorted(ran) == [*range(JOBS)]
    assert os_threads() == before
    assert refuses(executor)
    check_served(executor, WORKERS + JOBS)


def test_each_loop_has_its_own(
    set_default: SetDefault,
    loop_factory: Callable[[], Loop],
    in_thread: Callable[..., threading.Thread],
) -> None:
    executors: list[ThreadPoolExecutor] = []
    all_have_theirs = threading.Barrier(3)

    async def main() -> None:
        executor = set_default(asyncio.get_running_loop())
        executors.append(executor)
        all_have_theirs.wait(LIMIT)
        jobs = (asyncio.to_thread(examples.echo, number) for number in range(JOBS))
        assert await asyncio.wait_for(asyncio.gather(*jobs), LIMIT) == [*range(JOBS)]
        check_served(executor, JOBS)

    threads = [in_thread(lambda: run_in_new_loop(main(), loop_factory)) for _ in range(3)]
    for thread in threads:
        thread.join(LIMIT)
    assert len(set(map(id, executors))) == 3


# --------------------------------------------------------------------------------------------------
# Starlette and FastAPI


async def test_a_starlette_application(set_default: SetDefault) -> None:
    """The lifespan sets the executor; endpoints use it, beside those on anyio's own threads."""
    httpx = pytest.importorskip("httpx")
    applications = pytest.importorskip("starlette.applications")
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    logged: list[int] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.state.executor = set_default(asyncio.get_running_loop())
        yield

    async def fibonacci(request: Request) -> JSONResponse:
        n = request.path_params["n"]
        loop = asyncio.get_running_loop()
        later = BackgroundTask(asyncio.to_thread, logged.append, n)
        answer = await loop.run_in_executor(None, examples.fibonacci, n)
        return JSONResponse(answer, background=later)

    async def number(request: Request) -> JSONResponse:
        return JSONResponse(await asyncio.to_thread(int, request.query_params["text"]))

    def sync(request: Request) -> PlainTextResponse:
        return PlainTextResponse("from anyio's thread")

    def refuse(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(error), status_code=422)

    app = applications.Starlette(
        routes=[
            Route("/fibonacci/{n:int}", fibonacci),
            Route("/number", number),
            Route("/sync", sync),
        ],
        exception_handlers={ValueError: refuse},
        lifespan=lifespan,
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app", timeout=LIMIT) as client,
    ):
        asked = [client.get(f"/fibonacci/{n}") for n in range(50)]
        asked += [client.get("/sync") for _ in range(10)]
        answers = await asyncio.gather(*asked)
        assert [answer.json() for answer in answers[:50]] == [
            examples.fibonacci(n) for n in range(50)
        ]
        assert {answer.text for answer in answers[50:]} == {"from anyio's thread"}
        assert sorted(logged) == [*range(50)]
        assert (await client.get("/number", params={"text": "42"})).json() == 42
        refused = await client.get("/number", params={"text": "many"})
        assert (refused.status_code, "many" in refused.text) == (422, True)
    check_served(app.state.executor, 101)


async def test_a_fastapi_application(set_default: SetDefault) -> None:
    """A dependency and an endpoint, both on the loop's executor."""
    httpx = pytest.importorskip("httpx")
    fastapi = pytest.importorskip("fastapi")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.state.executor = set_default(asyncio.get_running_loop())
        yield

    app = fastapi.FastAPI(lifespan=lifespan)

    async def checked(text: str) -> int:
        try:
            return await asyncio.to_thread(int, text)
        except ValueError as error:
            raise fastapi.HTTPException(422, str(error)) from error

    @app.get("/fibonacci")
    async def fibonacci(n: int = fastapi.Depends(checked)) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, examples.fibonacci, n)

    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app", timeout=LIMIT) as client,
    ):
        asked = (client.get("/fibonacci", params={"text": str(n)}) for n in range(50))
        answers = await asyncio.gather(*asked)
        assert [each.json() for each in answers] == [examples.fibonacci(n) for n in range(50)]
        refused = await client.get("/fibonacci", params={"text": "many"})
        assert (refused.status_code, "many" in refused.text) == (422, True)
    check_served(app.state.executor, 100)


# --------------------------------------------------------------------------------------------------
# zarr, whose codecs run in to_thread


async def test_zarr_in_the_applications_loop(set_default: SetDefault) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    np = pytest.importorskip("numpy")
    executor = set_default(asyncio.get_running_loop())
    array = await zarr.api.asynchronous.create_array(
        zarr.storage.MemoryStore(),
        shape=(64, 64),
        chunks=(8, 8),
        dtype="i8",
        compressors=zarr.codecs.ZstdCodec(),
    )
    values = np.arange(64 * 64).reshape(64, 64)
    await array.setitem(Ellipsis, values)
    assert np.array_equal(await array.getitem(Ellipsis), values)
    check_served(executor, 2 * 64)  # each chunk there and back


def test_zarr_in_its_own_loop(set_default: SetDefault, tmp_path: Any) -> None:
    """Its synchronous face waits for a loop in a thread of its own, and files are jobs as well."""
    zarr = pytest.importorskip("zarr", minversion="3")
    np = pytest.importorskip("numpy")
    sync = pytest.importorskip("zarr.core.sync")
    executor = set_default(sync._get_loop())
    try:
        array = zarr.create_array(
            zarr.storage.LocalStore(tmp_path),
            shape=(64, 64),
            chunks=(8, 8),
            dtype="i8",
            compressors=zarr.codecs.GzipCodec(),
        )
        values = np.arange(64 * 64).reshape(64, 64)
        array[:] = values
        assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], values)
        check_served(executor, 4 * 64)  # each chunk: coded, written, read, decoded
    finally:
        sync.cleanup_resources()
        executor.shutdown()
