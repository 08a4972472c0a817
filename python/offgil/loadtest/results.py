"""The figures of a configuration, made of its rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from offgil.loadtest.loads import PATIENCE
from offgil.loadtest.plan import Configuration
from offgil.loadtest.quantity import ANY_PERCENTILE, PERCENTILES
from offgil.loadtest.recorder import ErrorCount
from offgil.loadtest.rounds import Round
from offgil.loadtest.samples import HdrHistogram, merged

#: A generator this busy, with workers this idle, was what limited the throughput.
_BUSY_LOOP, _IDLE_WORKERS = 0.9, 0.7
#: A rate that is missed by more was not reached.
_REACHED = 0.98

_NANO = 1e-9


@dataclass
class Result:
    """A configuration and its rounds, at least one."""

    configuration: Configuration
    rounds: list[Round] = field(default_factory=list)

    @cached_property
    def latencies(self) -> HdrHistogram:
        """What a caller waits: from the intended start, or from the submit in a closed loop."""
        return merged(one.corrected or one.latencies for one in self.rounds)

    @cached_property
    def uncorrected(self) -> HdrHistogram | None:
        """From the actual submit, where that is something else."""
        if self.configuration.closed:
            return None
        return merged(one.latencies for one in self.rounds)

    @cached_property
    def lag(self) -> HdrHistogram:
        """How late the event loop was."""
        return merged(one.lag for one in self.rounds)

    def typical_round(self) -> Round:
        """Return the round whose throughput is the median."""
        ordered = sorted(self.rounds, key=lambda one: one.throughput)
        return ordered[len(ordered) // 2]

    def errors(self) -> dict[str, ErrorCount]:
        """Return exceptions by type, the most frequent first."""
        total: dict[str, ErrorCount] = {}
        for one in self.rounds:
            for name, seen in one.errors.items():
                total.setdefault(name, ErrorCount(0, seen.example)).count += seen.count
        return dict(sorted(total.items(), key=lambda item: -item[1].count))

    def sum(self, what: Callable[[Round], float]) -> float:
        """Add something up over the rounds."""
        return sum(what(one) for one in self.rounds)

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """All figures by name: seconds, counts, and counts per job; None where nobody counted."""
        rates = [one.throughput for one in self.rounds]
        seconds = self.sum(lambda one: one.seconds)
        waiting = [w for one in self.rounds for w in one.timeline.waiting]
        return {
            "jobs": self.sum(lambda one: one.completed),
            "seconds": seconds,
            "throughput": statistics.median(rates),
            "throughput_low": min(rates),
            "throughput_high": max(rates),
            "target_rate": statistics.median(
                one.target_rate if one.target_rate is not None else 0.0 for one in self.rounds
            )
            or None,
            **_spectrum("", self.latencies),
            **_spectrum("uncorrected_", self.uncorrected),
            "errors": self.sum(lambda one: one.failed),
            "wrong": self.sum(lambda one: one.wrong),
            "unfinished": self.sum(lambda one: one.unfinished),
            "dropped": self.sum(lambda one: one.dropped),
            "lag_p50": _percentile(self.lag, 50),
            "lag_p99": _percentile(self.lag, 99),
            "lag_max": self.lag.get_max_value() * _NANO,
            **self._costs(),
            "waiting_mean": statistics.fmean(waiting) if waiting else None,
            "waiting_max": max(waiting, default=None),
            "in_flight_max": max(
                (n for one in self.rounds for n in one.timeline.in_flight), default=None
            ),
            "loop_cpu": self._share(lambda one: one.loop_cpu * one.seconds, seconds),
            "worker_busy": self._worker_busy(),
            "cpus_used_by_others": self._share(
                lambda one: one.cpus_used_by_others * one.seconds, seconds
            ),
            "cpus_stolen": self._share(lambda one: one.cpus_stolen * one.seconds, seconds),
        }

    def figure(self, name: str) -> float | None:
        """Return a figure, or any percentile such as ``p97.5``; raises LookupError."""
        if name in self.figures:
            return self.figures[name]
        match = ANY_PERCENTILE.fullmatch(name)
        if match is None:
            raise LookupError(name)
        which = {"": self.latencies, "uncorrected_": self.uncorrected, "lag_": self.lag}
        histogram = which[match[1] or ""]
        return None if histogram is None else _percentile(histogram, float(match[2]))

    def _costs(self) -> dict[str, float | None]:
        """Return what was used per job that came back, right or not."""
        jobs = self.sum(lambda one: one.completed + one.failed + one.wrong)
        user = self._share(lambda one: one.cpu_user, jobs)
        system = self._share(lambda one: one.cpu_system, jobs)
        costs: dict[str, float | None] = {
            "cpu_per_job": None if user is None or system is None else user + system,
            "cpu_user_per_job": user,
            "cpu_system_per_job": system,
        }
        pools = [one.pool for one in self.rounds if one.pool is not None]
        ended = sum(pool.ended for pool in pools)
        for name in ("gil_acquisitions", "wakeups", "batches"):
            total = sum(getattr(pool, name) for pool in pools)
            costs[f"{name}_per_job"] = total / ended if ended else None
        return costs

    def _worker_busy(self) -> float | None:
        if any(one.pool is None for one in self.rounds):
            return None
        available = self.sum(lambda one: one.seconds * one.pool.workers if one.pool else 0)
        busy = self._share(lambda one: one.pool.busy_seconds if one.pool else 0, available)
        return busy

    def _share(self, what: Callable[[Round], float], of: float) -> float | None:
        return self.sum(what) / of if of else None

    def warnings(self) -> list[str]:
        """Return what makes this result less than it seems."""
        return list(_warnings(self))

    def asdict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "name": self.configuration.name(),
            "configuration": self.configuration.asdict(),
            "figures": self.figures,
            "warnings": self.warnings(),
            "rounds": [asdict(one) for one in self.rounds],
        }

    @classmethod
    def of(cls, data: dict[str, Any]) -> Result:
        """Return what `asdict` was made of; raises KeyError or TypeError for something else."""
        return cls(
            Configuration.of(data["configuration"]), [Round.of(one) for one in data["rounds"]]
        )


def _percentile(histogram: HdrHistogram, percentile: float) -> float:
    # The end of a bucket may lie above the greatest value in it.
    value: int = min(histogram.get_value_at_percentile(percentile), histogram.get_max_value())
    return value * _NANO


def _spectrum(prefix: str, histogram: HdrHistogram | None) -> dict[str, float | None]:
    names = [f"p{percentile:g}" for percentile in PERCENTILES]
    if histogram is None or not histogram.get_total_count():
        return dict.fromkeys(f"{prefix}{name}" for name in ("mean", *names, "max"))
    values = histogram.get_percentile_to_value_dict(PERCENTILES)
    largest = histogram.get_max_value()
    return {
        f"{prefix}mean": histogram.get_mean_value() * _NANO,
        **{
            f"{prefix}{name}": min(values[percentile], largest) * _NANO
            for name, percentile in zip(names, PERCENTILES, strict=True)
        },
        f"{prefix}max": largest * _NANO,
    }


def _warnings(result: Result) -> Iterator[str]:
    figures = result.figures
    if not figures["jobs"]:
        ended = (figures["errors"] or 0) + (figures["wrong"] or 0)
        yield (
            f"every call failed, all {ended:,.0f} of them"
            if ended
            else f"no job ended in time, {figures['unfinished']:,.0f} were abandoned; "
            "give them longer, by -z"
        )
        return
    if figures["wrong"]:
        example = next(r.wrong_example for r in result.rounds if r.wrong_example is not None)
        yield f"{figures['wrong']:,.0f} results were wrong, such as {example}"
    throughput, target = figures["throughput"] or 0.0, figures["target_rate"]
    if target is not None and throughput < _REACHED * target and not result.configuration.ramp:
        yield (
            f"the rate was not reached: {throughput:,.0f}/s of {target:,.0f}/s came back in time"
        )
    if figures["unfinished"]:
        yield (
            f"{figures['unfinished']:,.0f} jobs were abandoned, since they had not ended "
            f"{PATIENCE:g} s after the last submit: the true latencies are worse"
        )
    if figures["dropped"]:
        yield f"{figures['dropped']:,.0f} jobs were never submitted: too many in flight"
    loop_cpu, busy = figures["loop_cpu"] or 0.0, figures["worker_busy"]
    if loop_cpu > _BUSY_LOOP and (busy is None or busy < _IDLE_WORKERS):
        workers = "" if busy is None else f", the workers busy {busy:.0%}"
        yield (
            f"the event loop was the bottleneck: its thread was on a CPU {loop_cpu:.0%} of the "
            f"time{workers}; --loops 2 generates more"
        )
