"""Stochastic weight averaging: the checkpoints of one run, averaged in their order (Izmailov et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe


@strategies.register("swa")
@dataclass(frozen=True)
class Swa(MixStrategy):
    """The mean of every c-th checkpoint from the k-th on, or of the last ones. Needs no data; evaluates nothing.

    The order is that of the names (epoch_2 before epoch_10).
    """

    label: ClassVar[str] = "SWA"
    summary: ClassVar[str] = "the average of one run's checkpoints, in order"
    paper: ClassVar[str] = "Izmailov et al. 2018, Algorithm 1, https://arxiv.org/abs/1803.05407"
    formula: ClassVar[str] = "θ = mean of θ_t with t = start, start + every, …; the latest 'last' of them where given"
    limits: ClassVar[str] = (
        "For checkpoints of one run with a constant or cyclic learning rate: where it has decayed to nothing the "
        "checkpoints are nearly one model. BatchNorm statistics belong to none of them and must be measured again. "
        "Latest-weight averaging (LAWA) is last=k. Costs no evaluation."
    )

    start: int = option(0, "how many of the first checkpoints are left out", low=0)
    every: int = option(1, "take every so many-th checkpoint from there", low=1)
    last: int | None = option(None, "take only so many of the latest of these; none: all", low=1)

    def fewest(self) -> int:
        """The fewest models: one more than are left out at the start."""
        return self.start + 1

    def mix(self, problem: Problem) -> Recipe:
        """Makes the recipe of the chosen models' mean, in the order of their names."""
        chosen = list(range(len(problem.pool)))[self.start :: self.every]
        return problem.mean(chosen[-(self.last or 0) :])
