"""The interface of optimizers, and the search that they are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.errors import StrategyError
from merging.plugins.options import Plugin
from merging.plugins.user_code import file_of, kind_of, named, running
from merging.values.outcome import Outcome, Solution

Vector: TypeAlias = NDArray[np.float64]


class Search(Protocol):
    """A box, a start, and a function to maximise in it: all that an optimiser sees.

    Attributes:
        lower, upper, start: shape ``(dimension,)``, ``lower <= start <= upper``.
        budget: how many points may be asked for, repeats included.
        generator: generator of random numbers, seeded; the only source of randomness that an optimiser may use.
        costs: shape ``(dimension,)``: share of a whole forward pass that a point costs which differs from the one
            before in that variable alone. 1 where nothing is known.
    """

    lower: Vector
    upper: Vector
    start: Vector
    budget: int
    generator: np.random.Generator
    costs: Vector

    @property
    def spent(self) -> float:
        """Forward-equivalents that this search's points have cost so far; a point that was known costs nothing."""

    @property
    def dimension(self) -> int:
        """Number of the box's variables."""

    def evaluate(self, x: Vector) -> float:
        """The score at ``x``, which is brought into the box first.

        Raises:
            BudgetSpent: the budget is used up; let it through.
        """

    def outcome(self, x: Vector) -> Outcome:
        """The whole outcome at ``x``, as :meth:`evaluate` finds it; with its ``loss``, if ``breaks_ties`` is declared.

        Raises:
            BudgetSpent: the budget is used up; let it through.
        """

    def evaluate_many(self, points: Sequence[Vector]) -> list[float]:
        """Scores several points, in order; a backend that can ask in batches should.

        Raises:
            BudgetSpent: the budget is used up; let it through.
        """

    def solution(self, stopped: str) -> Solution:
        """Makes the solution to return: the best point seen so far, and why the search stopped.

        Of points with one score it is that with the smallest loss, where ``breaks_ties`` is declared; else the first.
        """


@dataclass(frozen=True)
class Optimizer(Plugin):
    """Base of optimizers: frozen dataclasses that search a box for the highest score, without derivatives.

    Attributes:
        smallest_dimension: the fewest variables that it can search over.
        deterministic: whether the same generator leads to the same points.
        batch: whether it asks for several points at once.
        recommends: whether the solution that it returns is taken as it is; of all others the best point seen is.
        weighs_costs: whether the search is to say what a move of each variable costs.
        breaks_ties: whether outcomes are to say the loss of their logits, which tells points of one score apart.
    """

    smallest_dimension: ClassVar[int] = 1
    deterministic: ClassVar[bool] = True
    batch: ClassVar[bool] = False
    recommends: ClassVar[bool] = False
    weighs_costs: ClassVar[bool] = False
    breaks_ties: ClassVar[bool] = False

    @abstractmethod
    def maximize(self, search: Search) -> Solution:
        """Asks ``search.evaluate`` for points until it is done; the one method that an optimizer must have.

        The core keeps the best point, and catches ``BudgetSpent`` where the budget is used up.

        Args:
            search: the box, a start in it, the budget, and the function to maximise.

        Returns:
            ``search.solution(…)``, with the reason why it stopped.
        """


def in_unit_box(search: Search) -> tuple[Callable[[Vector], float], Vector]:
    """A search as minimisers of other libraries take it: over the box from 0 to 1 in every variable.

    Returns:
        The function to minimise, minus the score, and the start, shape ``(dimension,)``. A variable whose bounds are
        one number stays at 0.
    """
    width = search.upper - search.lower

    def loss(unit: Vector) -> float:
        return -search.evaluate(search.lower + np.asarray(unit) * width)

    return loss, (search.start - search.lower) / np.where(width > 0, width, 1.0)


def maximized(optimizer: Optimizer, search: Search) -> Solution:
    """Runs an optimizer on a search, and checks that what it returns is a :class:`Solution`.

    Raises:
        BudgetSpent: the budget is used up.
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns no solution.
    """
    who = named("optimizer", optimizer)
    with running(who, optimizer):
        solution = optimizer.maximize(search)
    if not isinstance(solution, Solution):
        raise StrategyError(
            f"{who} returned {kind_of(solution)}, not a Solution; end with search.solution(…){file_of(optimizer)}"
        )
    return solution
