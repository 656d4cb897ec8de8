"""LiNeS: the change of a merge from the base, scaled by depth (Wang et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.mixing.varying import number_of
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

_STATISTICS = ("running_mean", "running_var")
"""BatchNorm's: no weights, and large beside them, so that they would decide every norm."""


@strategies.register("lines")
@dataclass(frozen=True)
class Lines(MixStrategy):
    """Keeps the first layers of a merge near the base, the last ones as they are: a factor that grows with depth.

    θ = θ_0 + (α + β · b / (L − 1)) · (θ_1 − θ_0), with b = 0 … L − 1 the block of a tensor: 0 the stem, L − 1 the head.
    It needs the base and no data, and evaluates nothing itself.
    """

    label: ClassVar[str] = "LiNeS"
    summary: ClassVar[str] = "a merge's change from the base, scaled by depth: early layers stay near the base"
    paper: ClassVar[str] = "Wang et al. 2025, https://arxiv.org/abs/2410.17146"
    formula: ClassVar[str] = (
        "θ = θ_0 + (α + β · b / (L − 1)) · (θ_1 − θ_0); b the block of a tensor, of L; θ_0 the base, θ_1 the merge of "
        "the strategy 'inner'; without an α: α = ‖θ_1 − θ_0‖ / mean_i ‖θ_i − θ_0‖, at most 1"
    )
    limits: ClassVar[str] = (
        "Blocks are those of the partitioner 'block': by the model's own order where there is a task, else by tensor "
        "names; where nothing is repeated, every layer is one. The published code knows residual blocks only and gives "
        "α to all else, head included. Of one model, of models that agree, and of a merge whose change is as long as "
        "theirs (affine coefficients), the rule finds α near 1, which changes little: give alpha. Costs what the inner "
        "strategy costs; the rule reads every model once more."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    ranks: ClassVar[bool] = False

    alpha: Varying | None = varying_option(
        None, "α, the factor of the first block; none: by the norms", low=0.0, high=4.0, by="whole"
    )
    beta: Varying | None = varying_option(
        None, "β, what the last block's factor has more; none: 1 − α", low=-4.0, high=4.0, by="whole"
    )
    inner: MixStrategy | None = option(None, "the strategy whose merge it is; none: the uniform average")

    def default_number(self, option: str, problem: Problem) -> float | None:
        """The merge as it is, from where α and β are searched for."""
        return {"alpha": 1.0, "beta": 0.0}.get(option)

    def mix(self, problem: Problem) -> Recipe | Weights:
        """Makes the inner merge first, then scales its change block by block."""
        from merging.mixing.edits import edited, inner_merge, scaled

        merged, pool = inner_merge(self, self.inner, problem), problem.pool
        parts = {name: part for part, names in problem.blocks.items() for name in names}
        alpha = self._rule(problem, merged) if self.alpha is None else number_of(self, "alpha", problem)
        beta = 1.0 - alpha if self.beta is None else number_of(self, "beta", problem)
        held = [part for part, names in problem.blocks.items() if pool.mixable & set(names)]
        # A model of one block is all head.
        depth = {part: place / (len(held) - 1) if len(held) > 1 else 1.0 for place, part in enumerate(held)}
        factors = {name: alpha + beta * depth.get(part, 1.0) for name, part in parts.items()}
        problem.decide(alpha=alpha, beta=beta, blocks=len(held))
        if isinstance(merged, Recipe):
            return scaled(merged, pool, factors, parts)

        def edit(name: str, change: Tensor, base: Tensor) -> Tensor:
            del base
            return change if factors[name] == 1.0 else change * factors[name]

        return edited(problem, self, merged, edit)

    def _rule(self, problem: Problem, merged: Recipe | Weights) -> float:
        """The norm of the merge's change as a share of the models' own: what averaging has taken from it."""
        from merging.mixing.edits import reader

        pool = problem.pool
        frozen = {name for component in problem.partition.components if component.frozen for name in component.tensors}
        repeated = {name for group in pool.ties for name in group[1:]}  # tied tensors are one
        counted = pool.mixable - frozen - repeated
        names = [n for n in pool.tensors if n in counted and n.rpartition(".")[2] not in _STATISTICS]
        problem.progress.stage("measuring the changes from the base", len(pool) + 1)

        def norm(read: Callable[[str], Tensor]) -> float:
            squares = [float((read(n).double() - pool.read(pool.base_ingredient, n).double()).norm()) for n in names]
            problem.progress.advance()
            return math.hypot(*squares)

        own = [norm(checkpoint.read) for checkpoint in pool.checkpoints]
        found, mean = norm(reader(merged, pool)), math.fsum(own) / len(own)
        return min(found / mean, 1.0) if 0.0 < mean < math.inf and math.isfinite(found) else 1.0
