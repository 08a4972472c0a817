"""The service as a child process, and other commands that end when they should."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from measuring import WrongResultError
from service.load import clients
from service.work import SALT, document

T = TypeVar("T")

#: Seconds for the service to start, and to end.
LIMIT = 20.0
PASSWORD = "correct-horse-battery-staple"
BENCH = Path(__file__).resolve().parent.parent


class UnusableError(Exception):
    """The service or the load generator does not run; the text says why."""


@dataclass(frozen=True)
class Service:
    """A service that listens on 127.0.0.1."""

    base: str

    @classmethod
    @asynccontextmanager
    async def started(
        cls, variant: str, work: str, loop: str, iterations: int
    ) -> AsyncIterator[Service]:
        """Start the service in a process of its own; it ends with the block."""
        arguments = ["--variant", variant, "--work", work, "--loop", loop]
        command = [sys.executable, "-m", "service.app", *arguments, "--iterations", str(iterations)]
        async with _child(command, stdin=asyncio.subprocess.PIPE) as process:
            assert process.stdout and process.stdin
            port = await _in_time(process.stdout.readline(), "did not start")
            if not port:
                raise UnusableError(f"the service ended with {await process.wait()}")
            yield cls(f"http://127.0.0.1:{int(port)}")
            # The end of its input is what it ends by.
            process.stdin.close()
            status = await _in_time(process.wait(), "did not end")
            if status != 0:
                raise WrongResultError(f"{variant}: the service ended with {status}")

    @property
    def heavy_url(self) -> str:
        """Return what the load generator asks for."""
        return f"{self.base}/heavy?password={PASSWORD}"

    async def checked_heavy(self, iterations: int) -> str:
        """Return the one response that every heavy request must have, once it is seen to be right.

        The key can be computed here; how small zlib makes the document depends on whose zlib it is.
        """
        try:
            async with clients(1, LIMIT) as client, client.get(self.heavy_url) as response:
                status, text = response.status, str(await response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnusableError(f"/heavy gave no answer: {error!r}") from error
        key = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT.encode(), iterations).hex()
        words = text.split(" ")
        if status != 200 or len(words) != 2 or words[0] != key:
            raise WrongResultError(f"/heavy answered {status} {text!r}")
        if not 0 < int(words[1]) < len(document()):
            raise WrongResultError(f"/heavy compressed the document to {words[1]} bytes")
        return text


async def _in_time(what: Awaitable[T], otherwise: str) -> T:
    try:
        return await asyncio.wait_for(what, LIMIT)
    except TimeoutError:
        raise UnusableError(f"the service {otherwise} within {LIMIT:g} s") from None


async def checked_output(command: Sequence[str], limit: float) -> str:
    """Run a command for so many seconds at most and return the last line it printed."""
    async with _child(command, stdin=asyncio.subprocess.DEVNULL) as process:
        try:
            out, _ = await asyncio.wait_for(process.communicate(), limit)
        except TimeoutError:
            raise UnusableError(f"{command[0]} was still running after {limit:.0f} s") from None
    if process.returncode != 0:
        raise UnusableError(f"{command[0]} ended with {process.returncode}")
    return out.decode().strip().splitlines()[-1]


@asynccontextmanager
async def _child(command: Sequence[str], stdin: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a process that does not outlive the block."""
    path = filter(None, [str(BENCH), os.environ.get("PYTHONPATH")])
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )
    except FileNotFoundError:
        raise UnusableError(f"{command[0]} is not installed") from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
