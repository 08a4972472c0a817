"""What no round trip to a thread that sleeps can be much shorter than."""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import time

from measuring import pinned

#: Sends back what it is sent, so many times, on the CPU it is given.
_ECHO = """
import os, sys
request, answer, cpu, times = map(int, sys.argv[1:])
os.sched_setaffinity(0, {cpu})
for _ in range(times):
    os.eventfd_write(answer, os.eventfd_read(request))
"""


def two_wake_ups(here: int, there: int, trips: int) -> float:
    """Return the median seconds in which two processes, each on its CPU, wake each other."""
    request, answer = os.eventfd(0), os.eventfd(0)
    command = [sys.executable, "-c", _ECHO, *map(str, (request, answer, there, trips))]
    times = []
    with (
        pinned(here),
        subprocess.Popen(command, pass_fds=(request, answer)) as echo,
        select.epoll(1) as answers,
    ):
        try:
            answers.register(answer)
            for _ in range(trips):
                started = time.perf_counter()
                os.eventfd_write(request, 1)
                if not answers.poll(10):
                    raise RuntimeError("no answer from the other process")
                os.eventfd_read(answer)
                times.append(time.perf_counter() - started)
        finally:
            echo.kill()
            os.close(request)
            os.close(answer)
    return statistics.median(times)
