"""The load on the heavy endpoint: wrk, or, where there is no wrk, a client of ours.

    PYTHONPATH=bench python -m service.load URL CONNECTIONS SECONDS EXPECTED

Both keep so many connections busy for so long, compare every response with the expected one, and
print one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

CHECK = Path(__file__).with_name("check.lua")
#: A response later than this is a failure.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Load:
    """What the clients of the heavy endpoint saw."""

    requests: int
    seconds: float
    wrong: int
    failed: int

    @property
    def rate(self) -> float:
        """Return requests per second."""
        return self.requests / self.seconds


def command(client: str, url: str, connections: int, seconds: int, expected: str) -> list[str]:
    """Return the command that makes the load and prints a Load as JSON on its last line."""
    if client == "wrk":
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT:.0f}s"]
        return ["wrk", *options, "-s", str(CHECK), url, "--", expected]
    arguments = [url, str(connections), str(seconds), expected]
    return [sys.executable, "-m", "service.load", *arguments]


def default_client() -> str:
    """Return wrk where it is installed."""
    return "wrk" if shutil.which("wrk") else "aiohttp"


def clients(connections: int, timeout: float) -> aiohttp.ClientSession:
    """Return a session with so many connections at most; 0: as many as there are requests."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=timeout),
    )


async def load(url: str, connections: int, seconds: float, expected: str) -> Load:
    """Keep the connections busy, each with one request at a time."""
    requests = wrong = failed = 0
    started = time.perf_counter()
    async with clients(connections, TIMEOUT) as client:

        async def one() -> None:
            nonlocal requests, wrong, failed
            while time.perf_counter() < started + seconds:
                try:
                    async with client.get(url) as response:
                        answer = response.status, await response.text()
                except (aiohttp.ClientError, TimeoutError):
                    failed += 1
                    return  # a service that is gone would be asked again without end
                requests += 1
                wrong += answer != (200, expected)

        await asyncio.gather(*(one() for _ in range(connections)))
    return Load(requests, time.perf_counter() - started, wrong, failed)


if __name__ == "__main__":
    seen = asyncio.run(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
    print(json.dumps(vars(seen)))
