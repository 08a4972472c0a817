"""The load test's command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from offgil import _machine
from offgil._arguments import positive_count, writable_path
from offgil.loadtest import assertion, doors
from offgil.loadtest.assertion import Assertion
from offgil.loadtest.call import Call, CannotRun, expand, literal
from offgil.loadtest.plan import Configuration, Rate, Sweep
from offgil.loadtest.quantity import parse_duration

T = TypeVar("T")

_LOOPS = ("asyncio", "uvloop")
_DEFAULT_SECONDS = 5.0
_DEFAULT_CONCURRENCY = 64
_ROUNDS_OF_A_SWEEP = 3
#: Much more than anybody waits for: a slip of the fingers.
_MOST_CONFIGURATIONS = 1_000
_MOST_CONCURRENCY = 1_000_000
_MOST_RATE = 10_000_000
_LONGEST = 24 * 3600.0

_DESCRIPTION = f"""\
Load MODULE:ATTR(ARGS...) through one door or several, and say what came of it.

ARGS are Python literals, positional or name=value. Several values with commas between them are a
sweep, as they are for -c, -R, -w, --door, --loop and --loops: each combination is measured, in a
process of its own, the rounds of all in turn. A tuple needs its parentheses.

    python -m offgil loadtest offgil.examples:spin 100 -c 256 -z 10s --html report.html
    python -m offgil loadtest offgil.examples:spin 10,1000 --door pool,to_thread -R 50%
    python -m offgil loadtest zlib:crc32 "b'0123456789'" -R 5000 --assert "p99<5ms"
    python -m offgil loadtest --compare before.json after.json

A closed loop (-c) submits a job when another one has ended: it measures throughput. An open loop
(-R) submits at a rate whatever becomes of the jobs, and counts latency from the start that was
intended: what callers would have waited is not lost when everything stands still. Both latencies
are shown. The function is called twice beforehand, and every result must equal what it returned.

Doors: {", ".join(doors.DOORS)}.
run_in_executor and to_thread run on the standard library's executor, with -w threads as well.
"""

_EPILOG = """\
exit codes:
  0    measured; a rate that was not reached, and jobs that failed, are reported, not judged
  1    a result was wrong, or no job of some configuration came back in time with a right one
  2    cannot run: bad arguments, no such function or door, it fails when called directly; what was
       measured before is reported, and written
  3    an --assert does not hold
  130  interrupted by Ctrl-C; what there was by then is reported, and written
