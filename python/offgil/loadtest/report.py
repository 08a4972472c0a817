"""A whole test: what it ran on and what came out, and the files that hold it."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from offgil._machine import Environment
from offgil.loadtest.call import CannotRun
from offgil.loadtest.results import Result

FORMAT = "offgil-loadtest/1"
#: Above these, a figure says as much about the neighbours as about the pool.
_DISTURBED_CPUS = 0.25
_STOLEN_CPUS = 0.05


@dataclass
class Report:
    """What `to_json` writes and `from_json` reads."""

    command: str
    environment: Environment
    results: list[Result]
    complete: bool
    failed_assertions: list[str] = field(default_factory=list)
    when: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))

    def warnings(self) -> list[str]:
        """Return all warnings, those of a configuration with its name."""
        several = len(self.results) > 1
        found = (
            []
            if self.complete
            else ["interrupted, or a process could not measure: these are partial results"]
        )
        found += self.environment.warnings()
        if not all(result.configuration.verify for result in self.results):
            found.append("results were not verified (--no-verify)")
        for result in self.results:
            prefix = f"{result.configuration.name()}: " if several else ""
            found += [prefix + warning for warning in result.warnings()]
        return found + self._noise()

    def _noise(self) -> list[str]:
        """Return who else used the machine, if it was enough to be seen in the figures."""
        found = []
        for figure, limit, text in (
            ("cpus_used_by_others", _DISTURBED_CPUS, "other processes used"),
            ("cpus_stolen", _STOLEN_CPUS, "the host took away (steal time)"),
        ):
            seen = [result.figures[figure] or 0.0 for result in self.results]
            disturbed = sum(cpus > limit for cpus in seen)
            if disturbed:
                found.append(
                    f"{text} up to {max(seen):.2f} CPUs during {disturbed} of {len(seen)} "
                    f"configuration{'s' * (len(seen) > 1)}"
                )
        return found

    def to_json(self, path: Path) -> None:
        """Write all of it; ``report.schema.json`` beside this file describes the format."""
        data = {
            "format": FORMAT,
            "command": self.command,
            "when": self.when,
            "environment": asdict(self.environment),
            "complete": self.complete,
            "warnings": self.warnings(),
            "failed_assertions": self.failed_assertions,
            "results": [result.asdict() for result in self.results],
        }
        path.write_text(json.dumps(data, indent=1) + "\n")

    @classmethod
    def from_json(cls, path: Path) -> Report:
        """Read a report; raises CannotRun for anything else."""
        try:
            data = json.loads(path.read_text())
        except OSError as error:
            raise CannotRun(f"cannot read {str(path)!r}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise CannotRun(f"{str(path)!r} is no JSON: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CannotRun(f"{str(path)!r} is no load test's report of the format {FORMAT}")
        try:
            report = cls(
                data["command"],
                Environment(**data["environment"]),
                [Result.of(each) for each in data["results"]],
                data["complete"],
                data["failed_assertions"],
                data["when"],
            )
            for result in report.results:
                _check(result)
        except Exception as error:  # whatever figures of something else raise
            raise CannotRun(f"{str(path)!r} is damaged: {error!r}") from error
        return report

    def to_csv(self, path: Path) -> None:
        """Write a line of figures per configuration; times are in seconds."""
        rows = [_row(result) for result in self.results]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)


def _check(result: Result) -> None:
    """Make all that is shown of a result that was read, so that it is now that it fails."""
    result.configuration.name()
    for name, value in result.figures.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")


def _row(result: Result) -> dict[str, Any]:
    configuration = result.configuration
    rate = configuration.rate
    return {
        "function": configuration.call.function,
        "call": str(configuration.call),
        "door": configuration.door,
        "loop": configuration.loop,
        "loops": configuration.loops,
        "workers": configuration.workers,
        "concurrency": configuration.concurrency,
        "rate": None if rate is None else str(rate),
        "rounds": len(result.rounds),
        **result.figures,
    }


#: The end of a trace, which may be long: `offgil.Pool.trace` writes this count last.
_NOT_NOTED = re.compile(rb'"jobs_not_noted": (\d+)\}\}\s*\Z')


def jobs_missing_in(trace: Path) -> int | None:
    """Return how many jobs of its time a trace does not show, None if it is no whole one."""
    if not trace.is_file():  # a FIFO would be waited for
        return None
    try:
        with trace.open("rb") as file:
            file.seek(max(0, trace.stat().st_size - 200))
            end = _NOT_NOTED.search(file.read())
    except OSError:
        return None
    return None if end is None else int(end[1])


def write_files(
    report: Report, *, json_path: Path | None, csv_path: Path | None, html_path: Path | None
) -> Sequence[Path]:
    """Write what was asked for and return the paths; raises OSError."""
    if json_path is not None:
        report.to_json(json_path)
    if csv_path is not None:
        report.to_csv(csv_path)
    if html_path is not None:
        from offgil.loadtest import html  # half a second to import

        html_path.write_text(html.page(report), encoding="utf-8")
    return [path for path in (json_path, csv_path, html_path) if path is not None]
