"""Methods of task vectors as one rule: thin what fine-tuning changed, weigh it, sum it or elect a sign, add it back.

θ = θ_0 + λ · Σ_i w_i τ̂_i, τ̂_i what thinning leaves of τ_i = θ_i − θ_0. With an election only the entries that have the
sign of that sum count, place by place; normalised, the sum is divided by the weights of those that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merging.mixing.varying import Amount, Numbers, at
from merging.mixing.weighing import weights_of
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from merging.mixing.thinning import Thinning
    from merging.plugins.options import Plugin
    from merging.plugins.problem import Problem

_BLOCK = 1 << 15
"""Entries that are summed at a time: all models' fit into the cache."""


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

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            if base is None:
                raise RuntimeError("the core gives a base where one is needed")
            merged = self.merged([model.sub_(base) for model in models], name, table[:, columns[name]].tolist())
            return base.add_(merged)

        return problem.weights(strategy, combine)

    def merged(self, changes: list[Tensor], name: str, weights: Sequence[float]) -> Tensor:
        """The merged change of one tensor.

        Args:
            changes: the models' changes, float64, of one shape; overwritten.
            name: the tensor's, for what is drawn at random.
            weights: one a model.
        """
        before = [float(change.abs().sum()) for change in changes] if self.l1 else []
        if self.thin is not None:
            self.thin(changes, name)
        for change, size in zip(changes, before, strict=False):
            left = float(change.abs().sum())
            change.mul_(size / left if left else 1.0)
        for change, weight in zip(changes, weights, strict=True):
            if weight != 1.0:
                change.mul_(weight)
        shares = _energies(changes) if self.energies else None
        return self._fused(changes, weights, shares).mul_(at(self.scale, 0, name)).view(changes[0].shape)

    def _fused(self, changes: list[Tensor], weights: Sequence[float], shares: list[float] | None) -> Tensor:
        """Sums weighted changes, block by block; flat, not scaled yet."""
        import torch

        flat = [change.reshape(-1) for change in changes]
        total, count = torch.empty_like(flat[0]), len(flat[0])
        divisor = _nonzero(sum(w * s for w, s in zip(weights, shares or [1.0] * len(weights), strict=True)))
        counts = torch.tensor(weights, dtype=torch.float64)[:, None]
        powers = None if shares is None else torch.tensor(shares, dtype=torch.float64)[:, None]
        stops = [*range(_BLOCK, count - _BLOCK + 1, _BLOCK), count]  # the last block takes the rest: never one entry
        for start, stop in zip([0, *stops], stops, strict=False):
            stacked = torch.stack([change[start:stop] for change in flat])
            agrees = stacked * torch.where(stacked.sum(0) < 0, -1.0, 1.0) > 0 if self.elect else None
            if powers is not None:
                stacked.mul_(powers)
            if agrees is not None:
                stacked.masked_fill_(~agrees, 0.0)
            torch.sum(stacked, 0, out=total[start:stop])
            if self.normalise and agrees is not None:
                weighed = (agrees * (counts if powers is None else counts * powers)).sum(0)
                total[start:stop].div_(weighed.masked_fill_(weighed == 0, 1.0))
            elif self.normalise:
                total[start:stop].div_(divisor)
        return total


_NOTHING = 1e-8
"""Weights whose sum lies below this divide nothing."""


def _nonzero(divisor: float) -> float:
    return 1.0 if abs(divisor) < _NOTHING else divisor


def _energies(changes: list[Tensor]) -> list[float]:
    """The share that each model has of all squared changes; equal ones where nothing changed."""
    squares = [float(change.square().mean()) for change in changes]
    total = sum(squares)
    return [square / total if total > 0 else 1.0 / len(squares) for square in squares]
