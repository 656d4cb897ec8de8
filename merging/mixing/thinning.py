"""What is left of task vectors before they are merged: by magnitude, by a band of it, at random, by variance.

A thinning looks at a tensor in all models and gives what sets entries of their changes to zero, a block at a time. What
is kept follows from the values, or from seed, model and tensor alone: never from the order in which tensors or blocks
come. Densities and the like are numbers, or one for every model and component
(:class:`merging.mixing.varying.Numbers`).
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.mixing.ranking import Cut, Values, cuts, last_kept
from merging.mixing.sides import Doubles, Sides, Span, again, scratch, spread
from merging.mixing.varying import Amount, Numbers, at

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
        cuts: Smallest magnitude that is kept, where it was found over more than a tensor.
        down: Whether it is rounded down, to one entry at least, and not to the nearest number.
    """

    density: Amount
    cuts: Numbers | None = None
    down: bool = False
    rows = False

    @property
    def looks(self) -> bool:
        """Whether the cuts are not known yet."""
        return self.cuts is None

    def of(self, sides: Sides) -> Thin:
        """Cuts each model at its own magnitude."""
        found = [self._cut(sides, model) for model in range(sides.models)]

        def thin(changes: Doubles, start: int) -> None:
            del start
            for change, cut in zip(changes, found, strict=True):
                _keep(change, magnitude(change) >= cut)

        return thin

    def _cut(self, sides: Sides, model: int) -> float:
        if self.cuts is not None:
            return self.cuts.at(model, sides.name)
        keep = kept_of(sides.count, at(self.density, model, sides.name), down=self.down)
        return cuts(partial(sides.magnitudes, model), sides.spans(), [keep])[0].value if keep else math.inf


@dataclass(frozen=True)
class Band:
    """Keeps magnitudes between the outliers, which go first, and the small ones (Davari and Belilovsky 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, rounded down; 1: all of them, outliers too.
        gamma: The share of largest entries that is dropped, rounded down; fewer where density leaves no room.
    """

    density: Amount
    gamma: Amount
    looks = True
    rows = False

    def of(self, sides: Sides) -> Thin:
        """Drops both ends of each model's magnitudes; of equal ones the later count as smaller."""
        ends = [self._ends(sides, model) for model in range(sides.models)]

        def thin(changes: Doubles, start: int) -> None:
            for change, (inner, outer) in zip(changes, ends, strict=True):
                sizes = magnitude(change)
                _keep(change, inner(sizes, start) & ~outer(sizes, start))

        return thin

    def _ends(self, sides: Sides, model: int) -> list[_Top]:
        """What marks the entries down to the inner end, and down to the outer one."""
        density, gamma = (at(amount, model, sides.name) for amount in (self.density, self.gamma))
        kept = sides.count if density >= 1 else int(density * sides.count)
        first = min(int(gamma * sides.count), sides.count - kept)
        return _tops(partial(sides.magnitudes, model), sides.spans(), (first + kept, first))


@dataclass(frozen=True)
class AtRandom:
    """Drops each entry with the same probability (Yu et al. 2024).

    Attributes:
        drop: The probability.
        seed: Decides what is dropped, with model and tensor.
        unbiased: Whether what stays is divided by the probability of staying.
    """

    drop: Amount
    seed: int
    unbiased: bool = True
    looks = False
    rows = False

    def of(self, sides: Sides) -> Thin:
        """Draws one number an entry, of each model's own generator."""
        drops = [at(self.drop, model, sides.name) for model in range(sides.models)]
        least = [math.ceil(float(np.float32(drop)) * (1 << 24)) << 8 for drop in drops]

        def thin(changes: Doubles, start: int) -> None:
            for model, change in enumerate(changes):
                if self.unbiased:
                    change /= 1.0 - drops[model]
                _keep(change, drawn(self.seed, model, sides.name, start, len(change)) >= least[model])

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

    density: Amount
    epsilon: Amount
    seed: int
    unbiased: bool = True
    looks = False
    rows = True

    def of(self, sides: Sides) -> Thin:
        """Ranks each row of each model, equal magnitudes by their place, and draws one number an entry."""
        columns = sides.columns
        shares = [self._shares(sides, model) for model in range(sides.models)]
        # what is drawn, and smaller, stays
        most = [(np.ceil(share * (1 << 24)) * (1 << 8) - 1).astype(np.uint32) for share in shares]

        def thin(changes: Doubles, start: int) -> None:
            for model, change in enumerate(changes):
                if shares[model][0] >= 1:
                    continue
                if shares[model][-1] <= 0:
                    change.fill(0.0)
                    continue
                rows = len(change) // columns
                places = _ascending(magnitude(change).reshape(rows, columns)).reshape(-1)
                bounds = np.empty(len(change), dtype=np.uint32)
                bounds[places] = np.tile(most[model], rows)
                if self.unbiased:
                    probabilities = np.empty_like(change)
                    probabilities[places] = np.tile(shares[model], rows)
                    change /= probabilities
                _keep(change, drawn(self.seed, model, sides.name, start, len(change)) <= bounds)

        return thin

    def _shares(self, sides: Sides, model: int) -> Doubles:
        """The probability of staying of each rank in a row, from the smallest magnitude on."""
        density, epsilon = (at(amount, model, sides.name) for amount in (self.density, self.epsilon))
        if density >= 1 or density == 0 or sides.columns == 1:
            return np.full(sides.columns, min(density, 1.0))
        return np.linspace(density - epsilon, density + epsilon, sides.columns)


@dataclass(frozen=True)
class MostVaried:
    """Keeps the places at which models differ most, the same in all of them (Wan et al. 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, of those whose variance is not zero, rounded down.
    """

    density: Amount
    looks = True
    rows = False

    def of(self, sides: Sides) -> Thin:
        """Ranks the variances over models; of equal ones the later count as smaller."""
        density = at(self.density, 0, sides.name)
        if density >= 1:
            return _all_stay

        def values(start: int, stop: int) -> Any:
            for _, changes, _ in sides.changes(start, stop):
                yield variance(changes)

        spans = sides.spans()
        some = sum(spread(lambda span: sum(int(np.count_nonzero(block > 0)) for block in values(*span)), spans))
        (top,) = _tops(values, spans, (int(some * density),))

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


def kept_of(count: int, density: float, *, down: bool = False) -> int:
    """Rounds a share of entries to the nearest number, or down, but to 1 at least unless it is 0."""
    return round(count * density) if not down or density == 0 else min(max(1, int(density * count)), count)


def cut_over(pool: ModelPool, model: Checkpoint, names: Sequence[str], density: float, *, down: bool = False) -> float:
    """The magnitude (float32) of the smallest of a model's largest changes, over some tensors.

    Args:
        pool: has the base.
        model: one of its checkpoints.
        names: the tensors.
        density: the share of their entries that counts as largest.
        down: how it is rounded to a number; infinity is the answer where that is 0.
    """
    if pool.base is None:
        raise RuntimeError("the core gives a base where one is needed")
    readers = (model.read_bytes, pool.base.read_bytes)
    tensors, begins = list[Sides](), [0]
    for name in names:
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
    keep = kept_of(begins[-1], density, down=down)
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
    """Sets all other entries to zero, in place; a product takes no branches, which a mask of chance would mislead."""
    np.multiply(change, kept, out=change)


def _all_stay(changes: Doubles, start: int) -> None:
    """Drops nothing."""
    del changes, start
