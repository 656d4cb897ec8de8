"""Task arithmetic: the base plus the scaled sum of what fine-tuning changed (Ilharco et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import amount_of
from merging.mixing.weighing import HELP
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Recipe


@strategies.register("task-arithmetic")
@dataclass(frozen=True)
class TaskArithmetic(MixStrategy):
    """Adds the scaled sum of all task vectors to the base: θ = θ_0 + λ Σ_i (θ_i − θ_0).

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "task arithmetic"
    summary: ClassVar[str] = "the base plus the scaled sum of all task vectors"
    paper: ClassVar[str] = "Ilharco et al. 2023, §2, https://arxiv.org/abs/2212.04089"
    formula: ClassVar[str] = "θ = θ_0 + λ · Σ_i w_i (θ_i − θ_0); with normalize, w_i / Σ_j w_j"
    limits: ClassVar[str] = (
        "The paper adds models of different tasks and chooses λ (0.3 to 0.5) on held-out data. For models of one task "
        "λ = 1/n is the uniform soup, and a smaller λ draws it towards the base. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    scale: Varying | None = varying_option(None, "λ; none: 1/n, the uniform soup", low=-2.0, high=2.0, by="components")
    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}", later=True)
    normalize: bool = option(False, "divide by the weights' sum, in every component", later=True)

    def default_number(self, option: str, problem: Problem) -> float | None:
        """1/n for λ, which makes the uniform soup."""
        return 1.0 / len(problem.pool) if option == "scale" else None

    def mix(self, problem: Problem) -> Recipe:
        """A recipe with the base as its last row."""
        scale = amount_of(self, "scale", problem)
        return TaskVectors(scale=scale, weights=self.weights, normalise=self.normalize).recipe(problem)
