"""Output ensembles: the models' outputs averaged instead of their weights. No single model: inference costs all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Ensemble


@strategies.register("ensemble")
@dataclass(frozen=True)
class OutputEnsemble(MixStrategy):
    """All models of the pool, their logits or probabilities averaged with equal weights."""

    label: ClassVar[str] = "ensemble"
    summary: ClassVar[str] = "the mean of all models' outputs; inference costs n passes"
    paper: ClassVar[str] = "the ensemble baseline of Wortsman et al. 2022, §3.1, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "f(x) = (1/n) Σ_i f(x; θ_i), of logits; or of softmax(f(x; θ_i))"
    limits: ClassVar[str] = (
        "Every prediction costs n forward passes. What merging is measured against: a soup is one model, and to first "
        "order the ensemble of its ingredients. Costs one evaluation per model."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model"})
    gives: ClassVar[str] = "ensemble"

    average: str = option("logits", "what is averaged", choices=("logits", "probabilities"))

    def requires(self) -> frozenset[str]:
        """Requires classes too where probabilities are averaged."""
        return super().requires() | ({"classes"} if self.average == "probabilities" else set())

    def mix(self, problem: Problem) -> Ensemble:
        """Makes an ensemble of every model, each with weight 1."""
        members = tuple(problem.single(index) for index in range(len(problem.pool)))
        return Ensemble(members, (1.0,) * len(members), cast("Literal['logits', 'probabilities']", self.average))
