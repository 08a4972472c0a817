"""The charts of the HTML report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from offgil.loadtest.results import Result
from offgil.loadtest.rounds import Timeline
from offgil.loadtest.samples import HdrHistogram

# Told apart by most eyes, on white and on black.
_COLORS = ("#0a7cc4", "#e08a00", "#00a078", "#dd5a1f", "#cc79a7", "#8f7ae5", "#4fb3e8", "#909090")
_GRID = "rgba(128,128,128,0.25)"
_NONE = "rgba(0,0,0,0)"
_HEIGHT = 380
#: Of a configuration's or a worker's row, and of what is above and below the rows.
_ROW_HEIGHT, _FRAME = 24, 110

# Parts of all jobs that were slower, as powers of ten: from half of them to one in a million.
_SLOWER = [10 ** -(0.3 + step / 10) for step in range(58)]
_PERCENT_TICKS = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)


@dataclass(frozen=True)
class Chart:
    """A part of the page; ``wide`` ones take a row of their own."""

    html: str
    wide: bool = False


def overview(results: Sequence[Result], names: Sequence[str]) -> list[Chart]:
    """Return throughput and p99 of all, as dots: bars on a logarithmic axis would lie."""
    height = _FRAME + _ROW_HEIGHT * len(results)
    colors = _by_door(results)
    found = []
    for title, figure, factor in (
        ("Throughput, jobs per second", "throughput", 1),
        ("Latency p99, ms", "p99", 1e3),
    ):
        values = [(result.figures[figure] or 0) * factor for result in results]
        dots = go.Scatter(x=values, y=names, mode="markers", marker={"color": colors, "size": 11})
        chart = _figure(title, dots, height=height)
        chart.update_xaxes(**_log_axis(values))
        chart.update_yaxes(autorange="reversed")
        found.append(_chart(chart))
    return found


def of_group(results: Sequence[Result], names: Sequence[str]) -> list[Chart]:
    """Return the charts of configurations that belong side by side."""
    found = [
        _latency(results, names),
        _timeline("Throughput, jobs per second", results, names, lambda line: line.throughput),
        _timeline("Jobs waiting for a worker", results, names, lambda line: line.waiting),
        _timeline(
            "Event-loop lag, ms",
            results,
            names,
            lambda line: [max(seconds * 1e3, 1e-3) for seconds in line.lag],
            log=True,
        ),
    ]
    workers = _workers(results, names)
    return found if workers is None else [*found, workers]


def _latency(results: Sequence[Result], names: Sequence[str]) -> Chart:
    lines = []
    for result, name, color in zip(results, names, cycle(_COLORS), strict=False):
        for histogram, dash, suffix in (
            (result.latencies, "solid", ""),
            (result.uncorrected, "dot", ", uncorrected"),
        ):
            if histogram is None or not histogram.get_total_count():
                continue
            x, y = _spectrum(histogram)
            lines.append(
                go.Scatter(
                    x=x,
                    y=y,
                    name=name + suffix,
                    legendgroup=name,
                    line={"color": color, "dash": dash},
                    customdata=[100 - 100 / slower for slower in x],
                    hovertemplate="%{customdata:.5g} %: %{y:.4g} ms",
                )
            )
    chart = _figure("Latency by percentile, ms", *lines)
    chart.update_yaxes(**_log_axis([y for line in lines for y in line.y]))
    chart.update_xaxes(
        type="log",
        tickvals=[100 / (100 - tick) for tick in _PERCENT_TICKS],
        ticktext=[f"{tick:g} %" for tick in _PERCENT_TICKS],
    )
    return _chart(chart)


def _spectrum(histogram: HdrHistogram) -> tuple[list[float], list[float]]:
    """Return 1 / (part that was slower) and milliseconds, as far as there are enough jobs."""
    total = histogram.get_total_count()
    wanted = [100 - 100 * slower for slower in _SLOWER if slower * total >= 1]
    values = histogram.get_percentile_to_value_dict(wanted)
    points = [(100 / (100 - percentile), values[percentile] / 1e6) for percentile in wanted]
    points.append((max(float(total), 2.0), histogram.get_max_value() / 1e6))
    return [x for x, _ in points], [y for _, y in points]


def _timeline(
    title: str,
    results: Sequence[Result],
    names: Sequence[str],
    values: Callable[[Timeline], Sequence[float]],
    *,
    log: bool = False,
) -> Chart:
    lines = []
    for result, name, color in zip(results, names, cycle(_COLORS), strict=False):
        timeline = result.typical_round().timeline
        lines.append(
            go.Scatter(
                x=timeline.seconds,
                y=values(timeline),
                name=name,
                line={"color": color, "width": 1.5},
            )
        )
    chart = _figure(title, *lines)
    chart.update_xaxes(ticksuffix=" s")
    drawn = [y for line in lines for y in line.y]
    chart.update_yaxes(**(_log_axis(drawn) if log else {"rangemode": "tozero"}))
    return _chart(chart)


def _workers(results: Sequence[Result], names: Sequence[str]) -> Chart | None:
    """Return a row per worker, coloured where it ran jobs; None where nothing counts that."""
    rows, labels = [], []
    times: list[float] = []
    for result, name in zip(results, names, strict=True):
        timeline = result.typical_round().timeline
        busy = timeline.spread_busy()
        if not busy:
            continue
        times = max(times, timeline.seconds, key=len)
        for worker in range(len(busy[0])):
            rows.append([100 * shares[worker] for shares in busy])
            labels.append(f"{name}, worker {worker}")
    if not rows:
        return None
    longest = max(map(len, rows))
    heat = go.Heatmap(
        x=times,
        y=labels,
        z=[row + [None] * (longest - len(row)) for row in rows],
        zmin=0,
        zmax=100,
        colorscale=[[0, "rgba(10,124,196,0.06)"], [1, "rgba(10,124,196,1)"]],
        colorbar={"ticksuffix": " %", "thickness": 12},
        ygap=2,
        hovertemplate="%{y}: %{z:.0f} % busy at %{x:.2f} s<extra></extra>",
    )
    chart = _figure("Workers, busy", heat, height=_FRAME + _ROW_HEIGHT * len(rows))
    chart.update_xaxes(ticksuffix=" s", showgrid=False)
    chart.update_yaxes(autorange="reversed", showgrid=False)
    return _chart(chart, wide=True)


def _by_door(results: Sequence[Result]) -> list[str]:
    doors = list(dict.fromkeys(result.configuration.door for result in results))
    return [_COLORS[doors.index(result.configuration.door) % len(_COLORS)] for result in results]


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return ticks that suit the range: Plotly's own are lone digits between powers of ten."""
    positive = [value for value in values if value > 0] or [1.0]
    decades = math.log10(max(positive) / min(positive))
    digits = (1, 1.5, 2, 3, 4, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    ticks = [digit * 10.0**power for power in range(-5, 9) for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.6g}" for tick in ticks]}


def _figure(title: str, *traces: Any, height: int = _HEIGHT) -> go.Figure:
    chart = go.Figure(traces)
    chart.update_layout(
        template="none",
        title={"text": title, "font": {"size": 15}, "x": 0, "xref": "paper"},
        height=height,
        margin={"l": 60, "r": 20, "t": 45, "b": 40},
        paper_bgcolor=_NONE,
        plot_bgcolor=_NONE,
        showlegend=len(traces) > 1,
        legend={"orientation": "h", "y": -0.15, "bgcolor": _NONE},
        hoverlabel={"bgcolor": "#24292f", "bordercolor": "#57606a"},
    )
    chart.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID, automargin=True)
    chart.update_yaxes(gridcolor=_GRID, zerolinecolor=_GRID, automargin=True)
    return chart


def _chart(chart: go.Figure, *, wide: bool = False) -> Chart:
    html: str = chart.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
    )
    return Chart(html, wide)
