"""Which entries are the largest, exactly, without holding them: a sample says about where the cut is, a count where.

Two bounds that surely lie on both sides of the cut are taken from a sample. One pass then counts what lies above and
collects what lies between, a few hundredths. Where a bound was wrong, the count shows it, and wider ones are tried. The
sample decides how long it takes, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.mixing.sides import Span, spread

Values: TypeAlias = Callable[[int, int], Iterator[NDArray[np.floating[Any]]]]
"""First entry, the one after the last → their values, block by block."""

_CHUNK, _CHUNKS = 256, 512
"""Entries that are sampled in one place, and places."""
_MARGIN = 8.0
"""Standard deviations of a sample's rank between it and the bounds; as wide a step where they were wrong."""


@dataclass(frozen=True)
class Cut:
    """The smallest one of the largest entries.

    Attributes:
        value: The smallest of them.
        above: How many entries are larger than that.
        equal: How many are equal to it.
    """

    value: float
    above: int
    equal: int


@dataclass(frozen=True)
class _Counts:
    """Of some entries and a pair of bounds: how many lie above both, on the upper and on the lower; what is between."""

    counts: tuple[int, int, int]
    inside: NDArray[np.floating[Any]]


def cuts(values: Values, spans: Sequence[Span], ranks: Sequence[int]) -> list[Cut]:
    """Finds the k-th largest entry for each k of ``ranks``, 1 being the largest.

    Args:
        values: gives the entries; several threads call it, with parts of spans, more than once.
        spans: cover all entries, in order.
        ranks: numbers from 1 to the number of entries.
    """
    count = spans[-1][1]
    if count <= 2 * _CHUNK * _CHUNKS:
        whole = np.concatenate([np.array(block) for span in spans for block in values(*span)])
        return [_cut_of(whole, rank, 0) for rank in ranks]
    sample = np.sort(_sampled(values, spans))
    found: dict[int, Cut] = {}
    margin = _MARGIN
    while len(found) < len(set(ranks)):
        missing = sorted(set(ranks) - set(found))
        bounds = [_bounds(sample, rank, count, margin) for rank in missing]
        counted = spread(partial(_counted, values, bounds), spans)
        for place, (rank, (low, high)) in enumerate(zip(missing, bounds, strict=True)):
            parts = [part[place] for part in counted]
            above, at_high, at_low = (sum(part.counts[k] for part in parts) for k in range(3))
            inside = np.concatenate([part.inside for part in parts])
            if above < rank <= above + at_high:
                found[rank] = Cut(high, above, at_high)
            elif above + at_high < rank <= above + at_high + len(inside):
                found[rank] = _cut_of(inside, rank - above - at_high, above + at_high)
            elif above + at_high + len(inside) < rank <= above + at_high + len(inside) + at_low:
                found[rank] = Cut(low, above + at_high + len(inside), at_low)
        margin *= _MARGIN
    return [found[rank] for rank in ranks]


def last_kept(values: Values, spans: Sequence[Span], cut: Cut, wanted: int) -> int:
    """Finds the entry from which on those equal to a cut are not kept, if only the first ``wanted`` of them are."""
    if wanted >= cut.equal:
        return spans[-1][1]
    counts = spread(lambda span: [int(np.count_nonzero(block == cut.value)) for block in values(*span)], spans)
    for span, blocks in zip(spans, counts, strict=True):
        if wanted > sum(blocks):
            wanted -= sum(blocks)
            continue
        start = span[0]
        for block in values(*span):
            places = np.flatnonzero(block == cut.value)
            if wanted <= len(places):
                return start + (int(places[wanted - 1]) + 1 if wanted else 0)
            wanted -= len(places)
            start += len(block)
    raise RuntimeError("fewer entries are equal to the cut than were counted")


def _cut_of(values: NDArray[np.floating[Any]], rank: int, above: int) -> Cut:
    """The same for entries that are in memory."""
    value = np.partition(values, len(values) - rank)[len(values) - rank]
    larger = int(np.count_nonzero(values > value))
    return Cut(float(value), above + larger, int(np.count_nonzero(values == value)))


def _sampled(values: Values, spans: Sequence[Span]) -> NDArray[np.floating[Any]]:
    """Entries of many places; neither rows nor columns of a power of two line up with them."""
    count, number = spans[-1][1], 0
    chunks = list[NDArray[np.floating[Any]]]()
    cell = count / _CHUNKS
    for number in range(_CHUNKS):
        start = int(number * cell + (number * 0.6180339887498949 % 1.0) * (cell - _CHUNK))
        chunks += [np.array(block) for block in values(start, start + _CHUNK)]
    return np.concatenate(chunks)


def _bounds(sample: NDArray[np.floating[Any]], rank: int, count: int, margin: float) -> tuple[float, float]:
    """What lies surely, or nearly so, below and above the entry of a rank."""
    share = rank / count
    place = len(sample) * (1 - share)
    reach = margin * (math.sqrt(len(sample) * share * (1 - share)) + 1)
    low, high = math.floor(place - reach), math.ceil(place + reach)
    return (
        float(sample[low]) if low >= 0 else -math.inf,
        float(sample[high]) if high < len(sample) else math.inf,
    )


def _counted(values: Values, bounds: Sequence[tuple[float, float]], span: Span) -> list[_Counts]:
    return _between(values(*span), bounds)


def _between(blocks: Iterator[NDArray[np.floating[Any]]], bounds: Sequence[tuple[float, float]]) -> list[_Counts]:
    """Counts for each pair of bounds."""
    counts = [[0, 0, 0] for _ in bounds]
    inside: list[list[NDArray[np.floating[Any]]]] = [[] for _ in bounds]
    for block in blocks:
        for (low, high), own, between in zip(bounds, counts, inside, strict=True):
            at_least, above = block >= low, block > high
            own[0] += int(np.count_nonzero(above))
            at_least ^= above  # low <= entry <= high
            near = block[at_least]
            up, down = near == high, near == low
            own[1] += int(np.count_nonzero(up))
            own[2] += int(np.count_nonzero(down)) if low != high else 0
            between.append(near[~(up | down)])
    return [_Counts((own[0], own[1], own[2]), np.concatenate(parts)) for own, parts in zip(counts, inside, strict=True)]
