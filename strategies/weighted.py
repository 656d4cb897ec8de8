"""A weighted average with given coefficients, for the whole model or component by component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from merging.errors import OptionError
from merging.mixing.weighing import HELP, weights_of
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe


@strategies.register("weighted")
@dataclass(frozen=True)
class Weighted(MixStrategy):
    """The average with weights that the user gives: θ_m = Σ_i w_im θ_i. Needs no data; evaluates nothing."""

    label: ClassVar[str] = "weighted average"
    summary: ClassVar[str] = "the average with given weights, also per component"
    paper: ClassVar[str] = "Wortsman et al. 2022 with weights other than 1/n, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "θ_m = Σ_i w_im · θ_i in every component m; with normalize, w_im / Σ_j w_jm"
    limits: ClassVar[str] = (
        "For models fine-tuned from one and the same start. The weights are the user's: nothing is scored. Negative "
        "ones extrapolate. Costs no evaluation."
    )
    example_options: ClassVar[Mapping[str, Any]] = {"weights": ("model_*=1", "model_0=2")}

    weights: tuple[str, ...] = option((), HELP)
    normalize: bool = option(True, "divide by their sum, in every component")

    def mix(self, problem: Problem) -> Recipe:
        """The recipe with these coefficients; models that are not named have weight 0."""
        models, components = problem.pool.names, problem.partition.names
        if not self.weights:
            raise OptionError(f"option 'weights' of 'weighted' is empty; write `strategy.weights={models[0]}=0.5` …")
        table = weights_of(self.weights, models, components, 0.0)
        sums = table.sum(axis=0)
        if self.normalize:
            if (sums == 0).any():
                lost = components[int(np.argmin(abs(sums)))]
                raise OptionError(f"the weights of component '{lost}' add up to 0; use normalize=false for that")
            table = table / sums
        return Recipe.weighted(problem.pool.ingredients, problem.partition, table)
