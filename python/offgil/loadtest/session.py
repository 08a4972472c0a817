"""All rounds of all configurations, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from offgil.loadtest.call import CannotRun
from offgil.loadtest.children import Interrupted, run_round
from offgil.loadtest.plan import Configuration, Rate, reference_of
from offgil.loadtest.results import Result
from offgil.loadtest.rounds import Round


class Watcher(Protocol):
    """Whoever shows how it goes."""

    def begin(self, number: int, configuration: Configuration) -> None:
        """A round begins, the ``number``-th of all."""

    def progress(self, seen: dict[str, Any]) -> None:
        """Live figures of the round."""

    def end(self, result: Round) -> None:
        """The round is over."""


@dataclass(frozen=True)
class Outcome:
    """The configurations that have a round, and whether it is all that was asked for."""

    results: list[Result]
    complete: bool
    #: What ended it early, unless that was Ctrl-C.
    problem: CannotRun | None = None


def run(configurations: Sequence[Configuration], rounds: int, watcher: Watcher) -> Outcome:
    """Measure every configuration once per round, each in a process of its own.

    Ends early after Ctrl-C, and when a process cannot measure; raises CannotRun if that was the
    first of all.
    """
    results = {configuration: Result(configuration) for configuration in configurations}
    number = 0
    complete = True
    problem: CannotRun | None = None
    try:
        for _ in range(rounds):
            for configuration, result in results.items():
                number += 1
                watcher.begin(number, configuration)
                found = run_round(_with_rate(configuration, results), watcher.progress)
                result.rounds.append(found)
                watcher.end(found)
    except Interrupted as interruption:
        complete = False
        partial = interruption.partial
        # Nothing but the warm-up is not a round.
        if partial is not None and partial.completed + partial.failed + partial.wrong:
            result.rounds.append(partial)
    except CannotRun as error:
        if not any(result.rounds for result in results.values()):
            raise
        complete = False
        problem = CannotRun(f"{configuration.name()}: {error}")
    except KeyboardInterrupt:  # between two rounds, or a second one
        complete = False
    measured = [result for result in results.values() if result.rounds]
    return Outcome(measured, complete, problem)


def _with_rate(configuration: Configuration, results: dict[Configuration, Result]) -> Configuration:
    """Turn a share into a number, by what the closed loop has just reached."""
    rate = configuration.rate
    if rate is None or rate.share is None:
        return configuration
    reached = results[reference_of(configuration, results)].rounds[-1].throughput
    return replace(configuration, rate=Rate(max(rate.share * reached, 0.1), rate.share))
