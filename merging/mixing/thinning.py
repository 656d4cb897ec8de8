"""What is left of task vectors before they are merged: by magnitude, by a band of it, at random, by variance.

A thinning looks at a tensor in all models and gives what sets entries of their changes to zero, a block at a time. What
is kept follows from the values, or from seed, model and tensor alone: never from the order in which tensors or blocks
come.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.mixing.ranking import Cut, Values, cuts, last_kept
from merging.mixing.sides import Doubles, Sides, Span, again, scratch, spread

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint
    from merging.storage.pool import ModelPool

Thin: TypeAlias = Callable[[Doubles, int], None]
"""Sets entries to zero, in place: a block of all models' changes, a row a model, and the number of its first entry."""
Mask: TypeAlias = NDArray[np.bool_]


class Thinning(Protocol):
    """A rule that sets entries of task vectors to zero."""

    @property
    def looks(self) -> bool:
        """Whether it looks at a whole tensor before it can say what stays."""

    @property
    def rows(self) -> bool:
        """Whether blocks have to be of whole rows."""

    def of(self, sides: Sides) -> Thin:
        """Looks at a tensor, and gives what thins its blocks."""


@dataclass(frozen=True)
class Largest:
    """Keeps the entries of the largest magnitude, those that are as large as the last one included.

    Attributes:
        density: The share that is kept, rounded to a number of entries.
        cuts: Smallest magnitude that is kept, one a model, where it was found over the whole model.
    """

    density: float
    cuts: tuple[float, ...] = ()
    rows = False

    @property
    def looks(self) -> bool:
        """Whether the cuts are not known yet."""
        return not self.cuts

    def of(self, sides: Sides) -> Thin:
        """Cuts each model at its own magnitude."""
        found = self.cuts or [self._cut(sides, model) for model in range(sides.models)]

        def thin(changes: Doubles, start: int) -> None:
            del start
            for change, cut in zip(changes, found, strict=True):
                _keep(change, magnitude(change) >= cut)

        return thin

    def _cut(self, sides: Sides, model: int) -> float:
        keep = round(sides.count * self.density)
        return cuts(partial(sides.magnitudes, model), sides.spans(), [keep])[0].value if keep else math.inf


@dataclass(frozen=True)
class Band:
    """Keeps magnitudes between the outliers, which go first, and the small ones (Davari and Belilovsky 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, rounded down; 1: all of them, outliers too.
        gamma: The share of largest entries that is dropped, rounded down; fewer where density leaves no room.
    """

    density: float
    gamma: float
    rows = False

    @property
    def looks(self) -> bool:
        """Whether anything is dropped."""
        return self.density < 1

    def of(self, sides: Sides) -> Thin:
        """Drops both ends of each model's magnitudes; of equal ones the later count as smaller."""
        if not self.looks:
            return _all_stay
        kept = int(self.density * sides.count)
        first = min(int(self.gamma * sides.count), sides.count - kept)
        ends = [
            _tops(partial(sides.magnitudes, model), sides.spans(), (first + kept, first))
            for model in range(sides.models)
        ]

        def thin(changes: Doubles, start: int) -> None:
            for change, (inner, outer) in zip(changes, ends, strict=True):
                sizes = magnitude(change)
                _keep(change, inner(sizes, start) & ~outer(sizes, start))

        return thin


@dataclass(frozen=True)
class AtRandom:
    """Drops each entry with the same probability (Yu et al. 2024).

    Attributes:
        drop: The probability.
        seed: Decides what is dropped, with model and tensor.
        unbiased: Whether what stays is divided by the probability of staying.
    """

    drop: float
    seed: int
    unbiased: bool = True
    looks = False
    rows = False

    def of(self, sides: Sides) -> Thin:
        """Draws one number an entry, of each model's own generator."""
        least = math.ceil(float(np.float32(self.drop)) * (1 << 24)) << 8

        def thin(changes: Doubles, start: int) -> None:
            for model, change in enumerate(changes):
                if self.unbiased:
                    change /= 1.0 - self.drop
                _keep(change, drawn(self.seed, model, sides.name, start, len(change)) >= least)

        return thin


