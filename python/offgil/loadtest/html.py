"""The report as one HTML file with charts, which needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import plotly.offline  # type: ignore[import-untyped]

from offgil.loadtest import charts
from offgil.loadtest.plan import shared_aspects
from offgil.loadtest.quantity import count, duration
from offgil.loadtest.report import Report
from offgil.loadtest.results import Result

_PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
_TIMES = {
    **{name: name for name in ("p50", "p90", "p99", "p99.9", "p99.99", "max")},
    "uncorrected_p99": "uncorrected p99",
    "lag_p99": "loop lag p99",
    "cpu_per_job": "CPU per job",
}
_COUNTS = {
    "gil_acquisitions_per_job": "GIL per job",
    "wakeups_per_job": "wake-ups per job",
    "batches_per_job": "batches per job",
    "waiting_max": "most waiting",
    "errors": "errors",
}
_EXPLANATION = """\
Open loop: jobs come at a rate, and latency counts from the intended start; uncorrected, dotted in
the charts, from the actual submit. Closed loop: a job is submitted when another one has ended, so
that latency is what so many in flight cost. Timelines show the round with the median throughput,
its ramp included; lag is the worst within each interval."""


def page(report: Report) -> str:
    """Return the file's content."""
    return _PAGE.substitute(
        title=escape(f"Load test of {_functions(report.results)}"),
        library=plotly.offline.get_plotlyjs(),
        command=escape(report.command),
        when=escape(report.when),
        environment=escape(str(report.environment)),
        remarks=_remarks(report),
        table=_table(report.results),
        explanation=_EXPLANATION,
        sections="\n".join(_sections(report.results)),
    )


def _functions(results: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(each.configuration.call.function for each in results))


def _remarks(report: Report) -> str:
    lines = [f'<li class="failure">assertion failed: {escape(t)}' for t in report.failed_assertions]
    lines += [f'<li class="warning">{escape(text)}' for text in report.warnings()]
    for result in report.results:
        for name, seen in result.errors().items():
            text = f"{result.configuration.name()}: {seen.count:,} x {name}: {seen.example}"
            lines.append(f'<li class="failure">{escape(text)}')
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _table(results: Sequence[Result]) -> str:
    titles = ["", "jobs/s", *_TIMES.values(), *_COUNTS.values()]
    head = "".join(f"<th>{title}" for title in titles)
    shared = _shared(results)
    rows = []
    for result in results:
        cells = [
            result.configuration.name(shared),
            count(round(result.figures["throughput"] or 0)),
            *(duration(result.figures[name]) for name in _TIMES),
            *(count(result.figures[name]) for name in _COUNTS),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells))
    return f"<table><tr>{head}{''.join(rows)}</table>"


def _sections(results: Sequence[Result]) -> list[str]:
    """Return an overview, and the charts of each call under closed and under open load."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        kind = "closed" if result.configuration.closed else "open"
        groups.setdefault(f"{result.configuration.call}, {kind} loop", []).append(result)
    found = []
    if len(results) > 1:
        names = [escape(each.configuration.name(_shared(results))) for each in results]
        found.append(_section("Overview", charts.overview(results, names)))
    for title, group in groups.items():
        shared = _shared(group)
        names = [escape(result.configuration.name(shared)) for result in group]
        aspects = group[0].configuration.aspects()
        common = [aspects[key] for key in aspects if key in shared - {"call", "load"}]
        if "load" in shared:
            common.append(aspects["load"].partition(", ")[2])
        found.append(_section(", ".join([title, *common]), charts.of_group(group, names)))
    return found


def _shared(results: Sequence[Result]) -> set[str]:
    return shared_aspects([result.configuration for result in results]) if results else set()


def _section(title: str, drawn: Sequence[charts.Chart]) -> str:
    divisions = "\n".join(
        f'<div class="chart{" wide" * chart.wide}">{chart.html}</div>' for chart in drawn
    )
    return f'<h2>{escape(title)}</h2>\n<div class="charts">\n{divisions}\n</div>'
