"""TIES-Merging: trim small changes, elect a sign, average what agrees with it (Yadav et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import Amount, Numbers, amount_of, at
from merging.mixing.weighing import HELP
from merging.moved import by_position
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

if TYPE_CHECKING:
    pass


@strategies.register("ties")
@by_position
@dataclass(frozen=True, kw_only=True)
class Ties(MixStrategy):
    """TIES: θ_0 + λ · disjoint mean of the task vectors, trimmed, over the entries whose sign is the elected one.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "TIES"
    summary: ClassVar[str] = "trim small changes, elect a sign, average what agrees"
    paper: ClassVar[str] = "Yadav et al. 2023, Algorithm 1, https://arxiv.org/abs/2306.01708"
    formula: ClassVar[str] = (
        "τ̂_i = the k largest entries of τ_i = θ_i − θ_0 by magnitude; s = sign(Σ_i w_i τ̂_i); "
        "θ = θ_0 + λ · mean of the τ̂_i ≠ 0 whose sign is s, weighted by w_i (1 where none is given)"
    )
    limits: ClassVar[str] = (
        "Made for models of different tasks, whose changes conflict; models of one task agree, and trimming then "
        "loses more than it mends. Reads every model twice more to find the magnitude to trim at (scope model). "
        "Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"

    density: Varying = varying_option(
        0.2, "share of a task vector's entries that is kept", low=0.0, high=1.0, by="models"
    )
    scale: Varying = varying_option(1.0, "λ", low=0.0, high=4.0, by="components")
    scope: str = option(
        "model",
        "the largest entries of the whole model (of each component, where density is by component), or of each tensor",
        choices=("model", "tensor"),
    )

    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}", later=True)
    normalize: bool = option(True, "the mean of what agrees, by weight, instead of its sum", later=True)
    rescale: str = option(
        "none", "give each tensor's change the sum of magnitudes that it had", choices=("none", "l1"), later=True
    )

    rounding: str = option(
        "nearest",
        "the number of entries that density is: the nearest, or the one below, but one at least",
        choices=("nearest", "down"),
        later=True,
    )

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        from merging.mixing.thinning import Largest

        density = amount_of(self, "density", problem)
        return TaskVectors(
            thin=Largest(
                density,
                self._cuts(problem, density) if self.scope == "model" else None,
                down=self.rounding == "down",
            ),
            l1=self.rescale == "l1",
            elect=True,
            normalise=self.normalize,
            weights=self.weights,
            scale=amount_of(self, "scale", problem),
        ).merge(problem, self)

    def _cuts(self, problem: Problem, density: Amount) -> Numbers:
        """For each model, the magnitude of the smallest change that is kept, over all its averaged tensors.

        Where density is said by component, over those of each component: so many of its own entries stay.
        """
        from merging.mixing.thinning import cut_over

        pool, parts = problem.pool, problem.partition.components
        columns = {name: column for column, part in enumerate(parts) for name in part.tensors}
        apart = isinstance(density, Numbers) and density.by_component
        groups = [sorted(pool.mixable & set(part.tensors)) for part in parts] if apart else [sorted(pool.mixable)]
        table = np.zeros((len(pool), len(parts)))
        problem.progress.stage("measuring the task vectors", len(pool))

        for row, checkpoint in enumerate(pool.checkpoints):
            for column, names in enumerate(groups):
                if names:
                    share, down = at(density, row, names[0]), self.rounding == "down"
                    found = cut_over(pool, checkpoint, names, share, down=down)
                    table[row, column if apart else slice(None)] = found
            problem.progress.advance()
        return Numbers(table, columns)
