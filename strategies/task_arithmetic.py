"""Task arithmetic: the base plus the scaled sum of what fine-tuning changed (Ilharco et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe


@strategies.register("task-arithmetic")
@dataclass(frozen=True)
class TaskArithmetic(MixStrategy):
    """Adds the scaled sum of all task vectors to the base: θ = θ_0 + λ Σ_i (θ_i − θ_0).

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "task arithmetic"
    summary: ClassVar[str] = "the base plus the scaled sum of all task vectors"
    paper: ClassVar[str] = "Ilharco et al. 2023, §2, https://arxiv.org/abs/2212.04089"
    formula: ClassVar[str] = "θ = θ_0 + λ · Σ_i (θ_i − θ_0)"
    limits: ClassVar[str] = (
        "The paper adds models of different tasks and chooses λ (0.3 to 0.5) on held-out data. For models of one task "
        "λ = 1/n is the uniform soup, and a smaller λ draws it towards the base. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    scale: float | None = option(None, "λ; none: 1/n, the uniform soup", low=-2.0, high=2.0)

    def mix(self, problem: Problem) -> Recipe:
        """A recipe with the base as its last row."""
        count = len(problem.pool)
        scale = 1.0 / count if self.scale is None else self.scale
        rows = (*problem.pool.ingredients, problem.pool.base_ingredient)
        column = np.array([scale] * count + [1.0 - scale * count])
        return Recipe.weighted(rows, problem.partition, np.repeat(column[:, None], len(problem.partition), axis=1))
