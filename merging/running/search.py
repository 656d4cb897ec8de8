"""The box that an optimiser searches: clips, counts, remembers the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from merging.errors import BudgetSpent, OptionError
from merging.plugins.optimizer import Optimizer, Vector, maximized
from merging.values.outcome import Outcome, Solution


@dataclass(frozen=True)
class Searching:
    """The way in which a run's searches are made: optimizer, seed and budget.

    Attributes:
        optimizer: the backend.
        seed: seed of the run; a strategy's generator and those of its searches follow from it, in order.
        budget: evaluations of each search, instead of what the strategy asks for; None: what it asks for.
    """

    optimizer: Optimizer
    seed: int = 0
    budget: int | None = None


@dataclass(frozen=True, kw_only=True)
class Priced:
    """The price of a search's points, and who is told of each of them.

    Attributes:
        costs: share of a whole forward pass that a move of one variable alone costs; None: a whole one for each.
        spent: forward-equivalents that the search's points have cost so far.
        on_point: told the number of points and the best score.
        on_batch: told points that are evaluated next.
    """

    costs: tuple[float, ...] | None = None
    spent: Callable[[], float] = lambda: 0.0
    on_point: Callable[[int, float], None] = lambda asked, best: None
    on_batch: Callable[[Sequence[Vector]], None] = lambda points: None


class BoxSearch:
    """A function to maximise in a box, with a budget (see :class:`merging.plugins.optimizer.Search`).

    Points are rounded to float32, the precision in which trials are mixed: two points that mix the same bits are one
    (unless ``rounded`` is False).
    """

    def __init__(
        self,
        function: Callable[[Vector], Outcome],
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        generator: np.random.Generator,
        priced: Priced = Priced(),
        *,
        rounded: bool = True,
    ) -> None:
        self.lower = np.asarray(lower, dtype=np.float64)
        self.upper = np.asarray(upper, dtype=np.float64)
        if not self.lower.shape == self.upper.shape == np.shape(start):
            raise ValueError("lower, upper and start must have one shape")
        self.start = np.clip(np.asarray(start, dtype=np.float64), self.lower, self.upper)
        self.budget = budget
        self.generator = generator
        self.asked = 0
        self.best: tuple[float, Vector] | None = None
        self.costs = np.ones(len(self.start)) if priced.costs is None else np.asarray(priced.costs)
        self._function, self._priced = function, priced
        self._loss = math.inf
        self._rounded = rounded
        if self.costs.shape != self.start.shape:
            raise ValueError("costs must have a number for each variable")
        if not (self.lower <= self.upper).all():
            raise OptionError("a search's lower bound lies above its upper bound, or one of them is NaN")

    @property
    def dimension(self) -> int:
        """Number of variables that are searched over."""
        return len(self.start)

    @property
    def spent(self) -> float:
        """Forward-equivalents that this search's points have cost so far; what was known before costs nothing."""
        return self._priced.spent()

    def evaluate(self, x: Vector) -> float:
        """The score at ``x``, brought into the box."""
        return self.outcome(x).score

    def outcome(self, x: Vector) -> Outcome:
        """The outcome at ``x``, brought into the box; of equal scores that with the smaller loss is the better one."""
        if self.asked >= self.budget:
            raise BudgetSpent
        self.asked += 1
        point = self.bring(x)
        outcome = self._function(point)
        loss = math.inf if outcome.loss is None else outcome.loss
        if self.best is None or (outcome.score, -loss) > (self.best[0], -self._loss):
            self.best, self._loss = (outcome.score, point), loss
        self._priced.on_point(self.asked, self.best[0])
        return outcome

    def bring(self, x: Vector) -> Vector:
        """The point at which ``x`` is evaluated: rounded to float32, NaN replaced by the start, in the box."""
        point = np.asarray(x, dtype=np.float64).reshape(self.start.shape)
        if self._rounded:
            point = point.astype(np.float32).astype(np.float64)
        return np.clip(np.where(np.isnan(point), self.start, point), self.lower, self.upper)

    def evaluate_many(self, points: Sequence[Vector]) -> list[float]:
        """Scores of several points, in order; who makes scores is told of all of them first."""
        self._priced.on_batch([self.bring(point) for point in points[: max(self.budget - self.asked, 0)]])
        return [self.evaluate(point) for point in points]

    def solution(self, stopped: str) -> Solution:
        """The best point seen (the first of equals); the start is evaluated where nothing was."""
        if self.best is None:
            self.evaluate(self.start)
        if self.best is None:
            raise BudgetSpent
        return Solution(self.best[1], self.best[0], self.asked, stopped)


def run_search(optimizer: Optimizer, search: BoxSearch) -> Solution:
    """Lets an optimiser search; the core keeps the best point, which is the solution, and ends it at the budget.

    Raises:
        OptionError: fewer variables than the optimiser can handle.
    """
    if search.dimension == 0:
        search.budget = max(search.budget, 1)
        return search.solution("nothing to search: no active component")
    if search.dimension < optimizer.smallest_dimension:
        raise OptionError(
            f"optimizer '{optimizer.name}' needs at least {optimizer.smallest_dimension} variables, "
            f"this search has {search.dimension}; choose another optimizer or a finer partitioner"
        )
    try:
        solution = maximized(optimizer, search)
        if optimizer.recommends:
            return Solution(search.bring(solution.x), solution.score, search.asked, solution.stopped)
        stopped = solution.stopped
    except BudgetSpent:
        stopped = "budget spent"
    return search.solution(stopped)
