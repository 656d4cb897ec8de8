"""A (1 + 1) evolution strategy: Gaussian steps from the best point."""

from dataclasses import dataclass

import merging
import numpy as np
from merging.plugins.registry import optimizers


@optimizers.register("climb")
@dataclass(frozen=True)
class Climb(merging.Optimizer):
    """Takes a step if it does not make the score worse."""

    summary = "Gaussian steps from the best point"

    step: float = merging.option(0.1, "standard deviation, as a share of the box", low=1e-6, high=1.0)

    def maximize(self, search):
        x, best = search.start, search.evaluate(search.start)
        while True:  # BudgetSpent ends it
            move = self.step * (search.upper - search.lower) * search.generator.normal(size=search.dimension)
            point = np.clip(x + move, search.lower, search.upper)
            score = search.evaluate(point)
            if score >= best:
                x, best = point, score
