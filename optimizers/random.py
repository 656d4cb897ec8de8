"""Uniform random points in the box, after the start: the baseline every search should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.interfaces import Optimizer, Search
from merging.outcome import Solution
from merging.registry import optimizers


@optimizers.register("random")
@dataclass(frozen=True)
class Random(Optimizer):
    """Asks the start, then independent uniform points until the budget is spent."""

    summary: ClassVar[str] = "uniform random points in the box"
    batch: ClassVar[bool] = True

    def maximize(self, search: Search) -> Solution:
        """Spends the whole budget; ``BudgetSpent`` ends it."""
        search.evaluate(search.start)
        while True:
            search.evaluate_many([search.generator.uniform(search.lower, search.upper) for _ in range(8)])
