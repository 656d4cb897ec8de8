"""What every optimiser promises."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

import numpy as np
import pytest

from merging.moved import forwarding
from merging.plugins.optimizer import Optimizer, Vector
from merging.running.search import run_search
from merging.testing.another_process import start
from merging.testing.fixtures import Bowl, box
from merging.testing.plugins import PluginContract
from merging.values.outcome import Outcome


class OptimizerContract(PluginContract):
    """Contract of an optimiser. Supply ``plugin``, of a class defined at the top of its module."""

    kind: ClassVar[str] = "optimizer"

    @pytest.fixture
    def dimension(self, plugin: Optimizer) -> int:
        """Three variables, or as many as the optimiser needs."""
        return max(3, plugin.smallest_dimension)

    @pytest.mark.parametrize("more", range(8))
    def test_every_dimension_it_declares(self, plugin: Optimizer, more: int) -> None:
        """It searches in every dimension from its smallest to eight."""
        dimension = plugin.smallest_dimension + more
        if dimension > max(8, plugin.smallest_dimension):
            pytest.skip("beyond eight variables")
        bowl = Bowl(dimension)
        solution = run_search(plugin, box(bowl, dimension, budget=12))
        assert solution.x.shape == (dimension,)
        assert solution.score == bowl(solution.x).score

    @pytest.mark.parametrize(("low", "high", "start"), [(0.0, 1.0, 0.5), (-0.5, 0.3, 0.1), (0.3, 1.0, 0.9)])
    def test_stays_in_the_box(self, plugin: Optimizer, dimension: int, low: float, high: float, start: float) -> None:
        """The function sees no point outside the box."""
        bowl = Bowl(dimension)
        run_search(plugin, box(bowl, dimension, budget=30, low=low, high=high, start=start))
        assert bowl.points
        assert all((low <= point).all() and (point <= high).all() for point in bowl.points)

    @pytest.mark.parametrize("start", [0.0, 1.0])
    def test_starts_on_a_bound(self, plugin: Optimizer, dimension: int, start: float) -> None:
        """A start on a bound is no obstacle, and the result is no worse."""
        bowl = Bowl(dimension)
        solution = run_search(plugin, box(bowl, dimension, budget=30, start=start))
        assert solution.score >= bowl(np.full(dimension, start)).score

    @pytest.mark.parametrize("budget", [1, 2, 5, 20])
    def test_respects_the_budget(self, plugin: Optimizer, dimension: int, budget: int) -> None:
        """It asks at most ``budget`` times, and lets ``BudgetSpent`` through."""
        bowl = Bowl(dimension)
        search = box(bowl, dimension, budget=budget)
        solution = run_search(plugin, search)
        assert 1 <= len(bowl.points) <= budget
        assert solution.asked == len(bowl.points)
        assert search.refused <= 1, "BudgetSpent was caught: let it through"

    def test_climbs_a_bowl(self, plugin: Optimizer, dimension: int) -> None:
        """Sixty evaluations find a better point than the start."""
        bowl = Bowl(dimension)
        solution = run_search(plugin, box(bowl, dimension, budget=60))
        assert solution.score > bowl(np.full(dimension, 0.5)).score
        assert solution.stopped

    def test_survives_a_plateau(self, plugin: Optimizer, dimension: int) -> None:
        """Accuracies are staircases: most small steps change nothing."""
        search = box(lambda x: Outcome(score=0.5, samples=1), dimension, budget=20)
        assert run_search(plugin, search).score == 0.5

    def test_survives_the_worst_score(self, plugin: Optimizer, dimension: int) -> None:
        """Models that give NaN score as the lowest finite number."""
        bowl, worst = Bowl(dimension), -float(np.finfo(np.float64).max)
        search = box(lambda x: Outcome(score=worst, samples=1) if x[0] > 0.6 else bowl(x), dimension, budget=30)
        assert run_search(plugin, search).score > worst

    def test_same_seed_same_points(self, plugin: Optimizer, dimension: int) -> None:
        """The points depend on nothing but the search's generator."""
        if not plugin.deterministic:
            pytest.skip("declares that it is not deterministic")
        first, second = Bowl(dimension), Bowl(dimension)
        for bowl in (first, second):
            np.random.default_rng().random()  # the global state must not matter
            run_search(plugin, box(bowl, dimension, budget=25, seed=7))
        assert np.array_equal(first.points, second.points)

    def test_lets_exceptions_through(self, plugin: Optimizer, dimension: int) -> None:
        """An exception of the objective reaches the caller, and no thread stays behind."""
        bowl, before = Bowl(dimension), set(threading.enumerate())

        def function(x: Vector) -> Outcome:
            outcome = bowl(x)
            if len(bowl.points) == 3:
                raise ZeroDivisionError("from the objective")
            return outcome

        with pytest.raises(ZeroDivisionError, match="from the objective"):
            run_search(plugin, box(function, dimension, budget=20))
        assert _gone(before), "a thread that is not a daemon is left running: the process could never exit"

    def test_leaves_no_thread_behind(self, plugin: Optimizer, dimension: int) -> None:
        """A finished search leaves nothing that keeps the process alive."""
        before = set(threading.enumerate())
        run_search(plugin, box(Bowl(dimension), dimension, budget=10))
        assert _gone(before), "a thread that is not a daemon is left running: the process could never exit"

    def test_interrupted_it_ends_within_seconds(self, plugin: Optimizer) -> None:
        """Ctrl-C at the fifth evaluation; five seconds later at the latest the process is gone."""
        other = start("interrupt", self.kind, plugin)
        try:
            raised = other.answer(90)
        finally:
            by_itself, ended = other.ended(), time.time()
        if not by_itself:
            pytest.fail("the process does not end after an interruption")
        assert other.process.exitcode != 0, "KeyboardInterrupt was swallowed"
        assert ended - raised < 5


def _gone(before: set[Any], seconds: float = 5.0) -> bool:
    """Whether every new thread that would keep the process alive ends soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(thread.daemon for thread in set(threading.enumerate()) - before):
            return True
        time.sleep(0.01)
    return False


__getattr__ = forwarding(__name__)  # StrictSearch has moved
