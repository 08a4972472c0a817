"""Results of a load test that never ran, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from offgil._machine import Environment
from offgil.loadtest.options import parse
from offgil.loadtest.report import Report
from offgil.loadtest.results import Result
from offgil.loadtest.rounds import PoolCounts, Round, Timeline
from offgil.loadtest.samples import new_histogram


def histogram(*milliseconds: float) -> str:
    """Return so many latencies in text form."""
    one = new_histogram()
    for value in milliseconds:
        one.record_value(int(value * 1e6))
    text: bytes = one.encode()
    return text.decode()


def a_round(**other: Any) -> Round:
    """Return a round of 100 jobs in a second, of 1 to 100 ms."""
    given: dict[str, Any] = {
        "seconds": 1.0,
        "completed": 100,
        "errors": {},
        "wrong": 0,
        "wrong_example": None,
        "unfinished": 0,
        "dropped": 0,
        "target_rate": None,
        "latencies": histogram(*range(1, 101)),
        "corrected": None,
        "lag": histogram(1),
        "cpu_user": 0.2,
        "cpu_system": 0.1,
        "loop_cpu": 0.5,
        "pool": PoolCounts(100, 5, 10, 20, 1.0, 2),
        "cpus_used_by_others": 0.0,
        "cpus_stolen": 0.0,
        "interrupted": False,
        "timeline": Timeline([0.5, 1.0], [90.0, 110.0], [4, 4], [1, 3], [0.0, 0.1], [[0, 1]] * 2),
    }
    return Round(**given | other)


def a_result(*rounds: Round, command: str = "offgil.examples:spin 1") -> Result:
    """Return the result of the last configuration that the command line means."""
    return Result(parse(command.split(), "").configurations[-1], list(rounds))


def a_report(*results: Result) -> Report:
    """Return a report of these, measured here."""
    return Report("loadtest", Environment.of_this_machine(), list(results), True)
