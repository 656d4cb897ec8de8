"""Averages along great circles: slerp of two models (Shoemake 1985), the Karcher mean of more (Karcher 1977)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.mixing.angles import arc, by_angles, karcher_mean
from merging.mixing.spherical import karcher, slerp
from merging.mixing.varying import Amount, amount_of, at
from merging.moved import by_position
from merging.plugins.options import UNSET, option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.profiles import Profile
from merging.plugins.registry import strategies
from merging.plugins.searched import numbers_in
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from merging.mixing.sides import Doubles


@strategies.register("slerp")
@by_position
@dataclass(frozen=True, kw_only=True)
class Slerp(MixStrategy):
    """Averages each tensor as a direction and a length: directions on the sphere, lengths as numbers."""

    label: ClassVar[str] = "slerp"
    summary: ClassVar[str] = "directions averaged on the sphere, tensor by tensor"
    paper: ClassVar[str] = "Shoemake 1985, https://doi.org/10.1145/325165.325242; Karcher 1977 for more than two"
    formula: ClassVar[str] = (
        "two: u = (sin((1 − t)φ) · a/|a| + sin(tφ) · b/|b|) / sin φ, θ = ((1 − t)|a| + t|b|) · u; "
        "more: u = argmin Σ_i angle(u, θ_i/|θ_i|)², θ = mean |θ_i| · u"
    )
    limits: ClassVar[str] = (
        "Whole tensors are taken as vectors, which no theory asks for; models of one start are nearly parallel, and "
        "the result is close to the plain average with the models' own lengths. Averages of more than two take "
        "several passes over a tensor and hold it in all models at once. Costs no evaluation."
    )
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "karcher": Profile(
            label="Karcher mean",
            summary="the mean of directions on the sphere, tensor by tensor",
            paper="Karcher 1977, https://doi.org/10.1002/cpa.3160300502",
            formula="u = argmin Σ_i angle(u, θ_i/|θ_i|)², θ = mean |θ_i| · u",
            description="The mean of any number of models on the sphere: ``slerp`` without a place between two.",
            fixed=("t", "lengths", "straight"),
        )
    }

    t: Varying = varying_option(
        UNSET,
        "how far from the first of two models to the second",
        low=0.0,
        high=1.0,
        by="components",
        profiles={"slerp": 0.5, "karcher": 0.5},
    )
    steps: int = option(50, "iterations of the Karcher mean of more than two at the most", low=1)
    lengths: str = option(
        UNSET,
        "of two models: interpolated apart from the directions, or the arc's factors on the tensors as they are",
        choices=("mean", "own"),
        profiles={"slerp": "mean", "karcher": "mean"},
        later=True,
    )
    straight: float = option(
        UNSET,
        "of two models: the magnitude of their cosine above which the way is a straight line",
        low=0.0,
        high=1.0,
        profiles={"slerp": 1.0, "karcher": 1.0},
        later=True,
    )
    tolerance: float = option(
        1e-12, "angle in radians below which the iteration for more than two ends", low=0.0, later=True
    )
    profile: str = option("slerp", "the name it goes by", choices=("slerp", "karcher"), later=True)

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        if len(problem.pool) > 2 and {*numbers_in(self, "t")} != {0.5}:
            raise OptionError(
                f"option 't' of 'slerp' is for two models, not {len(problem.pool)}; leave it out for their mean"
            )
        t = amount_of(self, "t", problem)
        if self.profile == "karcher" or self.lengths == "own":  # the others keep the bits that they have always had
            return problem.weights(self, by_angles(partial(self._factors, t)), base=False)

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            del base
            if len(models) == 2:
                return slerp(models[0], models[1], at(t, 0, name), lengths=self.lengths, straight=self.straight)
            return karcher(models, self.steps, self.tolerance)

        return problem.weights(self, combine, base=False)

    def _factors(self, t: Amount, name: str, products: Doubles) -> list[float]:
        if len(products) == 2:
            return arc(products, at(t, 0, name), lengths=self.lengths, straight=self.straight)
        return karcher_mean(products, self.steps, self.tolerance)
