"""What is left of task vectors before they are merged: by magnitude, by a band of it, at random, by variance.

Each thinning is handed one tensor's change in every model (float64) and sets entries of them to zero, in place. What is
kept follows from the values, or from seed, model and tensor alone: never from the order in which tensors come.
Densities and the like are numbers, or one for every model and component (:class:`merging.mixing.varying.Numbers`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.mixing.varying import Amount, Numbers, at


class Thinning(Protocol):
    """A rule that sets entries of task vectors to zero."""

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Thins one tensor's change in every model, in pool order, in place."""


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

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Cuts each model at its own magnitude."""
        for number, change in enumerate(changes):
            if self.cuts is not None:
                cut = self.cuts.at(number, name)
            else:
                cut = smallest_kept(partial(list, [change]), at(self.density, number, name), down=self.down)
            change.masked_fill_(magnitude(change) < cut, 0.0)


@dataclass(frozen=True)
class Band:
    """Keeps magnitudes between the outliers, which go first, and the small ones (Davari and Belilovsky 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, rounded down; 1: all of them, outliers too.
        gamma: The share of largest entries that is dropped, rounded down; fewer where density leaves no room.
    """

    density: Amount
    gamma: Amount

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Drops both ends of each model's magnitudes; of equal ones the later count as smaller."""
        for number, change in enumerate(changes):
            density, gamma = at(self.density, number, name), at(self.gamma, number, name)
            if density >= 1:
                continue
            sizes = magnitude(change).reshape(-1).numpy()
            kept = int(density * len(sizes))
            first = min(int(gamma * len(sizes)), len(sizes) - kept)
            _keep(change, largest_of(sizes, first + kept) & ~largest_of(sizes, first))


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

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Draws one number an entry, of each model's own generator."""
        for number, change in enumerate(changes):
            drop = at(self.drop, number, name)
            if self.unbiased:
                change.div_(1.0 - drop)
            _keep(change, drawn(self.seed, number, name, change.numel()) >= drop)


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

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Ranks each row of each model, equal magnitudes by their place, and draws one number an entry."""
        for number, change in enumerate(changes):
            density, epsilon = at(self.density, number, name), at(self.epsilon, number, name)
            if density >= 1:
                continue
            if density == 0 or not change.numel():
                change.zero_()
                continue
            stays = _stays(change, density, epsilon)
            if self.unbiased:
                change.div_(stays.view(change.shape))
            kept = drawn(self.seed, number, name, change.numel()) < stays.reshape(-1).numpy()
            _keep(change, kept)


@dataclass(frozen=True)
class MostVaried:
    """Keeps the places at which models differ most, the same in all of them (Wan et al. 2024).

    Attributes:
        density: The share of a tensor's entries that is kept, of those whose variance is not zero, rounded down.
    """

    density: Amount

    def __call__(self, changes: list[Tensor], name: str) -> None:
        """Ranks the variances over models; of equal ones the later count as smaller."""
        density = at(self.density, 0, name)
        if density >= 1:
            return
        first = changes[0].clone()  # against it, so that equal changes have a variance of exactly zero
        total, squares = torch.zeros_like(first), torch.zeros_like(first)
        for change in changes[1:]:
            apart = change - first
            total.add_(apart)
            squares.addcmul_(apart, apart)
        variance = squares.div_(len(changes)).sub_(total.div_(len(changes)).square_()).reshape(-1).numpy()
        kept = largest_of(variance, int(np.count_nonzero(variance > 0) * density))
        for change in changes:
            _keep(change, kept)


def _stays(change: Tensor, density: float, epsilon: float) -> Tensor:
    """The probability of staying of every entry, row by row."""
    rows = magnitude(change).reshape(len(change) if change.dim() > 1 else 1, -1)
    count = rows.shape[1]
    if count == 1:
        return torch.full_like(rows, density, dtype=torch.float64)
    levels = torch.linspace(density - epsilon, density + epsilon, count, dtype=torch.float64)
    return torch.empty(rows.shape, dtype=torch.float64).scatter_(
        1, rows.argsort(dim=1, stable=True), levels.expand_as(rows)
    )


def magnitude(change: Tensor) -> Tensor:
    """The magnitudes of a change in float32, by which its entries are ranked."""
    return change.abs().float()


def drawn(seed: int, model: int, name: str, count: int) -> NDArray[np.float32]:
    """Uniform numbers below 1 for the entries of one model's tensor, whatever was drawn for others."""
    return np.random.default_rng([seed, model, zlib.crc32(name.encode())]).random(count, dtype=np.float32)


def largest_of(values: NDArray[np.floating], count: int) -> NDArray[np.bool_]:
    """Marks exactly ``count`` entries of a flat array, the largest; of equal ones the earlier."""
    if count <= 0 or count >= len(values):
        return np.full(len(values), count > 0)
    cut = np.partition(values, len(values) - count)[len(values) - count]
    found: NDArray[np.bool_] = values > cut
    found[np.flatnonzero(values == cut)[: count - int(np.count_nonzero(found))]] = True
    return found


def smallest_kept(changes: Callable[[], Iterable[Tensor]], density: float, *, down: bool = False) -> float:
    """The magnitude (float32) of the k-th largest entry of all changes, exactly, in two passes and constant memory.

    Args:
        changes: gives them, one by one; called twice.
        density: k as a share of all entries.
        down: whether k is rounded down, to 1 at least but for density 0, and not to the nearest number.

    Returns:
        Infinity where nothing is kept.
    """
    # Bit patterns of positive float32 numbers, read as integers, are ordered as the numbers are: the upper 16 bits
    # are counted first, then the lower ones of those entries that share the upper ones of the k-th.
    upper = np.zeros(1 << 16, dtype=np.int64)
    for change in changes():
        upper += np.bincount(_bits(change) >> 16, minlength=1 << 16)
    count = int(upper.sum())
    keep = round(count * density) if not down or density == 0 else min(max(1, int(density * count)), count)
    if keep == 0:
        return math.inf
    high, above = _place(upper, keep)
    lower = np.zeros(1 << 16, dtype=np.int64)
    for change in changes():
        bits = _bits(change)
        lower += np.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=1 << 16)
    low, _ = _place(lower, keep - above)
    return float(np.array([high << 16 | low], dtype=np.uint32).view(np.float32)[0])


def _keep(change: Tensor, kept: NDArray[np.bool_]) -> None:
    """Sets all other entries to zero, in place; the mask is flat, in the order of rows."""
    change.masked_fill_(torch.from_numpy(~kept).view(change.shape), 0.0)


def _bits(change: Tensor) -> NDArray[np.uint32]:
    return magnitude(change).contiguous().reshape(-1).numpy().view(np.uint32)


def _place(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin of the ``rank``-th largest entry, and how many lie in bins above it."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, rank))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0
