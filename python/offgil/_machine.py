"""The machine that figures come from, and who else was using it."""

from __future__ import annotations

import os
import platform
import sysconfig
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from offgil import _core, examples


@dataclass(frozen=True)
class Environment:
    """Versions and CPUs: without them a figure says nothing."""

    offgil: str
    optimized_build: bool
    python: str
    implementation: str
    python_debug: bool
    uvloop: str | None
    platform: str
    cpu: str
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
            python_debug=bool(sysconfig.get_config_var("Py_DEBUG")),
            uvloop=_version_or_none("uvloop"),
            platform=platform.platform(),
            cpu=_cpu_model(),
            cpu_count=os.cpu_count() or 1,
            usable_cpus=usable_cpus(),
        )

    def warnings(self) -> list[str]:
        """Return what makes figures from here worth less."""
        found = []
        if not self.optimized_build:
            found.append("offgil is a debug build")
        if self.python_debug:
            found.append("Python is a debug build")
        if self.usable_cpus < 2:
            found.append("only one CPU: two workers cannot run at once")
        return found

    def __str__(self) -> str:
        build = "optimized" if self.optimized_build else "debug"
        return (
            f"offgil {self.offgil} ({build} build), {self.implementation} {self.python}, "
            f"uvloop {self.uvloop or '-'}, {self.usable_cpus} of {self.cpu_count} CPUs usable, "
            f"{self.cpu}, {self.platform}"
        )


def usable_cpus() -> int:
    """Return how many CPUs this process may use, as a pool sees it."""
    return _core.usable_cpu_count()


class CpuWatch:
    """How much CPU other processes took, and the host stole, from here on.

    Where there is no ``/proc/stat``, nothing.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._ticks = _cpu_ticks()
        self._own = _own_seconds()

    def cpus_used_by_others(self) -> float:
        """Return the CPUs that were busy, or stolen, and not with this process or its children.

        A child counts once it has ended and been waited for.
        """
        busy = _cpu_ticks().busy - self._ticks.busy
        return max(0.0, busy - (_own_seconds() - self._own)) / self._elapsed()

    def cpus_stolen(self) -> float:
        """Return the CPUs the host took away."""
        return (_cpu_ticks().stolen - self._ticks.stolen) / self._elapsed()

    def free_cpus(self) -> float:
        """Return how many of the usable CPUs were ours, on average."""
        free = (os.cpu_count() or 1) - self.cpus_used_by_others()
        return max(0.0, min(float(usable_cpus()), free))

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self._started, 1e-9)


@dataclass(frozen=True)
class _CpuTicks:
    """Seconds since boot, over all CPUs; ``busy`` includes ``stolen``."""

    busy: float
    stolen: float


def _cpu_ticks() -> _CpuTicks:
    try:
        first_line = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return _CpuTicks(0.0, 0.0)
    # user nice system idle iowait irq softirq steal; what guests used is part of user already.
    ticks = [int(text) / os.sysconf("SC_CLK_TCK") for text in first_line.split()[1:9]]
    return _CpuTicks(busy=sum(ticks) - ticks[3] - ticks[4], stolen=ticks[7])


def _own_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _version_or_none(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
