"""The command line: ``python -m offgil demo | loadtest | info | --version``."""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import offgil
from offgil._arguments import positive_count, writable_path

#: What the commands return besides 0. CANNOT_RUN is what argparse returns too.
WRONG_RESULT = 1
CANNOT_RUN = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["loadtest"]:
        return _loadtest(words[1:])  # it has a parser of its own, once its needs are there
    options = _parser().parse_args(words)
    try:
        return _info() if options.command == "info" else _demo(options)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m offgil",
        description="A C++ worker pool that asyncio code awaits: compute never holds the GIL.",
    )
    parser.add_argument("--version", action="version", version=f"offgil {version('offgil')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="print versions and what this machine offers")
    demo = commands.add_parser(
        "demo",
        help="measure, here and now, what the GIL costs and what offgil saves",
        description="Reproduce two articles' tables on this machine, with offgil beside them. "
        "Exits with 0 if every result was right, 1 if one was wrong, 2 if it could not run.",
    )
    commands.add_parser(
        "loadtest",
        help="load a function of yours through any door, and see latency and throughput",
    )
    demo.add_argument(
        "--seconds",
        type=_positive_seconds,
        default=0.5,
        help="how long each of the first article's five jobs sleeps (the article: 5; default: 0.5)",
    )
    demo.add_argument(
        "--jobs",
        type=positive_count,
        default=20_000,
        help="how many small jobs the third table runs through each door (default: 20000)",
    )
    demo.add_argument(
        "--json",
        type=writable_path,
        metavar="FILE",
        help="also write every figure, and the environment, to FILE",
    )
    return parser


def _positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 3600 seconds, not {text!r}")
    return seconds


def _demo(options: argparse.Namespace) -> int:
    try:
        from offgil import demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "offgil":
            raise
        return _fail(f"the demo needs {error.name!r}; get it with: pip install offgil[demo]")
    try:
        correct = demo.run(seconds=options.seconds, jobs=options.jobs, json_path=options.json)
    except OSError as error:
        return _fail(str(error))
    return 0 if correct else WRONG_RESULT


def _loadtest(argv: Sequence[str]) -> int:
    try:
        from offgil import loadtest
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "offgil":
            raise
        return _fail(
            f"the load test needs {error.name!r}; get it with: pip install offgil[loadtest]"
        )
    return loadtest.main(argv)


def _info() -> int:
    print(f"offgil   {version('offgil')} ({Path(offgil.__file__).parent})")
    print(f"python   {platform.python_version()} ({platform.python_implementation()})")
    usable = offgil._core.usable_cpu_count()
    print(f"machine  {platform.platform()}, {os.cpu_count()} CPUs, {usable} of them usable here")
    return 0


def _fail(message: str) -> int:
    print(f"offgil: error: {message}", file=sys.stderr)
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
