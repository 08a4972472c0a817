"""Durations by the million: cheap to note, exact to a thousandth when they are counted."""

from __future__ import annotations

import warnings
from array import array
from collections import Counter
from collections.abc import Iterable
from operator import lshift, rshift

with warnings.catch_warnings():
    # From 3.14 on, of a structure that it never lays out in another way.
    warnings.filterwarnings("ignore", "Due to '_pack_'", DeprecationWarning)
    from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

__all__ = ["HdrHistogram", "Samples", "merged", "new_histogram"]

#: Nanoseconds: below the first, durations are not told apart; above the last they are cut.
_LOWEST, _HIGHEST = 64, 3_600_000_000_000
_DIGITS = 3
#: So many bits of a number are kept, the lower ones cut off: more than three decimal digits.
_BITS = 12
_SHIFTS = [max(0, bits - _BITS) for bits in range(65)]

#: A chunk has so many durations, of 8 bytes, and is counted at once when there are as many chunks:
#: a long test must not eat the memory. Counting one takes about 15 ms.
_CHUNK = 65_536
_MAX_CHUNKS = 512


def new_histogram() -> HdrHistogram:
    """Return an empty histogram of nanoseconds."""
    return HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)


def merged(encoded: Iterable[str]) -> HdrHistogram:
    """Return the sum of histograms in HdrHistogram's own text form."""
    total = new_histogram()
    for text in encoded:
        total.add(HdrHistogram.decode(text))
    return total


class Samples:
    """Durations in nanoseconds; all methods belong to one thread, `len` is for any.

    ``raw.append`` is how the hot path notes one; ``raw`` must be looked up each time.
    """

    def __init__(self) -> None:
        self.raw = array("q")
        self._chunks: list[array[int]] = []
        self._set_aside = 0
        self._counts: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._set_aside + len(self.raw)

    def latest(self, limit: int) -> list[int]:
        """Return some of the last durations."""
        return self.raw[-limit:].tolist()

    def set_aside(self) -> None:
        """Begin a new chunk if the present one is full; to be called every few milliseconds."""
        if len(self.raw) < _CHUNK:
            return
        chunk, self.raw = self.raw, array("q")
        self._set_aside += len(chunk)
        if len(self._chunks) < _MAX_CHUNKS:
            self._chunks.append(chunk)
        else:
            self._count(chunk)

    def histogram(self) -> HdrHistogram:
        """Count all durations so far."""
        for chunk in (*self._chunks, self.raw):
            self._count(chunk)
        self._set_aside += len(self.raw)
        self._chunks, self.raw = [], array("q")
        histogram = new_histogram()
        for value, count in self._counts.items():
            histogram.record_value(min(max(value, 0), _HIGHEST), count)
        return histogram

    def _count(self, chunk: array[int]) -> None:
        # Without a line of Python per duration, of which the histogram itself has twenty.
        shifts = list(map(_SHIFTS.__getitem__, map(int.bit_length, chunk)))
        self._counts.update(map(lshift, map(rshift, chunk, shifts), shifts))
