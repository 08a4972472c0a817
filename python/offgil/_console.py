"""Where the commands write; needs ``rich``."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class _Output(Console):
    """A console that leaves it to the command what a reader that has gone means."""

    def on_broken_pipe(self) -> NoReturn:
        # rich would exit with 1, which is a wrong result's.
        self.quiet = True
        raise BrokenPipeError


def output(least_width: int, plain_width: int) -> Console:
    """Return standard output, as wide as tables need: also where no terminal says how wide it is.

    A terminal narrower than ``least_width`` breaks their lines rather than their figures.
    """
    detected = Console(highlight=False)
    width = max(detected.width, least_width) if detected.is_terminal else plain_width
    return _Output(highlight=False, width=width)


def progress() -> Console:
    """Return where progress is told when standard output is for the results."""
    return Console(stderr=True, highlight=False)
