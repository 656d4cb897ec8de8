"""DARE: drop most of what fine-tuning changed at random, rescale the rest, then merge (Yu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import amount_of
from merging.mixing.weighing import HELP
from merging.moved import by_position
from merging.plugins.options import UNSET, option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.profiles import Profile
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

_TIES = "; signs are elected and agreeing entries averaged as in TIES: Yadav et al. 2023"


@strategies.register("dare")
@by_position
@dataclass(frozen=True, kw_only=True)
class Dare(MixStrategy):
    """DARE: θ_0 + λ · merge of task vectors, their entries dropped at random and the rest rescaled.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "DARE"
    summary: ClassVar[str] = "drop changes at random, rescale the rest, then add or elect signs"
    paper: ClassVar[str] = "Yu et al. 2024, §3, https://arxiv.org/abs/2311.03099"
    formula: ClassVar[str] = (
        "τ̂_i = m_i ⊙ (θ_i − θ_0) / (1 − p), m_i ~ Bernoulli(1 − p) per entry; θ = θ_0 + λ · Σ_i w_i τ̂_i (linear), "
        "or with TIES' sign election and disjoint mean (ties); w_i = 1 where none is given"
    )
    limits: ClassVar[str] = (
        "Made for language models of different tasks, whose changes are small and redundant. Dropping is noise: for "
        "models of one task its expectation is the plain sum, and a soup gains nothing by it. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"
    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "dare-linear": Profile(
            label="DARE, linear",
            summary="drop changes at random, rescale the rest, add them",
            formula=("τ̂_i = m_i ⊙ (θ_i − θ_0) / (1 − p), m_i ~ Bernoulli(1 − p) per entry; θ = θ_0 + λ · Σ_i w_i τ̂_i"),
            description="DARE with a plain sum: ``dare`` whose method nobody may set otherwise.",
            fixed=("method",),
        ),
        "dare-ties": Profile(
            label="DARE-TIES",
            summary="drop changes at random, rescale the rest, elect a sign, average what agrees",
            paper=f"Yu et al. 2024, §3, https://arxiv.org/abs/2311.03099{_TIES}",
            formula=(
                "τ̂_i = m_i ⊙ (θ_i − θ_0) / (1 − p), m_i ~ Bernoulli(1 − p) per entry; s = sign(Σ_i w_i τ̂_i); "
                "θ = θ_0 + λ · mean of the τ̂_i ≠ 0 whose sign is s, weighted by w_i"
            ),
            description="DARE, merged as TIES merges: ``dare`` whose method nobody may set otherwise.",
            fixed=("method",),
        ),
    }

    drop: Varying = varying_option(0.5, "p, the share of entries that is dropped", low=0.0, high=0.999, by="models")
    method: str = option(
        UNSET,
        "how the rest is merged",
        choices=("linear", "ties"),
        profiles={"dare": "linear", "dare-linear": "linear", "dare-ties": "ties"},
    )
    scale: Varying | None = varying_option(
        None, "λ; none: 1/n for linear, 1 for ties", low=0.0, high=4.0, by="components"
    )
    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}", later=True)
    normalize: bool | None = option(
        None, "divide by the weights of what counts; none: no for linear, yes for ties", later=True
    )
    rescale: str = option(
        "probability",
        "divide what stays by 1 − p, or give each tensor's change the sum of magnitudes that it had, or neither",
        choices=("probability", "l1", "none"),
        later=True,
    )
    profile: str = option("dare", "the name it goes by", choices=("dare", "dare-linear", "dare-ties"), later=True)

    def default_number(self, option: str, problem: Problem) -> float | None:
        """1/n for λ of a sum, 1 for that of an election."""
        return None if option != "scale" else 1.0 if self.method == "ties" else 1.0 / len(problem.pool)

    def mix(self, problem: Problem) -> Weights:
        """The weights, computed tensor by tensor; what is dropped follows from the seed, model and tensor alone."""
        from merging.mixing.thinning import AtRandom

        elect = self.method == "ties"
        seed = int(problem.generator.integers(1 << 32))
        return TaskVectors(
            thin=AtRandom(amount_of(self, "drop", problem), seed, unbiased=self.rescale == "probability"),
            l1=self.rescale == "l1",
            elect=elect,
            normalise=elect if self.normalize is None else self.normalize,
            weights=self.weights,
            scale=amount_of(self, "scale", problem),
        ).merge(problem, self)
