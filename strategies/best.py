"""The best single model: what one has without merging, and the row every merge is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe


@strategies.register("best")
@dataclass(frozen=True)
class Best(MixStrategy):
    """Picks the model with the highest held-out score; ties go to the earlier one in the pool."""

    label: ClassVar[str] = "best single model"
    summary: ClassVar[str] = "the best single model by held-out score"
    paper: ClassVar[str] = "the single-model baseline of Wortsman et al. 2022, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "θ = θ_i with i = argmax_i score(θ_i)"
    limits: ClassVar[str] = (
        "Costs one evaluation per model. The winner's held-out score is the largest of many and therefore optimistic; "
        "the test sets say what it is worth."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        """Scores every model, one evaluation each, and takes the best."""
        index, outcome = problem.rank()[0]
        recipe = problem.single(index)
        problem.keep(recipe, outcome)
        return recipe
