"""Methods of task vectors as one rule: thin what fine-tuning changed, weigh it, sum it or elect a sign, add it back.

θ = θ_0 + λ · Σ_i w_i τ̂_i, τ̂_i what thinning leaves of τ_i = θ_i − θ_0. With an election only the entries that have the
sign of that sum count, place by place; normalised, the sum is divided by the weights of those that count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merging.mixing.blockwise import Blocks, Blockwise
from merging.mixing.sides import Doubles, Sides, Span, scratch, spread
from merging.mixing.varying import Amount, Numbers, at
from merging.mixing.weighing import weights_of
from merging.values.recipe import Recipe, Weights
from merging.values.sums import in_order

if TYPE_CHECKING:
    from merging.mixing.thinning import Thin, Thinning
    from merging.plugins.options import Plugin
    from merging.plugins.problem import Problem


@dataclass(frozen=True, kw_only=True)
class TaskVectors:
    """A method of task vectors: settings of the one rule.

    Attributes:
        thin: Sets entries to zero; none: all stay.
        l1: Whether each tensor's change has the sum of magnitudes after thinning that it had before.
        elect: Whether only entries with the sign of the weighted sum count.
        energies: Whether what counts is weighed by each model's mean square in the tensor besides.
        normalise: Whether the sum is divided by the weights that count.
        weights: Weights of models, as the user wrote them; models that are not named have 1.
        scale: λ, or one for every component.
    """

    thin: Thinning | None = None
    l1: bool = False
    elect: bool = False
    energies: bool = False
    normalise: bool = False
    weights: tuple[str, ...] = ()
    scale: Amount = 1.0

    def recipe(self, problem: Problem) -> Recipe:
        """The merge as a recipe, with the base as its last row: for methods that neither thin nor elect.

        Raises:
            OptionError: weights that are none.
            UnknownNameError: weights of a model or a component that is not there.
        """
        pool, parts = problem.pool, problem.partition.names
        table = weights_of(self.weights, pool.names, parts, 1.0)
        sums = table.sum(axis=0)
        scale = self.scale.row if isinstance(self.scale, Numbers) else self.scale
        scales = scale / np.where(abs(sums) < _NOTHING, 1.0, sums) if self.normalise else scale
        rows = np.concatenate([scales * table, (1.0 - scales * sums)[None]])
        return Recipe.weighted((*pool.ingredients, pool.base_ingredient), problem.partition, rows)

    def merge(self, problem: Problem, strategy: Plugin) -> Weights:
        """Makes weights that are computed tensor by tensor, for the strategy whose settings these are.

        Raises:
            OptionError: weights that are none.
            UnknownNameError: weights of a model or a component that is not there.
        """
        table = weights_of(self.weights, problem.pool.names, problem.partition.names, 1.0)
        columns = {name: c for c, part in enumerate(problem.partition.components) for name in part.tensors}
        looks = self.l1 or self.energies or (self.thin is not None and self.thin.looks)
        rows = self.thin is not None and self.thin.rows

        def prepare(sides: Sides) -> Blocks:
            return self.prepared(sides, table[:, columns[sides.name]].tolist())

        return problem.weights(strategy, Blockwise(prepare, looks=looks or rows))

    def prepared(self, sides: Sides, weights: Sequence[float]) -> Blocks:
        """Looks at one tensor, and gives what merges its blocks.

        Args:
            sides: the tensor in every model and in the base.
            weights: one a model.
        """
        weigh = _Weigh(self.thin.of(sides) if self.thin is not None else None, [1.0] * sides.models, weights)
        rows = self.thin is not None and self.thin.rows
        if self.l1:
            before, after = _measured(sides, rows, weigh)
            weigh.scales = [b / a if a else 1.0 for b, a in zip(before, after, strict=True)]
        weigh.weighs = True
        shares = _energies(sides, rows, weigh) if self.energies else None
        divisor = _nonzero(in_order(w * s for w, s in zip(weights, shares or [1.0] * len(weights), strict=True)))
        scale = at(self.scale, 0, sides.name)
        counts = [w * s for w, s in zip(weights, shares, strict=True)] if shares else weights

        def blocks(start: int, stop: int) -> Iterator[tuple[int, Doubles]]:
            for first, changes, base in sides.changes(start, stop, rows=rows):
                weigh(changes, first)
                total = self._fused(changes, counts, shares, divisor)
                total *= scale
                base += total
                yield first, base

        return Blocks(sides.spans(rows=rows), blocks)

    def _fused(
        self, changes: Doubles, counts: Sequence[float], shares: Sequence[float] | None, divisor: float
    ) -> Doubles:
        """Sums one block of weighted changes, which are overwritten; it is not scaled yet."""
        length = changes.shape[1]
        elected, total = scratch("elected", length), scratch("total", length)
        signs = elected.view(np.uint64)
        if self.elect:
            summed(changes, elected)
            signs &= _SIGN
            np.bitwise_xor(changes.view(np.uint64), signs, out=changes.view(np.uint64))  # what agrees is positive now
        agrees = changes > 0 if self.elect and self.normalise else None
        if self.elect:
            np.maximum(changes, 0.0, out=changes)
        if shares is not None:
            changes *= np.array(shares)[:, None]
        summed(changes, total)
        if self.elect:
            np.bitwise_xor(total.view(np.uint64), signs, out=total.view(np.uint64))  # the sum, turned back
        if agrees is not None:
            weighed = elected
            np.multiply(agrees, np.array(counts)[:, None], out=changes)
            summed(changes, weighed)
            np.add(weighed, weighed == 0, out=weighed)  # 1 where there is nothing
            total /= weighed
        elif self.normalise:
            total /= divisor
        return total


class _Weigh:
    """Thins, scales and weighs a block of all models' changes, in place."""

    def __init__(self, thin: Thin | None, scales: Sequence[float], weights: Sequence[float]) -> None:
        self.thin, self.scales, self.weights, self.weighs = thin, scales, weights, False

    def __call__(self, changes: Doubles, first: int) -> None:
        """Does so, with the block's first entry."""
        if self.thin is not None:
            self.thin(changes, first)
        if not self.weighs:
            return
        for change, scale, weight in zip(changes, self.scales, self.weights, strict=True):
            for factor in (scale, weight):
                if factor != 1.0:
                    change *= factor


