"""DARE: drop most of what fine-tuning changed at random, rescale the rest, then merge (Yu et al. 2024)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("dare")
@dataclass(frozen=True)
class Dare(MixStrategy):
    """DARE: θ_0 + λ · merge of task vectors, their entries dropped at random and the rest rescaled.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "DARE"
    summary: ClassVar[str] = "drop changes at random, rescale the rest, then add or elect signs"
    paper: ClassVar[str] = "Yu et al. 2024, §3, https://arxiv.org/abs/2311.03099"
    formula: ClassVar[str] = (
        "τ̂_i = m_i ⊙ (θ_i − θ_0) / (1 − p), m_i ~ Bernoulli(1 − p) per entry; θ = θ_0 + λ · Σ_i τ̂_i (linear), "
        "or with TIES' sign election and disjoint mean (ties)"
    )
    limits: ClassVar[str] = (
        "Made for language models of different tasks, whose changes are small and redundant. Dropping is noise: for "
        "models of one task its expectation is the plain sum, and a soup gains nothing by it. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"

    drop: float = option(0.5, "p, the share of entries that is dropped", low=0.0, high=0.999)
    method: str = option("linear", "how the rest is merged", choices=("linear", "ties"))
    scale: float | None = option(None, "λ; none: 1/n for linear, 1 for ties", low=0.0, high=4.0)

    def mix(self, problem: Problem) -> Weights:
        """The weights, computed tensor by tensor; what is dropped follows from the seed, model and tensor alone."""
        import torch

        from merging.mixing.arithmetic import elected_mean

        seed = int(problem.generator.integers(1 << 32))

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            if base is None:
                raise RuntimeError("the core gives a base where one is needed")
            changes = [self._thinned(model - base, seed, number, name) for number, model in enumerate(models)]
            scale = self.scale
            if self.method == "ties":
                return base + (1.0 if scale is None else scale) * elected_mean(changes)
            return base + (1.0 / len(models) if scale is None else scale) * torch.stack(changes).sum(0)

        return problem.weights(self, combine)

    def _thinned(self, change: Tensor, seed: int, model: int, name: str) -> Tensor:
        import torch

        generator = np.random.default_rng([seed, model, zlib.crc32(name.encode())])
        kept = torch.from_numpy(generator.random(change.numel(), dtype=np.float32) >= self.drop).view(change.shape)
        return torch.where(kept, change / (1.0 - self.drop), 0.0)
