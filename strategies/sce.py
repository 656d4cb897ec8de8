"""SCE: keep the changes in which models differ most, weigh models by what is left, elect a sign (Wan et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import amount_of
from merging.plugins.options import varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights


@strategies.register("sce")
@dataclass(frozen=True)
class Sce(MixStrategy):
    """SCE (select, calculate, erase): the places of highest variance, models weighed by their squared changes there.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "SCE"
    summary: ClassVar[str] = "keep changes that differ most between models, weigh models by them, elect a sign"
    paper: ClassVar[str] = "Wan et al. 2024 (FuseChat), §3.3, https://arxiv.org/abs/2408.07990"
    formula: ClassVar[str] = (
        "per tensor: τ̂_i = θ_i − θ_0 at the places of largest variance over models, else 0; η_i = |τ̂_i|² / Σ_j |τ̂_j|²; "
        "s = sign(Σ_i τ̂_i); θ = θ_0 + λ · Σ η_i τ̂_i / Σ η_i over the models whose sign is s"
    )
    limits: ClassVar[str] = (
        "Made for language models of different sources. What all models agree on is the first to go: models of one "
        "task lose what they share. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    density: Varying = varying_option(
        0.1, "share of the places that differ that is kept, in each tensor", low=0.0, high=1.0, by="components"
    )
    scale: Varying = varying_option(1.0, "λ", low=-4.0, high=4.0, by="components")

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        from merging.mixing.thinning import MostVaried

        thin, scale = MostVaried(amount_of(self, "density", problem)), amount_of(self, "scale", problem)
        return TaskVectors(thin=thin, elect=True, energies=True, normalise=True, scale=scale).merge(problem, self)
