"""MonoSoup: strong and weak directions of a merge's change from the base, weighed (Abdollahpoorrostam et al. 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.mixing.varying import number_of
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("monosoup")
@dataclass(frozen=True)
class MonoSoup(MixStrategy):
    """Weighs the strong and the weak directions of what a merge changed in each weight matrix: Δ = θ_1 − θ_0 = U S Vᵀ.

    It needs the base and no data, and evaluates nothing itself. `shrink` with the same options scales each matrix by
    the one number that gives its change the same norm: compare with it before anything is said of directions.
    """

    label: ClassVar[str] = "MonoSoup"
    summary: ClassVar[str] = "strong and weak directions of a merge's change from the base, weighed matrix by matrix"
    paper: ClassVar[str] = "Abdollahpoorrostam et al. 2026, https://arxiv.org/abs/2602.09689"
    formula: ClassVar[str] = (
        "per matrix: θ = θ_0 + λ_high · Δ_k + λ_low · (Δ − Δ_k), Δ_k the k strongest directions, P their energy; "
        "ρ = (s_{k+1} / s_1)², λ_low = ρ + (1 − ρ) · √(1 − P), λ_high = 1 − λ_low; Δ = θ_1 − θ_0, θ_1 the merge of the "
        "strategy 'inner'"
    )
    limits: ClassVar[str] = (
        "Every changed matrix comes out shorter, so part of what it does is plain shrinking: 'shrink' with the same "
        "options is the control, to be reported beside it. Convolutions are matrices of out × (in · height · width); "
        "vectors, numbers and matrices all of whose directions are strong keep their change. Not linear: no recipe. "
        "Costs what the inner strategy costs, and a singular value decomposition in float64 on one core for every "
        "matrix (768 × 3072: one or two seconds)."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"
    control: ClassVar[str] = "shrink"
    ranks: ClassVar[bool] = False

    rank: str = option(
        "energy", "k: enough directions for 'energy', or the effective rank", choices=("energy", "effective")
    )
    energy: Varying = varying_option(
        0.8, "R, the share of Σ s² that the strong directions have at least", low=0.0, high=1.0, by="whole"
    )
    smallest: float = option(1e-6, "a matrix that changed by less, ‖Δ‖ / ‖θ_0‖, keeps its change", low=0.0, high=1.0)
    inner: MixStrategy | None = option(None, "the strategy whose merge it is; none: the uniform average")

    def mix(self, problem: Problem) -> Weights:
        """Makes the inner merge first, then weighs the directions of each matrix."""
        from merging.mixing.edits import edited, inner_merge
        from merging.mixing.spectrum import Tempering

        tempering = Tempering(self.rank, number_of(self, "energy", problem), self.smallest)

        def edit(name: str, change: Tensor, base: Tensor) -> Tensor:
            del name
            return tempering.edited(change, base)

        return edited(problem, self, inner_merge(self, self.inner, problem), edit)
