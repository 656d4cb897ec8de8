"""Every model on its own, step by step: the pools of model soups (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.training.regime import Regime, regimes

if TYPE_CHECKING:
    from merging.training.trainer import Run


@regimes.register("independent")
@dataclass(frozen=True)
class Independent(Regime):
    """Plain fine-tuning, each model with its own hyper-parameters and seed, from the same pretrained weights."""

    summary: ClassVar[str] = "each model trained on its own"
    paper: ClassVar[str] = "Wortsman et al. 2022, Appendix J, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "θ ← optimizer(θ, ∇L(θ; batch)) for every batch"
    limits: ClassVar[str] = (
        "Models mix as far as they have stayed in one basin: hyper-parameters that differ much (learning rates by more "
        "than a factor of a few) end apart, see merge inspect."
    )

    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        """Makes one step after the other until the run is finished."""
        (run,) = runs
        while not run.finished:
            for _ in range(run.steps):
                run.step()
            yield
