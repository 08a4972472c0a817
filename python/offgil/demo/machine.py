"""The machine the figures come from."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from offgil import _core, examples


@dataclass(frozen=True)
class Environment:
    """Versions and CPUs: without them a figure says nothing."""

    offgil: str
    optimized_build: bool
    python: str
    implementation: str
    platform: str
    cpu_count: int
    usable_cpus: int

    @classmethod
    def of_this_machine(cls) -> Environment:
        """Describe the running interpreter and its machine."""
        return cls(
            offgil=version("offgil"),
            optimized_build=examples.optimized,
            python=platform.python_version(),
            implementation=platform.python_implementation(),
            platform=platform.platform(),
            cpu_count=os.cpu_count() or 1,
            usable_cpus=usable_cpus(),
        )


def usable_cpus() -> int:
    """Return how many CPUs this process may run on, as a pool sees it."""
    return _core.usable_cpu_count()


class CpuWatch:
    """How much of the machine other processes took, from here on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._others = _seconds_used_by_others()

    def free_cpus(self) -> float:
        """Return how many of the usable CPUs were ours, on average since this watch began.

        Where there is no ``/proc/stat``, all of them.
        """
        elapsed = time.perf_counter() - self._started
        used = (_seconds_used_by_others() - self._others) / elapsed
        return max(0.0, min(float(usable_cpus()), (os.cpu_count() or 1) - used))


def _seconds_used_by_others() -> float:
    """Return the CPU seconds since boot that were not this process's, nor its ended children's."""
    try:
        first_line = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return 0.0
    # user nice system idle iowait irq softirq steal; what guests used is part of user already.
    ticks = [int(field) for field in first_line.split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
