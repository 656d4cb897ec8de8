"""Block-coordinate pattern search: a few components at a time, the deepest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from merging.plugins.optimizer import Optimizer, Search, Vector
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution


@optimizers.register("coordinate")
@dataclass(frozen=True)
class Coordinate(Optimizer):
    """Block-coordinate search: moves one block of components at a time, from the last (head) to the first (stem).

    Within a block it tries a step forth and back along orthogonal directions (the axes for blocks of one, a random
    basis for larger ones), keeps what scores higher, and goes on along a direction that helps with doubled steps. A
    sweep without any gain halves the step; it ends at the tolerance.
    """

    summary: ClassVar[str] = "block-coordinate search, deep components first"
    paper: ClassVar[str] = "Hooke & Jeeves 1961, https://doi.org/10.1145/321062.321069, block by block"
    formula: ClassVar[str] = "for each block b, last to first: x ← x ± s·d_b where score rises; a vain sweep halves s"
    limits: ClassVar[str] = (
        "Needs about two evaluations per component and sweep, and follows no diagonal ridge with blocks of one. Each "
        "trial leaves the network before its block as it was, which suits evaluators that keep that part of a pass."
    )

    block: int = option(1, "components that move together", low=1)
    step: float = option(0.25, "first step, as a share of the box", low=1e-6, high=1.0)
    tolerance: float = option(2e-3, "last step, as a share of the box; a vain sweep with it ends", low=1e-6, high=1.0)

    def maximize(self, search: Search) -> Solution:
        """Sweeps until the step is as small as the tolerance, or ``BudgetSpent`` ends it."""
        width = search.upper - search.lower
        free = np.flatnonzero(width > 0)[::-1]
        blocks = [free[start : start + self.block] for start in range(0, len(free), self.block)]
        x, best, step = search.start, search.evaluate(search.start), self.step
        while step >= self.tolerance and blocks:
            before = best
            for block in blocks:
                for direction in _basis(len(block), search.generator):
                    move = np.zeros(search.dimension)
                    move[block] = direction * width[block]
                    x, best = self._line(search, x, best, step * move)
            if best <= before:
                step /= 2
        return search.solution("converged")

    def _line(self, search: Search, x: Vector, best: float, move: Vector) -> tuple[Vector, float]:
        """The better point along ``move`` or against it; doubled as long as that helps."""
        for sign in (1.0, -1.0):
            reach, gained = sign, False
            while True:
                point = np.clip(x + reach * move, search.lower, search.upper)
                if np.array_equal(point, x):
                    break
                score = search.evaluate(point)
                if score <= best:
                    break
                x, best, reach, gained = point, score, 2 * reach, True
            if gained:
                break
        return x, best


def _basis(size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Orthogonal directions, a row each: the axis itself, or a random rotation of the axes."""
    if size == 1:
        return np.ones((1, 1))
    rotated, _ = np.linalg.qr(generator.normal(size=(size, size)))
    return np.asarray(rotated)
