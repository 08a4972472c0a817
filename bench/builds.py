"""The same rows on two builds of offgil, each in its environment, in processes that take turns."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Line, Rounds, Target, at_least, at_most, in_rounds, short
from workloads import NO_SLOWER

PROGRAM = Path(__file__).with_name("overhead.py")
#: Seconds for one process before it counts as hung.
LIMIT = 900.0
#: A process starts anew with each round, and one pass of the quick rows takes 20 ms.
STEADY_SECONDS = 0.5
BEFORE, AFTER = "before", "after"


class UnusableError(Exception):
    """A build that cannot be measured; the text says why."""


class _Key(NamedTuple):
    row: str
    loop: str
    what: str
    unit: str


#: The lines of one process, as it wrote them.
_Lines = dict[_Key, dict[str, Any]]


def other_build(text: str) -> Path:
    """Return the interpreter of an environment that has offgil; for argparse's ``type=``."""
    # Not resolved: the link in a virtual environment is what leads to its packages.
    interpreter = Path(text).absolute()
    try:
        done = subprocess.run(
            [str(interpreter), "-c", "import offgil"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(),
        )
        why = "" if done.returncode == 0 else _last_line(done.stderr) or "import offgil fails"
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or str(error)
    if why:
        raise argparse.ArgumentTypeError(f"cannot use {text!r}: {why}")
    return interpreter


async def compare(before: Path, arguments: Sequence[str], rounds: int) -> list[Line]:
    """Measure rows, one round in each process, there and here; return the ratios.

    Figures that are themselves ratios to something else give the ratio of what was divided: what
    something else did in the two processes is no matter. Raises UnusableError.
    """
    taken = await in_rounds(
        {
            BEFORE: partial(_measured, before, arguments),
            AFTER: partial(_measured, Path(sys.executable), arguments),
        },
        rounds,
        most_extra=0,  # a process repeats its own round if it was disturbed
    )
    every = [lines for those_of in taken.values.values() for lines in those_of]
    if not every[0]:
        raise UnusableError(f"nothing was measured by {' '.join(arguments)}")
    comparable = [key for key in every[0] if _is_comparable(key, every)]
    # What is given as two ratios, to two others, is one figure here.
    once = {_line(key, taken): None for key in comparable}
    return list(once)


def _is_comparable(key: _Key, every: Sequence[_Lines]) -> bool:
    """Tell whether all processes have the line, and nothing is divided by nothing."""
    return all(key in lines and _absolute(lines[key]) > 0 for lines in every)


def _absolute(line: dict[str, Any]) -> float:
    return float((line["absolute"] or line)["figure"]["median"])


def _line(key: _Key, taken: Rounds[_Lines]) -> Line:
    samples = taken.samples(lambda lines: _absolute(lines[key]))
    after, before = samples.spread(AFTER).median, samples.spread(BEFORE).median
    line = taken.values[AFTER][0][key]
    unit = line["absolute"]["unit"] if line["absolute"] else key.unit
    return Line(
        key.row,
        key.loop,
        key.what,
        "x before",
        samples.ratio(AFTER, BEFORE),
        _target(line["target"]),
        f"{short(after)} against {short(before)} {unit}{samples.remark()}",
    )


def _target(of_the_line: dict[str, Any] | None) -> Target | None:
    """Return the target of being no worse, where it is said which is better."""
    if of_the_line is None:
        return None
    return at_most(1 / NO_SLOWER) if of_the_line["at_most"] else at_least(NO_SLOWER)


async def _measured(interpreter: Path, arguments: Sequence[str]) -> _Lines:
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [str(interpreter), str(PROGRAM), *arguments, "--rounds", "1"]
        process = await asyncio.create_subprocess_exec(
            *(*command, "--json", report.name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), LIMIT)
        except TimeoutError:
            raise UnusableError(f"{' '.join(command)} did not end within {LIMIT:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            why = _last_line(errors.decode(errors="replace"))
            raise UnusableError(f"{' '.join(command)} ended with {process.returncode}: {why}")
        lines = json.loads(Path(report.name).read_text())["lines"]
    return {_Key(*(line[field] for field in _Key._fields)): line for line in lines}


def _environment() -> dict[str, str]:
    """Return the environment without what would give both the same packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
