"""The box: clips, rounds to float32, counts, keeps the best; the core ends a search at its budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.errors import BudgetSpent, OptionError
from merging.plugins.optimizer import Optimizer, Search, Vector
from merging.plugins.options import option
from merging.running.search import BoxSearch, Priced, run_search
from merging.values.outcome import Outcome, Solution

SEEN: list[Vector] = []


def score(x: Vector) -> Outcome:
    SEEN.append(x)
    return Outcome(score=-float(np.abs(x - 0.25).sum()), samples=1)


def search(dimension: int = 3, budget: int = 10, start: float = 0.5) -> BoxSearch:
    SEEN.clear()
    low, high = np.zeros(dimension), np.ones(dimension)
    return BoxSearch(score, low, high, np.full(dimension, start), budget, np.random.default_rng(0))


@dataclass(frozen=True)
class Asks(Optimizer):
    """Asks for given points; claims that something else was best."""

    name = "asks"
    points: tuple[float, ...] = option((), "what it asks for")
    smallest: int = option(1, "fewest variables")

    @property
    def smallest_dimension(self) -> int:  # type: ignore[override]
        return self.smallest

    def maximize(self, search: Search) -> Solution:
        search.evaluate_many([np.full(search.dimension, point) for point in self.points])
        return Solution(np.full(search.dimension, 9.0), 99.0, 1, "done")


@given(hnp.arrays(np.float64, 3, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_every_point_is_brought_into_the_box(x: Vector) -> None:
    box = search()
    with np.errstate(over="ignore"):
        box.evaluate(x)
    (point,) = SEEN
    assert ((point >= 0) & (point <= 1)).all()
    assert np.array_equal(point, point.astype(np.float32).astype(np.float64))
    for given_value, used in zip(x, point, strict=True):
        wanted = 0.5 if np.isnan(given_value) else min(max(given_value, 0.0), 1.0)
        assert used == pytest.approx(wanted, abs=1e-7)


def test_the_budget_counts_repeats_and_then_raises() -> None:
    box = search(budget=2)
    box.evaluate(np.zeros(3))
    box.evaluate(np.zeros(3))
    with pytest.raises(BudgetSpent):
        box.evaluate(np.ones(3))
    assert box.asked == len(SEEN) == 2


def test_the_core_believes_what_it_saw_not_what_it_is_told() -> None:
    solution = run_search(Asks((0.9, 0.3, 0.8)), search())
    assert solution.x.tolist() == [np.float32(0.3)] * 3
    assert (solution.asked, solution.stopped) == (3, "done")
    assert solution.score == score(solution.x).score


def test_the_first_of_equals_wins() -> None:
    assert run_search(Asks((0.5, 0.0, 0.5)), search()).x.tolist() == [0.5] * 3


def test_an_optimiser_past_its_budget_is_ended() -> None:
    solution = run_search(Asks((0.9, 0.8, 0.25)), search(budget=2))
    assert (solution.asked, solution.stopped) == (2, "budget spent")
    assert solution.x.tolist() == [np.float32(0.8)] * 3


def test_an_optimiser_that_asks_nothing_gets_the_start() -> None:
    solution = run_search(Asks(()), search())
    assert (solution.x.tolist(), solution.asked) == ([0.5] * 3, 1)


def test_nothing_to_search() -> None:
    solution = run_search(Asks(()), search(dimension=0, budget=0))
    assert solution.x.shape == (0,)
    assert "no active component" in solution.stopped


def test_too_few_variables_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 4 variables, this search has 3"):
        run_search(Asks((), smallest=4), search())


def test_the_start_is_brought_into_the_box() -> None:
    assert search(start=7.0).start.tolist() == [1.0] * 3


def test_bad_boxes_are_refused() -> None:
    one = np.ones(2)
    with pytest.raises(OptionError, match="above"):
        BoxSearch(score, one, 0 * one, one, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="one shape"):
        BoxSearch(score, one, one, np.ones(3), 5, np.random.default_rng(0))


def test_news_of_every_point() -> None:
    news: list[tuple[int, float]] = []
    box = BoxSearch(
        score,
        np.zeros(1),
        np.ones(1),
        np.zeros(1),
        5,
        np.random.default_rng(0),
        Priced(on_point=lambda *said: news.append(said)),
    )
    for point in (0.75, 0.5, 0.875):
        box.evaluate(np.array([point]))
    assert news == [(1, -0.5), (2, -0.25), (3, -0.25)]
