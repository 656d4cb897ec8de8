"""Uniform random points in the box, after the start: the baseline every search should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.optimizer import Optimizer, Search
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution


@optimizers.register("random")
@dataclass(frozen=True)
class Random(Optimizer):
    """Random search: asks the start, then independent uniform points of the box until the budget is spent."""

    summary: ClassVar[str] = "uniform random points in the box"
    paper: ClassVar[str] = "Bergstra & Bengio 2012, https://www.jmlr.org/papers/v13/bergstra12a.html"
    formula: ClassVar[str] = "x_1 = start; x_t ~ Uniform(lower, upper)"
    limits: ClassVar[str] = "Learns nothing from its evaluations; hopeless in more than a handful of components."
    batch: ClassVar[bool] = True

    def maximize(self, search: Search) -> Solution:
        """Spends the whole budget; ``BudgetSpent`` ends it."""
        search.evaluate(search.start)
        while True:
            search.evaluate_many([search.generator.uniform(search.lower, search.upper) for _ in range(8)])
