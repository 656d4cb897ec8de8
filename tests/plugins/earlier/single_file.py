"""A strategy in one file: ``merge run --plugin examples/single_file.py --strategy softmax-soup``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import merging
from merging.plugins.registry import strategies


@strategies.register("softmax-soup")
@dataclass(frozen=True)
class SoftmaxSoup(merging.MixStrategy):
    """A weighted average in which better models count more; nothing is searched."""

    label: ClassVar[str] = "softmax soup"
    summary: ClassVar[str] = "the average weighted by softmax of held-out scores"
    formula: ClassVar[str] = "θ = Σ_i w_i · θ_i, w = softmax(score / temperature)"
    limits: ClassVar[str] = (
        "One evaluation a model. At a high temperature it is the uniform soup, at a low one the best."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})

    temperature: float = merging.option(0.01, "scores are divided by it; in units of the score", low=1e-6)

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """Scores every model once."""
        ranking = problem.rank()
        scores = np.array([outcome.score for _, outcome in ranking]) / self.temperature
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        ingredients = tuple(problem.pool.ingredients[index] for index, _ in ranking)
        table = np.repeat(weights[:, None], len(problem.partition), axis=1)
        problem.decide(models=len(ingredients), largest_weight=float(weights.max()))
        return merging.Recipe(ingredients, problem.partition, table)
