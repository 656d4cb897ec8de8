"""WiSE-FT: what was fine-tuned, interpolated with what it was fine-tuned from (Wortsman et al. 2022b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.mixing.varying import Amount, amount_of, at
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("wise-ft")
@dataclass(frozen=True)
class WiseFt(MixStrategy):
    """Interpolates from the base to any strategy's merge of the pool, over all tensors: θ = (1 − α)·θ_0 + α·θ_1.

    Without an α a sweep over [0, 1] is scored on the held-out data, reported, and its best point taken (of equals the
    one nearest to the base). The paper selects none and shows the whole line.
    """

    label: ClassVar[str] = "WiSE-FT"
    summary: ClassVar[str] = "a merge interpolated with the model that was fine-tuned"
    paper: ClassVar[str] = "Wortsman et al. 2022b, https://arxiv.org/abs/2109.01903"
    formula: ClassVar[str] = "θ = (1 − α) · θ_0 + α · θ_1; θ_0 the base, θ_1 the merge of the strategy 'inner'"
    limits: ClassVar[str] = (
        "Base and models must share their head: use the linear-probe initialisation as base where the head was "
        "trained anew. Helps under shift, and costs accuracy at home for small α; held-out data of the source alone "
        "does not show what a smaller α brings. Costs what the inner strategy costs, and a sweep an evaluation a step."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    ranks: ClassVar[bool] = False

    alpha: Varying | None = varying_option(
        0.5, "α, the share of the merge; none: sweep", low=0.0, high=1.0, by="components"
    )
    steps: int = option(10, "a sweep scores α = 0, 1/steps, …, 1", low=1)
    inner: MixStrategy | None = option(None, "the strategy whose merge it is; none: the uniform average")

    def requires(self) -> frozenset[str]:
        """Requires a model and an objective too where a sweep over α is scored."""
        return super().requires() | (frozenset() if self.alpha is not None else {"model", "objective"})

    def mix(self, problem: Problem) -> Recipe | Weights:
        """Makes the inner merge first, then goes along the line from the base to it."""
        from merging.mixing.edits import inner_merge

        tuned = inner_merge(self, self.inner, problem)
        if self.alpha is not None:
            return self._point(problem, tuned, amount_of(self, "alpha", problem))
        problem.progress.stage("sweep from the base", self.steps + 1)
        best: tuple[float, Recipe | Weights] | None = None
        for step in range(self.steps + 1):
            merged = self._point(problem, tuned, step / self.steps)
            outcome = problem.evaluate(merged)
            if best is None or outcome.score > best[0]:
                best = (outcome.score, merged)
            problem.decide(alpha=step / self.steps, score=outcome.score)
            if isinstance(merged, Recipe):
                problem.keep(merged, outcome)
            problem.progress.advance()
        return tuned if best is None else best[1]

    def _point(self, problem: Problem, tuned: Recipe | Weights, alpha: Amount) -> Recipe | Weights:
        if isinstance(tuned, Recipe):
            shares = [at(alpha, 0, component.tensors[0]) for component in tuned.partition.components]
            return tuned.lerp(Recipe.single(problem.pool.base_ingredient, tuned.partition), np.array(shares))

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            del models
            if base is None:
                raise RuntimeError("the core gives a base where one is needed")
            return base.lerp(tuned.tensors[name].double(), at(alpha, 0, name))

        return problem.weights(self, combine)
