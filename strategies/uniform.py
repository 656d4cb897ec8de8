"""The uniform soup: the plain average of all models (Wortsman et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe


@strategies.register("uniform")
@dataclass(frozen=True)
class Uniform(MixStrategy):
    """The uniform soup, the average of all models: θ = (1/n) Σ θ_i. Needs no data; evaluates nothing."""

    label: ClassVar[str] = "uniform soup"
    summary: ClassVar[str] = "the average of all models"
    paper: ClassVar[str] = "Wortsman et al. 2022, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "θ = (1/n) · Σ_i θ_i"
    limits: ClassVar[str] = (
        "For models fine-tuned from one and the same start: one bad or unrelated model spoils the average, because "
        "nothing is scored and nothing left out. Costs no evaluation."
    )
    min_models: ClassVar[int] = 2

    def mix(self, problem: Problem) -> Recipe:
        """Makes the recipe of the mean over the pool."""
        return problem.mean(range(len(problem.pool)))
