"""A picture of a pool at work, for chrome://tracing and Perfetto."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Trace:
    """What happens in a pool between the beginning and the end of a block.

    ``with`` writes the file where the block ends, with the GIL released; ``async with`` leaves that
    to a thread of the event loop's default executor, and the loop to others.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        start: Callable[[], None],
        stop: Callable[[], Callable[[bytes], None]],
    ) -> None:
        Path(path).write_text("")  # a path that cannot be written is an error now, not at the end
        self._path = os.fsencode(os.path.abspath(path))
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
        self._stop()(self._path)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        write = self._stop()
        try:
            writing = asyncio.get_running_loop().run_in_executor(None, write, self._path)
        except RuntimeError:  # the default executor has been shut down
            write(self._path)
        else:
            await writing
