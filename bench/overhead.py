"""What awaiting a job costs: offgil beside ``run_in_executor`` and the bare event loop.

    python bench/overhead.py [--loop asyncio|uvloop|both] [--row NAME]... [--quick] [--json FILE]
        [--queued SECONDS] [--steady SECONDS] [--before PYTHON]

RIE is ``loop.run_in_executor`` on a ThreadPoolExecutor with two threads, TPE that executor itself;
the bare loop resolves its futures by one callback, with no threads at all. Everything compared
takes turns within one process; figures are medians of per-round ratios, in brackets their range.
``--before`` is the interpreter of an environment with another build of offgil: processes of both
builds take turns, and the figures are ratios to the other one (with the same for both: the noise).
Speed is never a pass condition: the exit code is 0 unless a result was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import builds
import default_executor_rows
import executor_rows
import fairness_rows
import latency_rows
import load_rows
import program_rows
import throughput_rows
import zarr_rows
from measuring import Line, table
from settings import Settings

from offgil._arguments import positive_count, writable_path
from offgil._machine import CpuWatch, Environment

Run = Callable[[Settings], Awaitable[list[Line]]]


@dataclass(frozen=True)
class Row:
    """A part of the table; ``loops`` are those on which it has targets."""

    run: Run
    loops: tuple[str, ...] = ("asyncio",)


#: Of what is repeated or queued: a measurement ends.
MOST_SECONDS = 10
BOTH = ("asyncio", "uvloop")
ROWS = {
    "closed": Row(throughput_rows.closed, BOTH),
    "gather": Row(throughput_rows.gather, BOTH),
    "in-order": Row(throughput_rows.in_order),
    "lambda": Row(throughput_rows.python_callable),
    "wakeups": Row(throughput_rows.wakeups),
    "one": Row(throughput_rows.one_at_a_time),
    "submit": Row(throughput_rows.submit),
    "memory": Row(load_rows.memory),
    "lag": Row(load_rows.lag),
    "parallel": Row(load_rows.parallel),
    "latency": Row(latency_rows.latency),
    "programs": Row(program_rows.programs),
    "executor": Row(executor_rows.burst),
    "executor-one": Row(executor_rows.one_at_a_time),
    "blocking": Row(executor_rows.blocking),
    "behind": Row(executor_rows.behind),
    "install": Row(default_executor_rows.install),
    "run-in-executor": Row(default_executor_rows.run_in_executor),
    "fairness": Row(fairness_rows.pauses),
    "fairness-grown": Row(fairness_rows.grown),
    "fairness-http": Row(fairness_rows.responses),
    "zarr": Row(zarr_rows.to_thread),
}


def main() -> int:
    """Measure the rows asked for and print the table; after Ctrl-C what there is of it."""
    options = _options()
    environment = Environment.of_this_machine()
    print(environment)
    for warning in environment.warnings():
        print(f"warning: {warning}")
    watch = CpuWatch()
    lines: list[Line] = []
    exit_code = 0
    try:
        for of_a_row in _measure(options, has_uvloop=environment.uvloop is not None):
            lines += of_a_row
    except KeyboardInterrupt:
        print("interrupted: the rows that were done", file=sys.stderr)
        exit_code = 130
    except builds.UnusableError as problem:
        print(f"cannot compare: {problem}", file=sys.stderr)
        exit_code = 2
    others, stolen = watch.cpus_used_by_others(), watch.cpus_stolen()
    print(f"meanwhile other processes used {others:.2f} CPUs, {stolen:.2f} of them stolen\n")
    print(table(lines))
    if options.json:
        report = {
            "environment": asdict(environment),
            "cpus_used_by_others": others,
            "cpus_stolen": stolen,
            "lines": [asdict(line) | {"met": line.met} for line in lines],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return exit_code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="both")
    parser.add_argument("--row", action="append", choices=ROWS, help="may be given several times")
    parser.add_argument(
        "--rounds", type=positive_count, default=7, help="at least 5, for figures that count"
    )
    parser.add_argument(
        "--queued",
        type=_seconds,
        metavar="SECONDS",
        help="worth of jobs that the rows about fairness queue at once: no pause can be longer "
        "(0.1, so that they take a minute; 1.5 for figures)",
    )
    parser.add_argument(
        "--steady",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="repeat what takes less in each round, and take its median (0; with --before "
        f"{builds.STEADY_SECONDS:g}): one pass may take 20 ms",
    )
    parser.add_argument(
        "--before",
        type=builds.other_build,
        metavar="PYTHON",
        help="compare this build with the one in that interpreter's environment",
    )
    parser.add_argument("--quick", action="store_true", help="3 short rounds: does it run at all?")
    parser.add_argument("--json", type=writable_path, metavar="FILE")
    return parser.parse_args()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be above 0, {MOST_SECONDS} at most, not {text!r}")
    return seconds


def _measure(options: argparse.Namespace, *, has_uvloop: bool) -> Iterator[list[Line]]:
    for name in options.row or ROWS:
        for loop in _loops(ROWS[name], options.loop):
            if loop == "uvloop" and not has_uvloop:
                print("uvloop is not installed: its lines are left out", file=sys.stderr)
                continue
            print(f"{name} on {loop} ...", file=sys.stderr, flush=True)
            yield (
                _of_two_builds(options, name, loop)
                if options.before
                else _run(ROWS[name], _settings(options, loop))
            )


def _settings(options: argparse.Namespace, loop: str) -> Settings:
    chosen = Settings.chosen(loop, options.rounds, quick=options.quick)
    return replace(
        chosen,
        queued_seconds=options.queued or chosen.queued_seconds,
        steady_for=options.steady,
    )


def _of_two_builds(options: argparse.Namespace, name: str, loop: str) -> list[Line]:
    arguments = ["--row", name, "--loop", loop]
    if options.quick:
        arguments.append("--quick")
    else:
        arguments += ["--steady", str(options.steady or builds.STEADY_SECONDS)]
    if options.queued:
        arguments += ["--queued", str(options.queued)]
    return asyncio.run(builds.compare(options.before, arguments, options.rounds))


def _loops(row: Row, asked: str) -> Sequence[str]:
    return row.loops if asked == "both" else (asked,)


def _run(row: Row, settings: Settings) -> list[Line]:
    async def run() -> list[Line]:
        return await row.run(settings)

    with asyncio.Runner(loop_factory=settings.loop_factory()) as runner:
        return runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
