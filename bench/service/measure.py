"""How a light endpoint fares while a heavy one is saturated: inline, run_in_executor, offgil.

    PYTHONPATH=bench python -m service.measure [--rounds N] [--seconds S] [--work native|stdlib] ...

Every variant is a process of its own on a free port of 127.0.0.1, and they take turns, round after
round. wrk keeps the heavy endpoint busy; meanwhile the light one is asked at a fixed rate, its
latency counted from when a request was due. Every response is checked. Figures are medians over the
rounds, in brackets their range; ratios are those within each round. The exit code is 0 unless a
response was wrong (1) or the service could not run (2).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from measuring import Spread, WrongResultError, aligned, short
from service.load import Load, command, default_client
from service.probe import Latencies, ahead_of_the_service, percentile, probe
from service.running import Service, UnusableError, checked_output
from service.work import ITERATIONS

from offgil._arguments import writable_path
from offgil._machine import CpuWatch, Environment

#: Names and order of the table; service.app knows them too, but needs more packages.
VARIANTS = ("inline", "run_in_executor", "run_in_executor-sized", "offgil", "offgil-nice")
#: What every ratio is to, where it takes part; else the first that does.
REFERENCE = "run_in_executor"
#: The load starts so much earlier than the probe, and ends so much later.
MARGIN = 1
#: It is a measurement that ends, not an attack.
MOST = {
    "rounds": 100,
    "seconds": 60,
    "rate": 1_000,
    "connections": 256,
    "iterations": 10_000_000,
}


@dataclass(frozen=True)
class Turn:
    """What one variant did in one round: the light endpoint in ms, the heavy one per second."""

    p50: float
    p99: float
    worst: float
    probe_lateness_p99: float
    heavy_rate: float

    @classmethod
    def of(cls, light: Latencies, heavy: Load) -> Turn:
        """Summarize the raw figures."""
        return cls(
            percentile(light.response, 50) * 1e3,
            percentile(light.response, 99) * 1e3,
            light.response[-1] * 1e3,
            percentile(light.start, 99) * 1e3,
            heavy.rate,
        )


@dataclass(frozen=True)
class Row:
    """What one variant did over all rounds; the ratio is that of p99 within each round."""

    variant: str
    p99_ratio: Spread
    p99: Spread
    p50: Spread
    worst: Spread
    heavy_rate: Spread
    probe_lateness_p99: Spread

    @classmethod
    def of(cls, variant: str, turns: Sequence[Turn], reference: Sequence[Turn]) -> Row:
        """Summarize the rounds."""
        return cls(
            variant,
            Spread.of(ours.p99 / theirs.p99 for ours, theirs in zip(turns, reference, strict=True)),
            Spread.of(turn.p99 for turn in turns),
            Spread.of(turn.p50 for turn in turns),
            Spread.of(turn.worst for turn in turns),
            Spread.of(turn.heavy_rate for turn in turns),
            Spread.of(turn.probe_lateness_p99 for turn in turns),
        )


def main() -> int:
    """Measure and print the table."""
    options = _options()
    environment = Environment.of_this_machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("starlette", "uvicorn", "aiohttp"))
    print(
        f"{environment}\n{packages}; load by {options.client}, work {options.work}, {options.loop}"
    )
    for warning in environment.warnings():
        print(f"warning: {warning}")
    watch = CpuWatch()
    try:
        rows = asyncio.run(_measure(options))
    except KeyboardInterrupt:
        return 130
    except (ExceptionGroup, WrongResultError, UnusableError) as error:
        problem = _first(error)
        if isinstance(problem, WrongResultError):
            print(f"wrong response: {problem}", file=sys.stderr)
            return 1
        if isinstance(problem, UnusableError):
            print(f"cannot measure: {problem}", file=sys.stderr)
            return 2
        raise
    others, stolen = watch.cpus_used_by_others(), watch.cpus_stolen()
    print(f"meanwhile other processes used {others:.2f} CPUs, {stolen:.2f} of them stolen\n")
    print(_table(rows))
    if options.json:
        report: dict[str, Any] = {
            "environment": asdict(environment),
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "cpus_used_by_others": others,
            "cpus_stolen": stolen,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _first(error: Exception) -> Exception:
    """Return what went wrong first in a task group, or outside of one."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--work", choices=("native", "stdlib"), default="native")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--client", choices=("wrk", "aiohttp"), default=default_client())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of probing, per variant and round")
    parser.add_argument("--rate", type=int, default=100, help="light requests per second")
    parser.add_argument("--connections", type=int, default=16, help="to the heavy endpoint")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of PBKDF2, per request")
    parser.add_argument("--json", type=writable_path, metavar="FILE")
    options = parser.parse_args()
    for name, most in MOST.items():
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name} must be between 1 and {most:,}")
    return options


async def _measure(options: argparse.Namespace) -> list[Row]:
    variants = options.variant or VARIANTS
    turns: dict[str, list[Turn]] = {variant: [] for variant in variants}
    for number in range(options.rounds):
        for variant, seen in turns.items():
            print(f"round {number + 1}: {variant} ...", file=sys.stderr, flush=True)
            seen.append(await _turn(variant, options))
    reference = turns.get(REFERENCE, turns[variants[0]])
    return [Row.of(variant, seen, reference) for variant, seen in turns.items()]


async def _turn(variant: str, options: argparse.Namespace) -> Turn:
    async with Service.started(variant, options.work, options.loop, options.iterations) as service:
        expected = await service.checked_heavy(options.iterations)
        seconds = options.seconds + 2 * MARGIN
        url = service.heavy_url
        heavy_command = command(options.client, url, options.connections, seconds, expected)
        async with asyncio.TaskGroup() as both:
            heavy = both.create_task(checked_output(heavy_command, seconds + 20))
            await asyncio.sleep(MARGIN)
            with ahead_of_the_service():
                light = await probe(service.base, options.rate, options.seconds)
    load = Load(**json.loads(heavy.result()))
    if load.wrong or load.failed or not load.requests:
        raise WrongResultError(f"/heavy, {variant}: {load}")
    return Turn.of(light, load)


def _table(rows: Sequence[Row]) -> str:
    one = next(row.variant for row in rows if row.p99_ratio == Spread(1, 1, 1))
    header = (
        "variant",
        f"light p99, of {one}'s",
        "light p99, ms",
        "light p50, ms",
        "worst, ms",
        "heavy requests/s",
        "p99 of the probe's own lateness in it, ms",
    )
    return aligned([header, *(_cells(row) for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    figures = (
        row.p99_ratio,
        row.p99,
        row.p50,
        row.worst,
        row.heavy_rate,
        row.probe_lateness_p99,
    )
    return (
        row.variant,
        *(f"{short(one.median)} [{short(one.low)} .. {short(one.high)}]" for one in figures),
    )


if __name__ == "__main__":
    sys.exit(main())
