"""The second article: two threads that compute with and without the GIL, and nested releases."""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

import offgil
from offgil import examples
from offgil._machine import CpuWatch

#: The article's run took about this long; the number is chosen so that one run here does too.
RUN_SECONDS = 0.35
#: Every line is run this often, the lines taken in turn, and the median counts.
ROUNDS = 3

BOTH_HOLD = "two threads, both hold it"
RELEASING_FIRST = "two threads, the releasing one first"
HOLDING_FIRST = "two threads, the holding one first"
ON_POOL = "two jobs on offgil.Pool"

_IN_THREADS: tuple[tuple[str, tuple[Callable[[int], int], ...]], ...] = (
    ("one thread, GIL held", (examples.fibonacci_gil,)),
    ("one thread, GIL released", (examples.fibonacci_nogil,)),
    (BOTH_HOLD, (examples.fibonacci_gil, examples.fibonacci_gil)),
    (RELEASING_FIRST, (examples.fibonacci_nogil, examples.fibonacci_gil)),
    (HOLDING_FIRST, (examples.fibonacci_gil, examples.fibonacci_nogil)),
)
STEPS = 1 + ROUNDS + 1

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One way to compute the number; ``ratio`` is to one thread that holds the GIL."""

    label: str
    wall_seconds: float
    ratio: float
    correct: bool


@dataclass(frozen=True)
class NestedRelease:
    """What became of a process that released the GIL inside a release."""

    label: str
    outcome: str
    said: str
    correct: bool


@dataclass(frozen=True)
class SecondArticle:
    """The table: the nth Fibonacci number modulo 2**64, and the nested releases."""

    n: int
    free_cpus: float
    runs: tuple[Run, ...]
    releases: tuple[NestedRelease, ...]

    @property
    def correct(self) -> bool:
        """Whether every number was right and every process ended as it had to."""
        return all(run.correct for run in self.runs) and all(r.correct for r in self.releases)


def measure(announce: Announce) -> SecondArticle:
    """Compute the number each way, and release the GIL twice in processes that may die of it."""
    announce("second article: how many additions take a third of a second")
    n = _calibrate()
    watch = CpuWatch()
    rounds = []
    for number in range(1, ROUNDS + 1):
        announce(f"second article: round {number} of {ROUNDS}")
        rounds.append(_round(n))
    free = watch.free_cpus()
    announce("second article: releasing the GIL twice")
    return SecondArticle(n, free, _summarize(rounds, fibonacci_modulo(n)), _nested_releases())


def fibonacci_modulo(n: int, modulus: int = 2**64) -> int:
    """Return the nth Fibonacci number by fast doubling: a second way to know the answer."""
    a, b = 0, 1
    for bit in bin(n)[2:]:
        a, b = a * (2 * b - a) % modulus, (a * a + b * b) % modulus
        if bit == "1":
            a, b = b, (a + b) % modulus
    return a


def _calibrate() -> int:
    """Find the n that takes RUN_SECONDS, from a run long enough to time."""
    n = 1_000_000
    while (seconds := _time_one(n)) < RUN_SECONDS / 8:
        n *= 2
    return round(n * RUN_SECONDS / min(seconds, _time_one(n)))


def _time_one(n: int) -> float:
    started = time.perf_counter()
    examples.fibonacci_gil(n)
    return time.perf_counter() - started


@dataclass(frozen=True)
class _Timing:
    """What one run took, and what its jobs returned; a job that failed returned nothing."""

    seconds: float
    jobs: int
    results: tuple[int, ...]

    def all_returned(self, expected: int) -> bool:
        return self.results == (expected,) * self.jobs


def _round(n: int) -> dict[str, _Timing]:
    timings = {label: _in_threads(functions, n) for label, functions in _IN_THREADS}
    timings[ON_POOL] = asyncio.run(_on_pool(n))
    return timings


def _in_threads(functions: tuple[Callable[[int], int], ...], n: int) -> _Timing:
    results: list[int] = []
    threads = [Thread(target=lambda f=f: results.append(f(n))) for f in functions]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _Timing(time.perf_counter() - started, len(threads), tuple(results))


async def _on_pool(n: int) -> _Timing:
    async with offgil.Pool(2) as pool:
        started = time.perf_counter()
        results = await asyncio.gather(*(pool.submit(examples.fibonacci, n) for _ in range(2)))
        return _Timing(time.perf_counter() - started, 2, tuple(results))


def _summarize(rounds: list[dict[str, _Timing]], expected: int) -> tuple[Run, ...]:
    one = next(iter(rounds[0]))
    return tuple(
        Run(
            label=label,
            wall_seconds=statistics.median(timings[label].seconds for timings in rounds),
            ratio=statistics.median(t[label].seconds / t[one].seconds for t in rounds),
            correct=all(timings[label].all_returned(expected) for timings in rounds),
        )
        for label in rounds[0]
    )


def _nested_releases() -> tuple[NestedRelease, ...]:
    return (
        _release_in_child(
            "pybind11's gil_scoped_release", "recurse_unlock()", survives=False, prints=""
        ),
        _release_in_child(
            "offgil::gil_release, 1000 deep",
            "print(recurse_release(1000))",
            survives=True,
            prints="1000",
        ),
    )


def _release_in_child(label: str, call: str, *, survives: bool, prints: str) -> NestedRelease:
    # The limit keeps the child from leaving a core file behind.
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        f"from offgil.examples import recurse_release, recurse_unlock; {call}"
    )
    command = [sys.executable, "-c", code]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return NestedRelease(label, "hung, and was killed after a minute", "", correct=False)
    printed = child.stdout.strip()
    return NestedRelease(
        label=label,
        outcome=_outcome(child.returncode),
        said=f"returned {printed}" if printed else _last_words(child.stderr),
        correct=(child.returncode == 0 if survives else child.returncode < 0) and printed == prints,
    )


def _outcome(returncode: int) -> str:
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return "ok" if returncode == 0 else f"exit code {returncode}"


def _last_words(stderr: str) -> str:
    """Return the interpreter's verdict if it gave one (more follows it), else the last line."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    verdicts = [line for line in lines if line.startswith("Fatal Python error")]
    return (verdicts or lines or [""])[-1]
