"""Multi-SLERP: the weighted mean of directions, at the weighted mean of lengths (Goddard 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.errors import OptionError
from merging.mixing.angles import by_angles, mean_direction
from merging.mixing.weighing import HELP, weights_of
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from merging.mixing.sides import Doubles


@strategies.register("multislerp")
@dataclass(frozen=True)
class MultiSlerp(MixStrategy):
    """Averages each tensor's directions with weights, and its lengths; of models, or of their changes from the base."""

    label: ClassVar[str] = "multi-slerp"
    summary: ClassVar[str] = "the weighted mean of directions, tensor by tensor, at the weighted mean of lengths"
    paper: ClassVar[str] = "Goddard 2025, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea"
    formula: ClassVar[str] = (
        "d = Σ_i w_i · θ_i/|θ_i|, θ = (Σ_i w_i |θ_i|) · d/|d|, w_i divided by their sum with normalize; with of = "
        "changes, θ_i − θ_0 in place of θ_i, and θ_0 added"
    )
    limits: ClassVar[str] = (
        "The source goes on to interpolate in the tangent space at d; there the weighted tangents sum to zero, so that "
        "this step changes nothing and is not made. 'karcher' finds the point that has the smallest "
        "angles. Where the directions cancel, the weighted sum. Costs no evaluation."
    )
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}")
    normalize: bool = option(True, "divide the weights by their sum, in every component")
    of: str = option(
        "models",
        "whose directions: the models', or those of their changes from the base",
        choices=("models", "changes"),
    )

    def requires(self) -> frozenset[str]:
        """The base, where changes are averaged."""
        return super().requires() | ({"base"} if self.of == "changes" else set())

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        parts = problem.partition.names
        table = weights_of(self.weights, problem.pool.names, parts, 1.0)
        sums = table.sum(axis=0)
        if self.normalize and (sums == 0).any():
            lost = parts[int(np.argmin(abs(sums)))]
            raise OptionError(f"the weights of component '{lost}' add up to 0; use normalize=false for that")
        table = table / sums if self.normalize else table
        columns = {name: c for c, part in enumerate(problem.partition.components) for name in part.tensors}

        of_changes = self.of == "changes"

        def factors(name: str, products: Doubles) -> list[float]:
            return mean_direction(products, table[:, columns[name]].tolist())

        return problem.weights(self, by_angles(factors, of_changes=of_changes), base=of_changes)
