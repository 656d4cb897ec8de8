"""Model Breadcrumbs: neither the largest nor the smallest of what fine-tuning changed (Davari and Belilovsky 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import amount_of
from merging.mixing.weighing import HELP
from merging.plugins.options import UNSET, option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.profiles import Profile
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

_PAPER = "Davari and Belilovsky 2024, https://arxiv.org/abs/2312.06795"


@strategies.register("breadcrumbs")
@dataclass(frozen=True, kw_only=True)
class Breadcrumbs(MixStrategy):
    """Model Breadcrumbs: θ_0 + λ · merge of task vectors without their outliers and without their small entries.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "Model Breadcrumbs"
    summary: ClassVar[str] = "drop the largest and the smallest changes of each tensor, then add or elect signs"
    paper: ClassVar[str] = _PAPER
    formula: ClassVar[str] = (
        "τ̂_i = the entries of θ_i − θ_0 that are left, tensor by tensor, once the share γ of the largest by magnitude "
        "and then the smallest are dropped, so that density stays; θ = θ_0 + λ · Σ_i w_i τ̂_i (linear), or with TIES' "
        "sign election (ties); w_i = 1 where none is given"
    )
    limits: ClassVar[str] = (
        "Made for many models of different tasks, so that λ need not be chosen again as models are added. The paper's "
        "γ and β are percentiles of magnitude; here the shares that go and stay are given, as merging tools have it. "
        "Of models of one task it drops what they agree on most. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"
    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "breadcrumbs-ties": Profile(
            label="Breadcrumbs-TIES",
            summary="drop the largest and the smallest changes of each tensor, elect a sign, add what agrees",
            paper=f"{_PAPER}; signs: Yadav et al. 2023, https://arxiv.org/abs/2306.01708",
            description="Model Breadcrumbs with TIES' election: ``breadcrumbs`` whose method nobody may set otherwise.",
            fixed=("method",),
        )
    }

    density: Varying = varying_option(
        0.9, "share of a tensor's changes that is kept; 1: all, outliers too", low=0.0, high=1.0, by="models"
    )
    gamma: Varying = varying_option(0.01, "γ, share of the largest that is dropped", low=0.0, high=1.0, by="models")
    method: str = option(
        UNSET,
        "how the rest is merged",
        choices=("linear", "ties"),
        profiles={"breadcrumbs": "linear", "breadcrumbs-ties": "ties"},
    )
    scale: Varying | None = varying_option(
        None, "λ; none: 1/n for linear without normalize, else 1", low=-4.0, high=4.0, by="components"
    )
    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}")
    normalize: bool | None = option(None, "divide by the weights of what counts; none: no for linear, yes for ties")
    rescale: str = option("none", "give each tensor's change the sum of magnitudes that it had", choices=("none", "l1"))
    profile: str = option("breadcrumbs", "the name it goes by", choices=("breadcrumbs", "breadcrumbs-ties"))

    def default_number(self, option: str, problem: Problem) -> float | None:
        """1/n for λ of a plain sum, else 1."""
        return (
            None if option != "scale" else 1.0 if self.method == "ties" or self._normalises else 1.0 / len(problem.pool)
        )

    @property
    def _normalises(self) -> bool:
        return self.method == "ties" if self.normalize is None else self.normalize

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        from merging.mixing.thinning import Band

        elect = self.method == "ties"
        return TaskVectors(
            thin=Band(amount_of(self, "density", problem), amount_of(self, "gamma", problem)),
            l1=self.rescale == "l1",
            elect=elect,
            normalise=self._normalises,
            weights=self.weights,
            scale=amount_of(self, "scale", problem),
        ).merge(problem, self)
