"""A picture of a pool at work, for chrome://tracing and Perfetto."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Jobs of one worker: (name, submitted, begin, end); deliveries: (loop, begin, end, how many).
#: Times are nanoseconds of the monotonic clock.
Span = tuple[str, int, int, int]
Delivery = tuple[int, int, int, int]
Noted = tuple[list[list[Span]], list[Delivery], int]


class Trace:
    """What happened in a pool between the beginning and the end of a ``with`` block."""

    def __init__(
        self, path: str | os.PathLike[str], start: Callable[[], None], stop: Callable[[], Noted]
    ) -> None:
        self._path = Path(path)
        self._path.write_text("")  # a path that cannot be written is an error now, not at the end
        self._start = start
        self._stop = stop

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        workers, deliveries, lost = self._stop()
        document = {
            "traceEvents": list(_events(workers, deliveries)),
            "displayTimeUnit": "ns",
            "otherData": {"jobs_not_noted": lost},
        }
        self._path.write_text(json.dumps(document))


def _events(workers: list[list[Span]], deliveries: list[Delivery]) -> Iterator[dict[str, Any]]:
    """Yield the trace-event format's events: ``ts`` and ``dur`` are microseconds."""
    here = {"pid": os.getpid()}
    loops = sorted({loop for loop, *_ in deliveries})
    rows = [f"worker {n}" for n in range(len(workers))] + [f"event loop {n}" for n in loops]
    for row, name in enumerate(rows):
        yield here | {"ph": "M", "name": "thread_name", "tid": row, "args": {"name": name}}
    for number, (worker, name, submitted, begin, end) in enumerate(_by_worker(workers)):
        # Jobs that wait overlap, so that they are no thread's: asynchronous events, paired by id.
        waiting = here | {"cat": "wait", "name": name, "id": number, "tid": worker}
        yield waiting | {"ph": "b", "ts": submitted / 1e3}
        yield waiting | {"ph": "e", "ts": begin / 1e3}
        yield here | {
            "ph": "X",
            "cat": "run",
            "name": name,
            "tid": worker,
            "ts": begin / 1e3,
            "dur": (end - begin) / 1e3,
            "args": {"job": number},
        }
    for loop, begin, end, delivered in deliveries:
        yield here | {
            "ph": "X",
            "cat": "deliver",
            "name": "deliver",
            "tid": len(workers) + loops.index(loop),
            "ts": begin / 1e3,
            "dur": (end - begin) / 1e3,
            "args": {"jobs": delivered},
        }


def _by_worker(workers: list[list[Span]]) -> Iterable[tuple[int, str, int, int, int]]:
    for worker, spans in enumerate(workers):
        for name, submitted, begin, end in spans:
            yield worker, name, submitted, begin, end
