"""The peers whose jobs are awaited, each opened as its users open it, with as many threads."""

from __future__ import annotations

import asyncio
import struct
import tempfile
import tomllib
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import workloads
from peer import AwaitedPeer, Peer, UnavailableError
from workloads import WORKERS, BareLoop, Contender, Function

import offgil
from offgil import examples

CRATE = Path(__file__).parent / "peers_rust" / "Cargo.toml"
#: caio reads from a file of so many numbers.
FILE_NUMBERS = 10_000


@asynccontextmanager
async def _bare_loop() -> AsyncIterator[Contender]:
    yield Contender(BareLoop().submit, examples.echo_nogil)


@asynccontextmanager
async def _offgil() -> AsyncIterator[Contender]:
    async with offgil.Pool(WORKERS) as pool:
        yield Contender(pool.submit, examples.echo)


@asynccontextmanager
async def _installed() -> AsyncIterator[Contender]:
    if not hasattr(offgil, "install"):
        raise UnavailableError("this offgil has no install()")
    offgil.install(workers=WORKERS)
    loop = asyncio.get_running_loop()
    # asyncio.run shuts the default executor down.
    yield Contender(partial(loop.run_in_executor, None), examples.echo)


@asynccontextmanager
async def _run_in_executor() -> AsyncIterator[Contender]:
    with ThreadPoolExecutor(WORKERS) as executor:
        yield Contender(workloads.run_in_executor(executor), examples.echo_nogil)


@asynccontextmanager
async def _to_thread() -> AsyncIterator[Contender]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS))
    yield Contender(asyncio.to_thread, examples.echo_nogil)


@asynccontextmanager
async def _anyio() -> AsyncIterator[Contender]:
    from anyio import CapacityLimiter, to_thread

    yield Contender(
        partial(to_thread.run_sync, limiter=CapacityLimiter(WORKERS)), examples.echo_nogil
    )


@asynccontextmanager
async def _trio() -> AsyncIterator[Contender]:
    from trio import CapacityLimiter, to_thread

    yield Contender(
        partial(to_thread.run_sync, limiter=CapacityLimiter(WORKERS)), examples.echo_nogil
    )


@asynccontextmanager
async def _rust(kind: Literal["echo", "echo_blocking"]) -> AsyncIterator[Contender]:
    import offgil_peers_rust

    offgil_peers_rust.configure(WORKERS)

    def submit(function: Function, x: int) -> Awaitable[int]:
        return function(x)  # type: ignore[return-value]  # Rust's functions return a future

    yield Contender(submit, getattr(offgil_peers_rust, kind))


def _crate_versions() -> str:
    crates = tomllib.loads(CRATE.read_text())["dependencies"]
    exact = {
        name: (crate if isinstance(crate, str) else crate["version"]).lstrip("=")
        for name, crate in crates.items()
    }
    return ", ".join(f"{name} {version}" for name, version in exact.items())


@asynccontextmanager
async def _caio() -> AsyncIterator[Contender]:
    import caio

    with tempfile.TemporaryFile() as file:
        file.write(struct.pack(f"={FILE_NUMBERS}q", *range(FILE_NUMBERS)))
        file.flush()
        async with caio.AsyncioContext() as context:

            async def read(function: Function, x: int) -> int:
                packed = await context.read(8, file.fileno(), 8 * (x % FILE_NUMBERS))
                number: int = struct.unpack("=q", packed)[0]
                return number

            yield Contender(read, examples.echo_nogil)


def _caio_kind() -> str:
    import caio

    return f"by {caio.AsyncioContext.__module__.removeprefix('caio.')}"


@asynccontextmanager
async def _tbb() -> AsyncIterator[Contender]:
    import tbb

    # The caller's thread counts, although it takes no job.
    limit = tbb.global_control(tbb.global_control.max_allowed_parallelism, WORKERS + 1)
    loop = asyncio.get_running_loop()
    pool = tbb.Pool()

    def submit(function: Function, x: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = loop.create_future()

        def deliver(result: int) -> None:
            loop.call_soon_threadsafe(future.set_result, result)

        pool.apply_async(function, (x,), callback=deliver)
        return future

    yield Contender(submit, examples.echo_nogil)
    pool.close()
    pool.join()
    del limit


@asynccontextmanager
async def _hypertile() -> AsyncIterator[Contender]:
    import hypertile

    hypertile.configure(WORKERS)
    yield Contender(hypertile.to_thread, examples.echo_nogil)


@asynccontextmanager
async def _dask() -> AsyncIterator[Contender]:
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=WORKERS,
        processes=False,
        asynchronous=True,
        dashboard_address=None,
    )
    async with cluster, distributed.Client(cluster, asynchronous=True) as client:
        yield Contender(partial(client.submit, pure=False), _echo)


def _echo(x: int) -> int:
    # Dask pickles what it runs by its module's name.
    return examples.echo_nogil(x)


def _on_uvloop(peer: AwaitedPeer) -> AwaitedPeer:
    return replace(peer, loop="uvloop", packages=(*peer.packages, "uvloop"))


#: What every ratio is to.
REFERENCE: AwaitedPeer = Peer("run_in_executor", _run_in_executor)

_BARE: AwaitedPeer = Peer(
    "bare loop", _bare_loop, note="no threads, no work: what plain futures alone cost"
)
_OFFGIL: AwaitedPeer = Peer("offgil", _offgil, packages=("offgil",))
_FUTURE_INTO_PY: AwaitedPeer = Peer(
    "pyo3-async-runtimes", partial(_rust, "echo"), more_versions=_crate_versions
)

PEERS: tuple[AwaitedPeer, ...] = (
    REFERENCE,
    _BARE,
    _OFFGIL,
    Peer("offgil.install", _installed, packages=("offgil",), note="run_in_executor(None, ...)"),
    Peer("asyncio.to_thread", _to_thread),
    Peer("anyio.to_thread", _anyio, packages=("anyio",)),
    Peer("trio.to_thread", _trio, "trio", ("trio",)),
    _FUTURE_INTO_PY,
    Peer(
        "pyo3, spawn_blocking",
        partial(_rust, "echo_blocking"),
        more_versions=_crate_versions,
    ),
    Peer("hypertile", _hypertile, packages=("hypertile",)),
    Peer("tbb.Pool", _tbb, packages=("tbb4py",), note="by call_soon_threadsafe"),
    Peer(
        "caio",
        _caio,
        packages=("caio",),
        note="other work: reads 8 bytes of a file",
        more_versions=_caio_kind,
    ),
    Peer("dask distributed", _dask, packages=("distributed",), note="in-process", most_jobs=500),
    _on_uvloop(REFERENCE),
    _on_uvloop(_BARE),
    _on_uvloop(_OFFGIL),
    _on_uvloop(_FUTURE_INTO_PY),
)
