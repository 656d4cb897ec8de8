"""Fisher-weighted averaging: every entry weighted by how much each model's likelihood depends on it."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.moved import by_position
from merging.plugins.optimizer import Vector
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Weights
from merging.values.sums import in_order

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("fisher")
@by_position
@dataclass(frozen=True, kw_only=True)
class Fisher(MixStrategy):
    """Averages entries by each model's diagonal Fisher information F_i: θ_j = Σ_i c_i F_ij θ_ij / Σ_i c_i F_ij.

    Labels are drawn from the model's own predictions, one a sample, as the Fisher information asks; ``labels=true``
    takes the data's, which is the empirical Fisher, another thing. Tensors without a Fisher information (buffers) are
    averaged with the coefficients alone.
    """

    label: ClassVar[str] = "Fisher-weighted average"
    summary: ClassVar[str] = "entries weighted by each model's diagonal Fisher information"
    paper: ClassVar[str] = "Matena & Raffel 2022, §3, https://arxiv.org/abs/2111.09832"
    formula: ClassVar[str] = (
        "θ_j = Σ_i c_i F_ij θ_ij / Σ_i c_i F_ij; F_i = mean over x of (∂ log p(y|x; θ_i) / ∂θ)², y ~ p(·|x; θ_i)"
    )
    limits: ClassVar[str] = (
        "Memory for one Fisher per model, in float32. The uniform soup is the case of equal F; models of one task "
        "have similar ones. Where F is below the floor the coefficients alone decide. Costs 4 forward passes a sample "
        "and model; a coefficient search one evaluation a draw, and its gain is as lucky as any selection's."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "per_sample_gradients", "classes"})
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"
    ranks: ClassVar[bool] = False

    samples: int = option(4096, "samples per model (at most the data's)", low=1)
    data: str = option(
        "auto", "which data: training where it is there, else held-out", choices=("auto", "held-out", "train")
    )
    labels: str = option(
        "sampled", "from the model's predictions, or the data's (empirical)", choices=("sampled", "true")
    )
    floor: float = option(1e-6, "smallest F, so that entries no sample touches are averaged", low=0.0)
    normalize: bool = option(True, "divide each model's coefficient by the norm of its F")
    draws: int = option(0, "coefficients to try on held-out data: a grid for two models, Dirichlet(1) for more", low=0)

    def requires(self) -> frozenset[str]:
        """Requires an objective where coefficients are searched for, and training data where they are asked for."""
        more = {"objective"} if self.draws else set()
        return super().requires() | more | ({"train"} if self.data == "train" else set())

    def mix(self, problem: Problem) -> Weights:
        """Makes one pass of per-sample gradients a model, then the weighted mean, tensor by tensor."""
        count = len(problem.pool)
        problem.progress.stage("measuring Fisher information", count)
        split = self.data if self.data != "auto" else "train" if "train" in problem.scores.splits else "held-out"
        measured: list[dict[str, Tensor]] = []
        for index in range(count):
            found = problem.slopes.squared_gradients(
                problem.single(index), split, self.samples, sampled=self.labels == "sampled"
            )
            measured.append({name: tensor.float() for name, tensor in found.items()})
            problem.progress.advance()
        norms = np.array([in_order(float(t.double().square().sum()) for t in f.values()) ** 0.5 for f in measured])
        usual = 1.0 / np.maximum(norms, 1e-30) if self.normalize else np.ones(count)
        best = self._merge(problem, measured, usual / usual.sum())
        if not self.draws:
            return best
        score = problem.evaluate(best).score
        problem.progress.stage("searching coefficients", self.draws)
        for drawn in self._candidates(problem, count):
            merged = self._merge(problem, measured, usual * drawn)
            outcome = problem.evaluate(merged)
            problem.decide(coefficients=[float(c) for c in drawn], score=outcome.score, accepted=outcome.score > score)
            if outcome.score > score:
                best, score = merged, outcome.score
            problem.progress.advance()
        return best

    def _candidates(self, problem: Problem, count: int) -> list[Vector]:
        if count == 2:
            return [np.array([1.0 - share, share]) for share in np.linspace(0.0, 1.0, self.draws)]
        return [problem.generator.dirichlet(np.ones(count)) for _ in range(self.draws)]

    def _merge(self, problem: Problem, measured: list[dict[str, Tensor]], coefficients: Vector) -> Weights:
        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            del base
            own = [
                c * (f[name].double().clamp(min=self.floor) if name in f else 1.0)
                for c, f in zip(coefficients, measured, strict=True)
            ]
            # A weighted mean as steps from the first model: equal models give their very bits back.
            total = functools.reduce(operator.add, own)  # in order, on every Python: see in_order
            merged = models[0].clone()
            for model, weight in zip(models[1:], own[1:], strict=True):
                merged += (weight / total) * (model - models[0])
            return merged

        return problem.weights(self, combine, base=False)