"""


@dataclass(frozen=True)
class Options:
    """A command line that makes sense."""

    compare: tuple[Path, Path] | None
    configurations: list[Configuration]
    rounds: int
    assertions: list[Assertion]
    json: Path | None
    csv: Path | None
    html: Path | None


def parse(argv: Sequence[str], prog: str) -> Options:
    """Read the command line; leaves by SystemExit, with a message, if it makes no sense."""
    parser = _parser(prog)
    given = parser.parse_intermixed_args(argv)
    try:
        if given.compare:
            if given.function is not None:
                raise CannotRun("--compare reads two reports and measures nothing")
            before, after = map(Path, given.compare)
            return Options((before, after), [], 0, [], None, None, None)
        return _options(given)
    except CannotRun as problem:
        parser.error(str(problem))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{prog} MODULE:ATTR [ARGS...] [options]\n       {prog} --compare A.json B.json",
    )
    add = parser.add_argument
    add("function", nargs="?", metavar="MODULE:ATTR", help="what to call")
    add("args", nargs="*", metavar="ARGS", help="its arguments")
    add(
        "-d",
        "--door",
        type=_several(str),
        default=["pool"],
        metavar="NAME,...",
        help="the way to the workers; all: every one there is (default: pool)",
    )
    add(
        "-c",
        "--concurrency",
        type=_several(_bounded(_MOST_CONCURRENCY)),
        default=[_DEFAULT_CONCURRENCY],
        metavar="N,...",
        help="closed loop: jobs in flight, over all loops (default: 64)",
    )
    add(
        "-R",
        "--rate",
        type=_several(_rate),
        default=[],
        metavar="RATE,...",
        help="open loop: jobs per second, over all loops; or 50%%: of what the closed loop "
        "reaches, which is then measured before",
    )
    add("-n", "--jobs", type=positive_count, help="end after so many jobs, over all rounds")
    add(
        "-z",
        "--duration",
        type=_duration,
        help="end after so long, as 30s or 3m, over all rounds (default: 5s without -n)",
    )
    add(
        "-w",
        "--workers",
        type=_several(positive_count),
        default=[_machine.usable_cpus()],
        metavar="N,...",
        help="worker threads (default: one per usable CPU)",
    )
    add(
        "--loop",
        type=_several(str),
        default=["asyncio"],
        metavar="NAME,...",
        help="asyncio, uvloop (default: asyncio)",
    )
    add(
        "--loops",
        type=_several(positive_count),
        default=[1],
        metavar="N,...",
        help="event loops, each on a thread of its own, on one pool (default: 1)",
    )
    add("--warmup", type=_duration_or_none, default=0.3, help="before each round (default: 300ms)")
    add(
        "--ramp",
        type=_duration_or_none,
        default=0.0,
        help="let the load rise for so long, at the start of each round's -z; it is drawn, but "
        "does not count (default: 0s)",
    )
    add(
        "--rounds",
        type=positive_count,
        help="times that each configuration has its turn (default: 3, for a single one 1)",
    )
    add("--expect", metavar="LITERAL", help="what every call has to return")
    add("--no-verify", action="store_true", help="accept any result")
    add(
        "--pool",
        action="append",
        default=[],
        metavar="OPTION=LITERAL",
        help="an option of offgil.Pool, as spin=0.0001 (repeatable)",
    )
    add("--json", type=writable_path, metavar="FILE", help="write everything, for --compare too")
    add("--csv", type=writable_path, metavar="FILE", help="write a line per configuration")
    add("--html", type=writable_path, metavar="FILE", help="write charts, in one file")
    add(
        "--trace",
        type=writable_path,
        metavar="FILE",
        help="write the jobs of a single round for chrome://tracing or Perfetto (doors pool, run)",
    )
    add(
        "--assert",
        dest="assertions",
        action="append",
        default=[],
        metavar="CONDITION",
        help='"p99<5ms", "errors==0", "throughput>=1000": every configuration has to keep it '
        "(repeatable)",
    )
    add("--compare", nargs=2, metavar=("A.json", "B.json"), help="compare two reports")
    return parser


def _options(given: argparse.Namespace) -> Options:
    if given.function is None:
        raise CannotRun("what shall be called? Name it as MODULE:ATTR, as offgil.examples:spin")
    if given.expect is not None:
        literal(given.expect)
        if given.no_verify:
            raise CannotRun("--expect and --no-verify exclude each other")
    calls = _unique(expand(given.function, given.args))
    sweep = Sweep(
        calls=calls,
        doors=_doors(given, calls),
        loops=_loops(given.loop),
        loop_counts=_unique(given.loops),
        workers=_unique(given.workers),
        concurrencies=_unique(given.concurrency),
        rates=_unique(given.rate),
    )
    smallest = min(sweep.concurrencies)
    if sweep.has_closed_loops and max(sweep.loop_counts) > smallest:
        raise CannotRun(f"{max(sweep.loop_counts)} loops cannot share {smallest} jobs in flight")
    seconds = given.duration
    if seconds is None and given.jobs is None:
        seconds = _DEFAULT_SECONDS
    several = len(sweep.configurations(**_common(given, 1, seconds))) > 1
    rounds = given.rounds or (_ROUNDS_OF_A_SWEEP if several else 1)
    if given.trace is not None and (several or rounds > 1):
        raise CannotRun("--trace is of one configuration and one round")
    if given.ramp and (seconds is None or given.ramp >= seconds / rounds):
        raise CannotRun(
            f"--ramp {given.ramp:g}s has to be shorter than a round: -z, through {rounds} rounds"
        )
    configurations = sweep.configurations(**_common(given, rounds, seconds))
    if len(configurations) > _MOST_CONFIGURATIONS:
        raise CannotRun(f"{len(configurations)} configurations: more than {_MOST_CONFIGURATIONS}")
    return Options(
        None,
        configurations,
        rounds,
        [assertion.parse(text) for text in given.assertions],
        given.json,
        given.csv,
        given.html,
    )


def _common(given: argparse.Namespace, rounds: int, seconds: float | None) -> dict[str, Any]:
    """Return what all configurations share; ``-z`` and ``-n`` are divided among the rounds."""
    return {
        "seconds": None if seconds is None else seconds / rounds,
        "jobs": None if given.jobs is None else -(-given.jobs // rounds),
        "warmup": given.warmup,
        "ramp": given.ramp,
        "verify": not given.no_verify,
        "expect": given.expect,
        "pool_options": tuple(map(_pool_option, given.pool)),
        "trace": None if given.trace is None else str(given.trace.absolute()),
    }


def _doors(given: argparse.Namespace, calls: Sequence[Call]) -> list[str]:
    asked = _unique(given.door)
    asked = list(doors.DOORS) if asked == ["all"] else asked
    for door in asked:
        doors.check(
            door,
            keywords=any(call.kwargs for call in calls),
            pool_options=bool(given.pool),
            trace=given.trace is not None,
        )
    return asked


def _loops(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in _LOOPS:
            raise CannotRun(f"there is no loop {name!r}; there are {', '.join(_LOOPS)}")
    return _unique(names)


def _pool_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise CannotRun(f"--pool {text!r} is not of the form OPTION=LITERAL")
    literal(value)
    return name, value


def _unique(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _several(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    def parse(text: str) -> list[T]:
        return [kind(part.strip()) for part in text.split(",")]

    return parse


def _bounded(limit: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = positive_count(text)
        if value > limit:
            raise argparse.ArgumentTypeError(f"must be at most {limit:,}, not {text}")
        return value

    return parse


def _rate(text: str) -> Rate:
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST_RATE:
        raise argparse.ArgumentTypeError(
            f"must be jobs per second above 0 and at most {_MOST_RATE:,}, or a share such as 50%, "
            f"not {text!r}"
        )
    return Rate(share=value / 100) if percent else Rate(per_second=value)


def _duration(text: str) -> float:
    seconds = _duration_or_none(text)
    if not seconds:
        raise argparse.ArgumentTypeError("must be longer than nothing")
    return seconds


def _duration_or_none(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"must be at most a day, not {text!r}")
    return seconds