_NOTHING = 1e-8
"""Weights whose sum lies below this divide nothing."""
_ROWS = 16
_SIGN = np.uint64(1 << 63)


def _nonzero(divisor: float) -> float:
    return 1.0 if abs(divisor) < _NOTHING else divisor


def summed(rows: Doubles, into: Doubles) -> None:
    """Sums rows in order; sixteen at a time, and such sums again, so that many models lose no digits.

    The bits are those of ``torch.sum`` over the first of two dimensions, where it sums whole vectors of the processor.
    """
    levels = [into] + [np.zeros_like(into) for _ in range(3 if len(rows) >= _ROWS else 0)]
    into.fill(0.0)
    for number, row in enumerate(rows, 1):
        into += row
        for level, place in zip(range(1, len(levels)), (1, _ROWS, _ROWS**2), strict=False):
            if number % (_ROWS * place):
                break
            levels[level] += levels[level - 1]
            levels[level - 1].fill(0.0)
    for above in levels[1:]:
        into += above


def _measured(sides: Sides, rows: bool, weigh: _Weigh) -> tuple[list[float], list[float]]:
    """The sums of each model's magnitudes, before thinning and after it."""

    def of(span: Span) -> list[Doubles]:
        found = list[Doubles]()
        for first, changes, _ in sides.changes(*span, rows=rows):
            before = np.abs(changes).sum(axis=1)
            weigh(changes, first)
            found.append(np.concatenate([before, np.abs(changes).sum(axis=1)]))
        return found

    sums = _totals(spread(of, sides.spans(rows=rows)))
    return sums[: sides.models], sums[sides.models :]


def _energies(sides: Sides, rows: bool, weigh: _Weigh) -> list[float]:
    """The share that each model has of all squared changes; equal ones where nothing changed."""

    def of(span: Span) -> list[Doubles]:
        found = list[Doubles]()
        for first, changes, _ in sides.changes(*span, rows=rows):
            weigh(changes, first)
            changes *= changes
            found.append(changes.sum(axis=1))
        return found

    squares = [total / sides.count for total in _totals(spread(of, sides.spans(rows=rows)))]
    total = in_order(squares)
    return [square / total if total > 0 else 1.0 / len(squares) for square in squares]


def _totals(parts: Sequence[Sequence[Doubles]]) -> list[float]:
    """Sums the sums of blocks, exactly: whatever their order."""
    return [math.fsum(column) for column in zip(*(block for part in parts for block in part), strict=True)]
