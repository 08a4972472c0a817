"""Processes that measure, as their parent sees them: one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from offgil.loadtest.call import CannotRun
from offgil.loadtest.plan import Configuration
from offgil.loadtest.rounds import Round

#: Seconds that a child has to exit once it has answered.
_GOODBYE = 1.0

Progress = Callable[[dict[str, Any]], None]


class Interrupted(Exception):
    """Ctrl-C; the round that was under way is here as far as it came."""

    def __init__(self, partial: Round | None) -> None:
        super().__init__("interrupted")
        self.partial = partial


def check(configurations: Sequence[Configuration]) -> list[str]:
    """Find the functions and make each call as `bind` does; return a line about each call.

    That is twice, or not at all where nothing has to be learnt from it. Raises CannotRun.
    """
    with _Child(configurations, check=True) as child:
        for kind, content in child.messages():
            if kind == "checked":
                return list(content)
        raise child.died()


def run_round(configuration: Configuration, progress: Progress) -> Round:
    """Measure one round in a new process; raises CannotRun or Interrupted."""
    with _Child([configuration], check=False) as child:
        try:
            return _round_of(child, progress)
        except KeyboardInterrupt:
            child.stop()
            # A second Ctrl-C leaves here, and takes the child along.
            try:
                partial = _round_of(child, progress)
            except (CannotRun, ValueError):  # or the interrupt fell into a message
                partial = None
            raise Interrupted(partial) from None


def _round_of(child: _Child, progress: Progress) -> Round:
    for kind, content in child.messages():
        if kind == "progress":
            progress(content)
        elif kind == "round":
            return Round.of(content)
    raise child.died()


class _Child:
    """The process; at the end of the ``with`` block it is gone, one way or the other."""

    def __init__(self, configurations: Sequence[Configuration], *, check: bool) -> None:
        read, write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "offgil.loadtest.child", str(write)],
                stdin=subprocess.PIPE,
                pass_fds=[write],
                # Away from the terminal's Ctrl-C also before it can ignore it.
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._output, self._heard = read, b""
        task = {"check": check, "configurations": [c.asdict() for c in configurations]}
        self._say(json.dumps(task).encode() + b"\n")

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Yield what the child says until it has nothing more to say."""
        # By hand: no file object promises to be whole after a KeyboardInterrupt.
        while data := os.read(self._output, 65_536):
            self._heard += data
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                ((kind, content),) = json.loads(line).items()
                if kind == "problem":
                    raise CannotRun(content)
                yield kind, content

    def stop(self) -> None:
        """Ask for the end of the round."""
        self._say(b"stop")

    def died(self) -> CannotRun:
        """Return what to raise when the child ended without an answer."""
        status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
        return CannotRun(f"the measuring process {how}; its output is above")

    def _say(self, words: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, and `died` will tell
            self._process.stdin.write(words)
            self._process.stdin.flush()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            # Having answered, it exits; otherwise it is not wanted any more.
            self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._output)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
