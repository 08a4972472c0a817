"""Durations and counts, as people type and read them."""

from __future__ import annotations

import math
import re

#: Those that every report has.
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
#: Any other one can be asked for as well.
ANY_PERCENTILE = re.compile(r"(uncorrected_|lag_)?p(\d{1,2}(?:\.\d+)?|100)")

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Return the seconds that ``30s``, ``3m`` or ``1m30s`` means; raises ValueError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration such as 500ms, 30s, 3m or 1m30s")
    return sum(float(number) * _UNITS[unit.replace("µ", "u")] for number, unit in parts)


def duration(seconds: float | None) -> str:
    """Write a duration with three digits and the unit that fits."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "for ever"
    for unit in ("s", "ms", "us"):
        if abs(seconds) >= _UNITS[unit]:
            return f"{_digits(seconds / _UNITS[unit])} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0"


def count(value: float | None) -> str:
    """Write a number with three digits or more, in groups of thousands."""
    if value is None:
        return "-"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return _digits(value)


def _digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
