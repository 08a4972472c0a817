"""The outcome of a comparison: one table, the ratios first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from measuring import Samples, Spread, aligned, short

#: What a column of ratios and one of figures are called, and what a figure is multiplied by.
COLUMNS = {
    "closed": ("closed loop, x", "k jobs/s", 1e-3),
    "gather": ("gather, x", "k jobs/s", 1e-3),
    "one": ("one at a time, of its time", "us", 1e6),
    "batch": ("submit all + result(), x", "k jobs/s", 1e-3),
}


@dataclass(frozen=True)
class Result:
    """What one peer reached, by workload: its ratio to the reference, and the figure itself."""

    title: str
    versions: str
    note: str
    ratios: dict[str, Spread]
    figures: dict[str, Spread]

    @classmethod
    def of(
        cls, title: str, versions: str, note: str, reference: str, samples: Mapping[str, Samples]
    ) -> Result:
        """Summarize all rounds of one peer."""
        return cls(
            title,
            versions,
            note,
            {name: workload.ratio(title, reference) for name, workload in samples.items()},
            {name: workload.spread(title) for name, workload in samples.items()},
        )


@dataclass(frozen=True)
class Comparison:
    """The peers that were measured against one of them, and why the others were not."""

    reference: str
    results: Sequence[Result]
    left_out: Mapping[str, str]
    remarks: Mapping[str, str]

    def __str__(self) -> str:
        workloads = list(self.remarks)
        header = (
            f"ratios to {self.reference}",
            *(COLUMNS[name][0] for name in workloads),
            *(COLUMNS[name][1] for name in workloads),
            "versions",
            "",
        )
        first = workloads[0]
        ordered = sorted(self.results, key=lambda one: -one.ratios[first].median)
        lines = [aligned([header, *(self._cells(result) for result in ordered)])]
        lines += [f"{title}: left out, {why}" for title, why in self.left_out.items()]
        lines += [f"{name}: {remark}" for name, remark in self.remarks.items() if remark]
        return "\n".join(lines)

    def _cells(self, result: Result) -> tuple[str, ...]:
        return (
            result.title,
            *(
                f"{short(ratio.median)} [{short(ratio.low)} .. {short(ratio.high)}]"
                for ratio in result.ratios.values()
            ),
            *(short(figure.median * COLUMNS[name][2]) for name, figure in result.figures.items()),
            result.versions,
            result.note,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what --json writes; rates in jobs per second, times in seconds."""
        return asdict(self)
