"""The same work on offgil and on whoever else offers it, as ratios to ``run_in_executor``.

    python bench/peers.py [--peer NAME]... [--rounds N] [--quick] [--json FILE]

Jobs only return their argument, on two threads, so that nothing but the way there and back costs.
Every peer takes its turn in a process of its own, round after round; every result is checked;
figures are medians of per-round ratios, in brackets their range. A peer that is not installed or
does not work is a line that says why. Speed is never a pass condition: the exit code is 0 unless a
result was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import awaited_peers
import synchronous_peers
from measuring import WrongResultError
from peer import Peer
from peer_table import Comparison
from peer_turns import Entrant, Sizes, compare

from offgil._arguments import positive_count, writable_path
from offgil._machine import CpuWatch, Environment


def main() -> int:
    """Compare the peers asked for and print the tables."""
    options = _options()
    environment = Environment.of_this_machine()
    print(environment)
    for warning in environment.warnings():
        print(f"warning: {warning}")
    watch = CpuWatch()
    sizes = Sizes.chosen(options.rounds, quick=options.quick)
    try:
        comparisons = asyncio.run(_compare(sizes, options.peer))
    except WrongResultError as problem:
        print(f"wrong result: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    others, stolen = watch.cpus_used_by_others(), watch.cpus_stolen()
    print(f"meanwhile other processes used {others:.2f} CPUs, {stolen:.2f} of them stolen")
    for comparison in comparisons:
        print(f"\n{comparison}")
    if options.json:
        report: dict[str, Any] = {
            "environment": asdict(environment),
            "cpus_used_by_others": others,
            "cpus_stolen": stolen,
            "sizes": asdict(sizes),
            "comparisons": [comparison.as_json() for comparison in comparisons],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


async def _compare(sizes: Sizes, names: list[str] | None) -> list[Comparison]:
    kinds: dict[str, tuple[Peer[Any], Sequence[Peer[Any]], Sequence[str]]] = {
        "awaited": (awaited_peers.REFERENCE, awaited_peers.PEERS, ("closed", "gather", "one")),
        "synchronous": (synchronous_peers.REFERENCE, synchronous_peers.PEERS, ("batch",)),
    }
    comparisons = []
    for kind, (reference, peers, workloads) in kinds.items():
        entrants = [
            Entrant.of(kind, peer)
            for peer in peers
            if not names or peer.name in names or peer.title == reference.title
        ]
        if len(entrants) > 1:
            comparisons.append(await compare(reference.title, entrants, workloads, sizes))
    return comparisons


def _options() -> argparse.Namespace:
    peers: list[Peer[Any]] = [*awaited_peers.PEERS, *synchronous_peers.PEERS]
    every = dict.fromkeys(peer.name for peer in peers)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--peer",
        action="append",
        choices=every,
        metavar="NAME",
        help=f"may be given several times; one of {', '.join(every)}",
    )
    parser.add_argument(
        "--rounds", type=positive_count, default=5, help="at least 5, for figures that count"
    )
    parser.add_argument("--quick", action="store_true", help="one tiny round: does it run at all?")
    parser.add_argument("--json", type=writable_path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
