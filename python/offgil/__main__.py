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
NOBODY_READS = 141  # as a shell counts a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)  # here, and not at exit, can what fails be told
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read it has had enough
        _discard_output()
        return NOBODY_READS
    except OSError as error:
        _discard_output()
        return _fail(str(error))


def _run(words: Sequence[str]) -> int:
    if words[:1] == ["loadtest"]:
        return _loadtest(words[1:])  # it has a parser of its own
    options = _parser().parse_args(words)
    return _info() if options.command == "info" else _demo(options)


def _discard_output() -> None:
    """Forget what cannot be written: at exit Python would try again, and fail again."""
    try:
        print(end="", flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


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
        return _lacks("demo", error)
    correct = demo.run(seconds=options.seconds, jobs=options.jobs, json_path=options.json)
    return 0 if correct else WRONG_RESULT


def _loadtest(argv: Sequence[str]) -> int:
    from offgil import loadtest

    try:
        return loadtest.main(argv)
    except ModuleNotFoundError as error:
        return _lacks("loadtest", error)


def _lacks(extra: str, error: ModuleNotFoundError) -> int:
    if error.name is None or error.name.partition(".")[0] == "offgil":
        raise error
    return _fail(
        f"the {extra} needs {error.name!r}; get it with: pip install '.[{extra}]' in offgil's clone"
    )


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
