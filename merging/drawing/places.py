"""Where things stand: the ends of an axis, what lies outside, and labels that keep their distance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAR = 3.0
"""Points that lie farther outside than so many widths of the middle half are left at the edge."""
FEW = 5
"""The least number of points of which one is called far."""


@dataclass(frozen=True)
class Span:
    """An axis: its ends, in the data's units, and its length in pixels; ``log``: by powers of ten."""

    low: float
    high: float
    pixels: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, from the low end."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low) * self.pixels

    def clipped(self, value: float) -> float:
        """The value, or the end that it lies beyond."""
        return min(max(value, self.low), self.high)

    def inside(self, value: float) -> bool:
        """Whether the axis reaches that far."""
        return self.low <= value <= self.high


def near(values: Sequence[float]) -> list[bool]:
    """Says which values lie with the others; one far outlier would press all the rest together.

    >>> near([84.0, 85.1, 84.6, 85.0, 84.9, 10.0])
    [True, True, True, True, True, False]
    """
    if len(values) < FEW:
        return [True] * len(values)
    first, third = np.quantile(values, (0.25, 0.75))
    reach = FAR * max(third - first, 1e-9 * (abs(first) + abs(third)))
    kept = [bool(first - reach <= value <= third + reach) for value in values]
    return kept if sum(kept) > 0.7 * len(values) else [True] * len(values)


def span(values: Iterable[float], pixels: float, *, margin: float = 0.06) -> Span:
    """An axis over all values with some room at its ends, which are round numbers.

    Args:
        values: everything that has to lie on it.
        pixels: its length.
        margin: room at each end, as a share.
    """
    values = [value for value in values if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * margin or 0.05 * abs(high) or 0.5
    step = 10.0 ** math.floor(math.log10((high - low + 2 * room) / 8))
    digits = max(0, 1 - math.floor(math.log10(step)))
    low, high = math.floor((low - room) / step) * step, math.ceil((high + room) / step) * step
    return Span(round(low, digits), round(high, digits), pixels)


def ticks(ends: Span, most: int) -> list[float]:
    """Round numbers on an axis, so many at the most.

    >>> ticks(Span(-1.2, 3.4, 100.0), 5)
    [-1.0, 0.0, 1.0, 2.0, 3.0]
    """
    least = (ends.high - ends.low) / max(most, 1)
    ten = 10.0 ** math.floor(math.log10(least))
    for step in (ten, 2 * ten, 5 * ten, 10 * ten, 20 * ten):
        found = [k * step for k in range(math.ceil(ends.low / step - 1e-9), math.floor(ends.high / step + 1e-9) + 1)]
        if len(found) <= most:
            break
    return [round(value, 12) for value in found]


def powers(ends: Span, most: int) -> list[float]:
    """Round numbers on an axis by powers of ten: 1, 2 and 5 of each, or fewer where there is no room.

    >>> powers(Span(1.0, 300.0, 100.0, log=True), 9)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]
    """
    decades = range(math.floor(math.log10(ends.low)), math.ceil(math.log10(ends.high)) + 1)
    found: list[float] = []
    for parts in ((1, 2, 5), (1, 3), (1,)):
        found = [value for k in decades for part in parts if ends.inside(value := part * 10.0**k)]
        if len(found) <= most:
            break
    return found[:: -(-len(found) // most)] if len(found) > 1 else ticks(ends, most)


def spread(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Moves places as little as possible (by squares) so that neighbours are ``step`` apart.

    >>> spread([10.0, 11.0, 50.0], 10.0, 0.0, 100.0)
    [5.5, 15.5, 50.0]

    Args:
        wanted: the place of each if it were alone, in any order.
        step: the least distance; less where there is no room for it.
        low: the least place.
        high: the largest.
    """
    count = len(wanted)
    step = min(step, (high - low) / max(count - 1, 1))
    order = np.argsort(np.array(wanted), kind="stable")
    blocks: list[tuple[float, int]] = []  # means and sizes: pool adjacent violators
    for rank, place in enumerate(order):
        mean, size = wanted[int(place)] - rank * step, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, size = (mean * size + other * more) / (size + more), size + more
        blocks.append((mean, size))
    free: NDArray[np.float64] = np.concatenate([[mean] * size for mean, size in blocks] or [[]])
    found = [0.0] * count
    for rank, place in enumerate(order):
        most = max(high - (count - 1) * step, low)
        found[int(place)] = float(min(max(free[rank], low), most)) + rank * step
    return found


def rings(points: Sequence[tuple[float, float]], near: float = 5.0) -> list[int]:
    """Counts for each point those drawn later that would cover it: it is drawn so much larger.

    >>> rings([(0, 0), (1, 1), (40, 0)])
    [1, 0, 0]
    """
    return [sum(math.dist(point, other) < near for other in points[place + 1 :]) for place, point in enumerate(points)]