@dataclass(frozen=True)
class ByRank:
    """Drops each entry with a probability that falls with the rank of its magnitude in its row (Deep et al. 2024).

    Rows are the first dimension's; a vector is one row.

    Attributes:
        density: The mean probability of staying. 1: all stay; 0: none.
        epsilon: How far the smallest and the largest entry of a row lie from it.
        seed: Decides what is dropped, with model and tensor.
        unbiased: Whether what stays is divided by its probability of staying.
    """

    density: float
    epsilon: float
    seed: int
    unbiased: bool = True
    looks = False
    rows = True

    def of(self, sides: Sides) -> Thin:
        """Ranks each row of each model, equal magnitudes by their place, and draws one number an entry."""
        if self.density >= 1:
            return _all_stay
        if self.density == 0:
            return _none_stay
        columns = sides.columns
        stays = np.linspace(self.density - self.epsilon, self.density + self.epsilon, columns)
        stays = stays if columns > 1 else np.full(1, self.density)
        most = (np.ceil(stays * (1 << 24)) * (1 << 8) - 1).astype(np.uint32)  # what is drawn, and smaller, stays

        def thin(changes: Doubles, start: int) -> None:
            for model, change in enumerate(changes):
                places = _ascending(magnitude(change).reshape(-1, columns)).reshape(-1)
                bounds = np.empty(len(change), dtype=np.uint32)
                bounds[places] = np.tile(most, len(change) // columns)
                if self.unbiased:
                    shares = np.empty_like(change)
                    shares[places] = np.tile(stays, len(change) // columns)
                    change /= shares
                _keep(change, drawn(self.seed, model, sides.name, start, len(change)) <= bounds)

        return thin


@dataclass(frozen=True)
class Varying:
    """Keeps the places at which models differ most, the same in all of them (Wan et al. 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, of those whose variance is not zero, rounded down.
    """

    density: float
    rows = False

    @property
    def looks(self) -> bool:
        """Whether anything is dropped."""
        return self.density < 1

    def of(self, sides: Sides) -> Thin:
        """Ranks the variances over models; of equal ones the later count as smaller."""
        if not self.looks:
            return _all_stay

        def values(start: int, stop: int) -> Any:
            for _, changes, _ in sides.changes(start, stop):
                yield variance(changes)

        spans = sides.spans()
        some = sum(spread(lambda span: sum(int(np.count_nonzero(block > 0)) for block in values(*span)), spans))
        (top,) = _tops(values, spans, (int(some * self.density),))

        def thin(changes: Doubles, start: int) -> None:
            kept = top(variance(changes), start)
            for change in changes:
                _keep(change, kept)

        return thin


def magnitude(change: Doubles) -> NDArray[np.float32]:
    """The magnitudes of a change in float32, by which its entries are ranked."""
    sizes: NDArray[np.float32] = scratch("magnitude", len(change), np.float32)
    np.copyto(sizes, change, casting="same_kind")
    return np.abs(sizes, out=sizes)


def variance(changes: Doubles) -> Doubles:
    """The variance over models (rows) at each place: exactly zero where all are equal."""
    first: Doubles = changes[0]  # against it, so that equal changes have a variance of exactly zero
    total: Doubles = np.zeros_like(first)
    squares: Doubles = np.zeros_like(first)
    for change in changes[1:]:
        apart = change - first
        total += apart
        apart *= apart
        squares += apart
    total /= len(changes)
    squares /= len(changes)
    total *= total
    squares -= total
    return squares


def cut_over(pool: ModelPool, model: Checkpoint, density: float) -> float:
    """The magnitude (float32) of the smallest of a model's largest changes, over all tensors that are averaged.

    Args:
        pool: has the base.
        model: one of its checkpoints.
        density: the share of entries that counts as largest, rounded to a number; infinity where it is 0.
    """
    if pool.base is None:
        raise RuntimeError("the core gives a base where one is needed")
    readers = (model.read_bytes, pool.base.read_bytes)
    tensors, begins = list[Sides](), [0]
    for name in sorted(pool.mixable):
        shape, dtype = pool.tensors[name]
        tensors.append(Sides(name=name, shape=shape, dtype=dtype, models=1, read=again(readers, name, dtype)))
        begins.append(begins[-1] + tensors[-1].count)

    def magnitudes(start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        place = bisect_right(begins, start) - 1
        while start < stop:
            end = min(stop, begins[place + 1])
            yield from tensors[place].magnitudes(0, start - begins[place], end - begins[place])
            start, place = end, place + 1

    spans = [(b + start, b + stop) for b, each in zip(begins, tensors, strict=False) for start, stop in each.spans()]
    keep = round(begins[-1] * density)
    return cuts(magnitudes, spans, [keep])[0].value if keep else math.inf


def drawn(seed: int, model: int, name: str, start: int, count: int) -> NDArray[np.uint32]:
    """Whole numbers of 32 bits for entries of one model's tensor, whatever was drawn for others.

    The upper 24 bits are NumPy's uniform float32 numbers of the same generator.
    """
    bits = np.random.PCG64([seed, model, zlib.crc32(name.encode())])
    bits.advance(start // 2)  # two numbers a step
    odd = start % 2
    raw = np.asarray(bits.random_raw((count + odd + 1) // 2), dtype="<u8")
    return raw.view("<u4")[odd : odd + count]


class _Top:
    """Marks exactly so many of the largest entries, of equal ones the earlier."""

    def __init__(self, cut: Cut | None, until: int, every: bool = False) -> None:
        self._cut, self._until, self._every = cut, until, every

    def __call__(self, values: NDArray[np.floating[Any]], start: int) -> Mask:
        """Marks those of a block."""
        if self._cut is None:
            return np.full(len(values), self._every)
        if start >= self._until:
            return values > self._cut.value
        marks: Mask = values >= self._cut.value
        if start + len(values) > self._until:
            later = slice(self._until - start, None)
            marks[later] = values[later] > self._cut.value
        return marks


def _tops(values: Values, spans: list[Span], ranks: tuple[int, ...]) -> list[_Top]:
    """What marks the largest entries, one a number of them."""
    count = spans[-1][1]
    inner = [rank for rank in ranks if 0 < rank < count]
    found = dict(zip(inner, cuts(values, spans, inner), strict=True)) if inner else {}
    made = list[_Top]()
    for rank in ranks:
        cut = found.get(rank)
        until = 0 if cut is None else last_kept(values, spans, cut, rank - cut.above)
        made.append(_Top(cut, until, rank >= count))
    return made


def _ascending(sizes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where the entries of each row lie, flat, from the smallest to the largest; of equal ones the earlier first.

    Sizes and places are sorted as one number: positive floats are ordered as their bits are.
    """
    rows, columns = sizes.shape
    keys = sizes.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(columns, dtype=np.uint64)
    keys.sort(axis=1)
    keys &= np.uint64(0xFFFFFFFF)
    keys += (np.arange(rows, dtype=np.uint64) * np.uint64(columns))[:, None]
    return keys.view(np.int64)


def _keep(change: Doubles, kept: Mask) -> None:
    """Sets all other entries to zero, in place."""
    np.copyto(change, 0.0, where=~kept)


def _all_stay(changes: Doubles, start: int) -> None:
    """Drops nothing."""
    del changes, start


def _none_stay(changes: Doubles, start: int) -> None:
    """Drops everything."""
    del start
    changes.fill(0.0)
