"""What is measured: configurations, and the sweeps that make many of one command line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from offgil.loadtest.call import Call
from offgil.loadtest.quantity import count


@dataclass(frozen=True)
class Rate:
    """Jobs per second of an open loop: a number, or a share of what the closed loop reaches."""

    per_second: float | None = None
    share: float | None = None

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.share:.0%}"
        return f"{count(self.per_second)}/s"


@dataclass(frozen=True)
class Configuration:
    """One way to load one function; all of it that another process needs to know."""

    call: Call
    door: str
    loop: str
    loops: int
    workers: int
    #: Jobs in flight, in all, for a closed loop; None for an open one.
    concurrency: int | None
    rate: Rate | None
    #: Of one round.
    seconds: float | None
    jobs: int | None
    warmup: float
    ramp: float
    verify: bool
    expect: str | None
    pool_options: tuple[tuple[str, str], ...]
    #: File for `offgil.Pool.trace`.
    trace: str | None

    @property
    def closed(self) -> bool:
        """Whether a job is submitted only when another one has ended."""
        return self.rate is None

    @property
    def load(self) -> str:
        """How the jobs come, in words."""
        return f"closed, c={self.concurrency}" if self.closed else f"open, {self.rate}"

    def aspects(self) -> dict[str, str]:
        """Return what may differ between configurations, each with its name."""
        return {
            "call": str(self.call),
            "door": self.door,
            "loop": self.loop if self.loops == 1 else f"{self.loops} x {self.loop}",
            "workers": f"{self.workers} workers" if self.workers > 1 else "1 worker",
            "load": self.load,
        }

    def name(self, without: Iterable[str] = ()) -> str:
        """Return a name that tells it from others; ``without`` are aspects they all share."""
        return ", ".join(text for key, text in self.aspects().items() if key not in without)

    def asdict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Configuration:
        """Return what `asdict` was made of, also after a journey through JSON."""
        known = {field.name: data[field.name] for field in fields(cls)}
        call, rate, options = known["call"], known["rate"], known["pool_options"]
        known["call"] = Call(
            call["function"], tuple(call["args"]), tuple((k, v) for k, v in call["kwargs"])
        )
        known["rate"] = None if rate is None else Rate(**rate)
        known["pool_options"] = tuple((key, value) for key, value in options)
        return cls(**known)


@dataclass(frozen=True)
class Sweep:
    """Every value that each aspect takes."""

    calls: Sequence[Call]
    doors: Sequence[str]
    loops: Sequence[str]
    loop_counts: Sequence[int]
    workers: Sequence[int]
    concurrencies: Sequence[int]
    rates: Sequence[Rate]

    @property
    def has_closed_loops(self) -> bool:
        """Whether jobs in flight are of any consequence: to what is asked for, or to a share."""
        return not self.rates or any(rate.share is not None for rate in self.rates)

    def configurations(self, **common: Any) -> list[Configuration]:
        """Return all combinations; closed loops, or open ones where there are rates.

        A share of the closed loop's throughput needs that closed loop: it comes before.
        """
        found = []
        for call, workers, loop, loops, door in itertools.product(
            self.calls, self.workers, self.loops, self.loop_counts, self.doors
        ):
            loads: list[tuple[int | None, Rate | None]] = []
            if self.has_closed_loops:
                loads += [(concurrency, None) for concurrency in self.concurrencies]
            loads += [(None, rate) for rate in self.rates]
            found += [
                Configuration(call, door, loop, loops, workers, concurrency, rate, **common)
                for concurrency, rate in loads
            ]
        return found


def shared_aspects(configurations: Sequence[Configuration]) -> set[str]:
    """Return the aspects in which all are alike, but never every one."""
    aspects = [configuration.aspects() for configuration in configurations]
    shared = {key for key in aspects[0] if len({each[key] for each in aspects}) == 1}
    return shared if len(configurations) > 1 else shared - {"call", "door", "load"}


def reference_of(configuration: Configuration, among: Iterable[Configuration]) -> Configuration:
    """Return the closed loop whose throughput an open loop's share is of: that with most in flight.

    Raises LookupError where there is none.
    """
    wanted = configuration.aspects() | {"load": ""}
    alike = [c for c in among if c.closed and c.aspects() | {"load": ""} == wanted]
    if not alike:
        raise LookupError(f"no closed loop like {configuration.name()}")
    return max(alike, key=lambda c: c.concurrency or 0)
