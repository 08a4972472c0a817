"""A client of the web server in http_delays.py, in a process of its own.

    python bench/http_client.py HOST PORT

Says when it is ready; after a line on its standard input it asks for one number after the other,
pausing in between, until its input ends, and prints the nanoseconds that each response took.
Standard library only: it starts once per measurement.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

#: Seconds between a response and the next request.
PAUSE = 0.005
LIMIT = 60.0


def main() -> None:
    """Be the client; exits with a message when an answer is wrong."""
    host, port = sys.argv[1], int(sys.argv[2])
    _ask(host, port, 0)
    print("ready", flush=True)
    sys.stdin.readline()
    took: list[int] = []
    while True:
        started = time.monotonic_ns()
        _ask(host, port, len(took) + 1)
        took.append(time.monotonic_ns() - started)
        if select.select([sys.stdin], [], [], PAUSE)[0]:
            break
    print(json.dumps(took))


def _ask(host: str, port: int, number: int) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT)
    try:
        connection.request("GET", f"/{number}")
        response = connection.getresponse()
        answer = response.status, response.read()
    finally:
        connection.close()
    if answer != (200, str(number).encode()):
        sys.exit(f"/{number} was answered by {answer}")


if __name__ == "__main__":
    main()
