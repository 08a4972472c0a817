"""The web service: a heavy endpoint and a light one, on one event loop.

    PYTHONPATH=bench python -m service.app --variant inline|run_in_executor|offgil|...

Prints the port of 127.0.0.1 it listens on, and serves until its standard input ends: it never
outlives whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import uvicorn
from measuring import usable_cpus
from service.work import ITERATIONS, SALT, Seal, chosen_seal, document
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import offgil

#: Runs the heavy work somewhere.
Run = Callable[[Seal, str, str, int, str], Awaitable[tuple[str, int]]]


@asynccontextmanager
async def _inline() -> AsyncIterator[Run]:
    async def run(seal: Seal, *args: str | int) -> tuple[str, int]:
        return seal(*args)  # type: ignore[arg-type]

    yield run


@asynccontextmanager
async def _run_in_executor() -> AsyncIterator[Run]:
    # The default one, as most do: with four threads more than there are CPUs.
    yield partial(asyncio.get_running_loop().run_in_executor, None)


@asynccontextmanager
async def _run_in_sized_executor() -> AsyncIterator[Run]:
    # With as many threads as offgil's pool has workers.
    with ThreadPoolExecutor(len(usable_cpus())) as executor:
        yield partial(asyncio.get_running_loop().run_in_executor, executor)


@asynccontextmanager
async def _offgil(nice: int = 0) -> AsyncIterator[Run]:
    async with offgil.Pool(nice=nice) as pool:
        yield pool.submit


VARIANTS: dict[str, Callable[[], AbstractAsyncContextManager[Run]]] = {
    "inline": _inline,
    "run_in_executor": _run_in_executor,
    "run_in_executor-sized": _run_in_sized_executor,
    "offgil": _offgil,
    "offgil-nice": partial(_offgil, nice=19),
}


def application(variant: str, work: str, iterations: int = ITERATIONS) -> Starlette:
    """Return the service whose heavy work runs in this way."""
    seal, text = chosen_seal(work), document()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Run]]:
        async with VARIANTS[variant]() as run:
            yield {"run": run}

    async def heavy(request: Request) -> PlainTextResponse:
        password = request.query_params["password"]
        key, size = await request.state.run(seal, password, SALT, iterations, text)
        return PlainTextResponse(f"{key} {size}")

    async def light(request: Request) -> JSONResponse:
        return JSONResponse({"n": int(request.query_params["n"])})

    return Starlette(lifespan=lifespan, routes=[Route("/heavy", heavy), Route("/light", light)])


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--work", choices=("native", "stdlib"), default="native")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    # asyncio switches Nagle's algorithm off only where the protocol is named; without that every
    # response waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    server = uvicorn.Server(
        uvicorn.Config(
            application(options.variant, options.work, options.iterations),
            loop=options.loop,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
    )
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    # Connections wait in the backlog until uvicorn accepts them.
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    # Not sys.stdin: a daemon thread that holds its lock would stop the interpreter from leaving.
    while os.read(0, 1024):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
