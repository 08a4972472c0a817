"""How late a web server of this process answers another one: a ThreadingHTTPServer on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from delays import LIMIT, Delays
from measuring import WrongResultError

CLIENT = Path(__file__).with_name("http_client.py")
LOOPBACK = "127.0.0.1"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the number that it is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.lstrip("/").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is not what is measured."""


@contextmanager
def server() -> Iterator[int]:
    """Serve meanwhile, in a thread of its own; yields the port."""
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), _Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, name="http", daemon=True)
        thread.start()
        try:
            yield serving.server_port
        finally:
            serving.shutdown()
            thread.join(LIMIT)


@asynccontextmanager
async def of_responses(port: int) -> AsyncIterator[Delays]:
    """Note meanwhile how long responses take, as another process sees it.

    They are known, and known to be right, at the end of the block.
    """
    delays = Delays()
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CLIENT), LOOPBACK, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert client.stdin and client.stdout
        if not await asyncio.wait_for(client.stdout.readline(), LIMIT):
            raise WrongResultError("the web server's client has not come to be ready")
        client.stdin.write(b"go\n")
        yield delays
        client.stdin.close()
        out, _ = await asyncio.wait_for(client.communicate(), LIMIT)
    finally:
        if client.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
            await client.wait()
    if client.returncode != 0:
        raise WrongResultError(f"the web server's client ended with {client.returncode}")
    delays.noted += json.loads(out)
