"""Peers that take turns, each turn in a process of its own (peer_turn.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Samples, WrongResultError, take_turns
from peer import Peer
from peer_table import Comparison, Result

TURN = Path(__file__).with_name("peer_turn.py")
#: Seconds that a turn may take, its process' start and end included, before it counts as hung.
TURN_LIMIT = 120.0


@dataclass(frozen=True)
class Sizes:
    """Rounds, jobs of one pass, and for how many seconds passes are repeated in one turn."""

    rounds: int
    jobs: dict[str, int]
    seconds: float

    @classmethod
    def chosen(cls, rounds: int, *, quick: bool) -> Sizes:
        """Return the full sizes, or those that only show that everything runs."""
        if quick:
            return cls(1, {"closed": 500, "gather": 500, "one": 50, "batch": 500}, 0.0)
        return cls(rounds, {"closed": 10_000, "gather": 10_000, "one": 1_000, "batch": 10_000}, 0.3)


@dataclass
class Entrant:
    """A peer in this run; it stays until it cannot."""

    kind: str
    title: str
    note: str
    most_jobs: int | None
    versions: str = ""
    why_not: str = ""
    turns: int = 0
    #: How processes ended that had done their work but could not leave the interpreter.
    bad_ends: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, kind: str, peer: Peer[Any]) -> Entrant:
        """Enter a peer."""
        return cls(kind, peer.title, peer.note, peer.most_jobs)

    def jobs(self, wanted: int) -> int:
        """Return how many jobs a pass has for this one."""
        return min(wanted, self.most_jobs or wanted)


async def compare(
    reference: str, entrants: Sequence[Entrant], workloads: Sequence[str], sizes: Sizes
) -> Comparison:
    """Measure all workloads on all entrants; raises WrongResultError."""
    trial = Sizes.chosen(1, quick=True)
    for entrant in entrants:
        _say(f"trying {entrant.title} ...")
        for workload in workloads:
            await _turn(entrant, workload, trial)
    samples: dict[str, Samples] = {}
    for workload in workloads:
        _say(f"{workload}: {sizes.rounds} rounds ...")
        running = [entrant for entrant in entrants if not entrant.why_not]
        samples[workload] = await take_turns(
            {entrant.title: partial(_turn, entrant, workload, sizes) for entrant in running},
            sizes.rounds,
            most_extra=0,  # a round takes half a minute: the table says which were disturbed
        )
    return Comparison(
        reference,
        [
            Result.of(entrant.title, entrant.versions, _note(entrant, sizes), reference, samples)
            for entrant in entrants
            if not entrant.why_not
        ],
        {entrant.title: entrant.why_not for entrant in entrants if entrant.why_not},
        {name: workload.remark().lstrip("; ") for name, workload in samples.items()},
    )


def _note(entrant: Entrant, sizes: Sizes) -> str:
    notes = [entrant.note]
    if entrant.most_jobs is not None and entrant.most_jobs < max(sizes.jobs.values()):
        notes.append(f"{entrant.most_jobs} jobs a pass")
    if entrant.bad_ends:
        how = " and ".join(sorted(set(entrant.bad_ends)))
        notes.append(f"{len(entrant.bad_ends)} of {entrant.turns} processes {how} at exit")
    return ", ".join(filter(None, notes))


async def _turn(entrant: Entrant, workload: str, sizes: Sizes) -> float:
    """Return what the child measured; NaN from an entrant that has left, or leaves with this."""
    if entrant.why_not:
        return math.nan
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(TURN),
        entrant.kind,
        entrant.title,
        workload,
        str(entrant.jobs(sizes.jobs[workload])),
        str(sizes.seconds),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TURN_LIMIT)
    except TimeoutError:
        entrant.why_not = f"did not end within {TURN_LIMIT:.0f} s ({workload})"
        return math.nan
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    how = _ending(process.returncode)
    entrant.turns += 1
    if not out:
        entrant.why_not = f"{how} ({workload}) {_last_line(err)}"
        return math.nan
    answer = _answer(out)
    if answer is None:
        entrant.why_not = f"gave no answer, but {_last_line(out)!r}; {how} ({workload})"
        return math.nan
    if process.returncode != 0:  # with every result right: what it did is worth something still
        entrant.bad_ends.append(how)
    if "wrong" in answer:
        raise WrongResultError(f"{entrant.title}, {workload}: {answer['wrong']}")
    if "unavailable" in answer:
        entrant.why_not = answer["unavailable"]
        return math.nan
    entrant.versions = answer["versions"]
    return float(answer["value"])


def _answer(output: bytes) -> dict[str, Any] | None:
    """Return what the child's last line says; before it a peer may print what it likes."""
    try:
        answer = json.loads(_last_line(output))
    except ValueError:
        return None
    known = isinstance(answer, dict) and {"value", "wrong", "unavailable"} & answer.keys()
    return answer if known else None


def _ending(status: int | None) -> str:
    assert status is not None  # it was waited for
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
