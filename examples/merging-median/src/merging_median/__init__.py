"""The coordinate-wise median of a pool: one wild model moves an average, but not a median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

import merging
from merging.plugins.registry import strategies
from merging.storage.content import content_hash


@strategies.register("median")
@dataclass(frozen=True)
class Median(merging.MixStrategy):
    """Sorts the models' values of every weight, drops ``trim`` at both ends, and averages the rest.

    Not linear in the models, so it returns tensors (``merging.Weights``) instead of a recipe.
    """

    summary: ClassVar[str] = "coordinate-wise median or trimmed mean of all models"
    paper: ClassVar[str] = "Yin et al. 2018 (for gradients), https://arxiv.org/abs/1803.01498"
    formula: ClassVar[str] = "θ[k] = mean of the middle n − 2t of θ_1[k] … θ_n[k] in order, t = ⌊trim · n⌋"
    limits: ClassVar[str] = "Holds one tensor of every model in memory; scores nothing, so a bad pool stays bad."
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    trim: float = merging.option(0.5, "share of models dropped at each end; 0.5 is the median", low=0.0, high=0.5)

    def mix(self, problem: merging.Problem) -> merging.Weights:
        """One pass over the pool's files."""
        pool = problem.pool
        problem.progress.stage("sorting", len(pool.tensors))
        tensors = {}
        for name in pool.tensors:
            values = [pool.read(ingredient, name) for ingredient in pool.ingredients]
            tensors[name] = self._middle(torch.stack(values)) if name in pool.mixable else values[0].clone()
            problem.progress.advance()
        return merging.Weights(
            tensors=tensors,
            ingredients=pool.ingredients,
            strategy=self.name,
            options=self.options(),
            hash=content_hash(tensors),
        )

    def _middle(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of the middle values, along the first dimension (models)."""
        n = len(values)
        drop = min(int(self.trim * n), (n - 1) // 2)
        ordered = values.double().sort(dim=0).values
        return ordered[drop : n - drop].mean(dim=0).to(values.dtype)
