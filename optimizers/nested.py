"""Nested pattern search: cheap variables inside, dear ones outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from merging.plugins.optimizer import Optimizer, Search, Vector
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution

Place: TypeAlias = tuple[tuple[float, float], Vector]
"""A point's score and minus its loss, compared in this order, and the point."""


@optimizers.register("nested")
@dataclass(frozen=True)
class Nested(Optimizer):
    """Pattern search that knows what a point costs: at each point of the dear variables, the cheap ones follow.

    What lies late in the network is cheap, because the inputs of late stages are kept: the head costs a matrix product.
    Dear variables move one at a time, the cheapest first: a step forth or back, doubled while it helps; a sweep in vain
    halves the step, and where a step to either side was in vain, only the better side is tried on. Where dear variables
    cost little all together (there is one), all that is done once more from where it ends, with two thirds of the step.
    At each point of the dear variables the cheap ones are searched in the same way, from where they were and with that
    step. Points of one score are told apart by the cross-entropy of the same logits, which is no staircase.
    """

    summary: ClassVar[str] = "pattern search by cost: cheap variables inside, dear ones outside"
    paper: ClassVar[str] = "Hooke & Jeeves 1961, https://doi.org/10.1145/321062.321069, nested by cost"
    formula: ClassVar[str] = "max over dear y of g(y), g(y) = max over cheap z of score(y, z); ties: the smaller loss"
    limits: ClassVar[str] = (
        "Follows no diagonal ridge among dear variables. Where nothing is cheap (a model that is not cut into stages, "
        "BatchNorm statistics that are measured again, a model compiled whole) it is a coordinate search, and says so."
    )
    weighs_costs: ClassVar[bool] = True
    breaks_ties: ClassVar[bool] = True

    cheap: float = option(0.05, "share of a pass up to which a variable's move is cheap", low=0.0, high=1.0)
    step: float = option(0.125, "first step, as a share of the box", low=1e-6, high=1.0)
    tolerance: float = option(
        0.02, "last step, as a share of the box (inside: half of it); a vain sweep with it ends", low=1e-6, high=1.0
    )
    again: float = option(
        1.0,
        "shares of all dear variables together up to which it looks around once more, with two thirds of the step",
        low=0.0,
    )

    def maximize(self, search: Search) -> Solution:
        """Sweeps until the step is as small as the tolerance, or ``BudgetSpent`` ends it."""
        free = np.flatnonzero(search.upper > search.lower)[::-1]  # from the head down, where costs are equal
        ordered = sorted((int(variable) for variable in free), key=lambda variable: search.costs[variable])
        cheap = [variable for variable in ordered if search.costs[variable] <= self.cheap]
        dear = [variable for variable in ordered if search.costs[variable] > self.cheap]

        def alone(point: Vector, step: float) -> Place:
            outcome = search.outcome(point)
            return (outcome.score, -math.inf if outcome.loss is None else -outcome.loss), point

        def followed(point: Vector, step: float) -> Place:
            return _climb(search, alone(point, step), cheap, (step, self.tolerance / 2), alone)

        place = _climb(search, followed(search.start, self.step), dear, (self.step, self.tolerance), followed)
        if sum(search.costs[variable] for variable in dear) <= self.again:  # on another grid, and to both sides
            _climb(search, place, dear, (2 / 3 * self.step, self.tolerance), followed)
        return search.solution("converged" if cheap else "converged; no variable is cheap")


def _climb(
    search: Search,
    place: Place,
    variables: list[int],
    steps: tuple[float, float],
    look: Callable[[Vector, float], Place],
) -> Place:
    """The best place that moves of some variables find, with steps from the first down to the last."""
    sides: dict[int, tuple[float, ...]] = dict.fromkeys(variables, (1.0, -1.0))
    step, last = steps
    while step >= last and variables:
        before = place[0]
        for variable in variables:
            place, sides[variable] = _line(search, place, variable, sides[variable], step, look)
        if place[0] <= before:
            step /= 2
    return place


def _line(
    search: Search,
    place: Place,
    variable: int,
    sides: tuple[float, ...],
    step: float,
    look: Callable[[Vector, float], Place],
) -> tuple[Place, tuple[float, ...]]:
    """The better place along one variable, and the sides to be tried next time.

    Steps to one side are doubled as long as that helps. Where both were tried in vain, the better one is left.
    """
    width, tried = search.upper[variable] - search.lower[variable], dict[float, tuple[float, float]]()
    for side in sides:
        reach, gained = side * step * width, False
        while True:
            point = place[1].copy()
            point[variable] = np.clip(point[variable] + reach, search.lower[variable], search.upper[variable])
            if point[variable] == place[1][variable]:
                break
            found = look(point, step)
            if found[0] <= place[0]:
                tried[side] = found[0]
                break
            place, reach, gained = found, 2 * reach, True
        if gained:
            return place, (side, -side)
    return place, (max(tried, key=lambda side: tried[side]),) if len(tried) == 2 else sides
