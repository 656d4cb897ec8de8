"""The decisions of ManifoldMixMS: on the tiny real problem, with scripted scores where a branch needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from merging.plugins.optimizer import Vector
from merging.plugins.options import build
from merging.running.problem import MergeProblem
from merging.storage.pool import ModelPool
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import tiny_problem
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe
from tests.heard import Heard


def watched(pool: ModelPool, **more: Any) -> tuple[MergeProblem, list[dict[str, Any]]]:
    problem, told = tiny_problem(pool, budget=more.pop("budget", 20), **more), Heard()
    problem.progress = told
    return problem, told.facts


PAPER = {
    "profile": "paper",
    "tau": 0.998,
    "budget": 250,
    "budget_per_variable": 30,
    "lower": 0.0,
    "upper": 1.0,
    "reach": None,
    "passes": 1,
    "later_lower": 0.3,
    "later_upper": 1.0,
    "accept_ties": False,
    "skip_inert": True,
    "mixing": "lerp",
    "rescore": True,
    "near_misses": False,
    "later_first": False,
    "barrier": 0.05,
}
REFERENCE = PAPER | {
    "profile": "reference",
    "budget": 0,
    "reach": 0.5,
    "passes": 3,
    "accept_ties": True,
    "skip_inert": False,
    "mixing": "sum",
    "rescore": False,
    "near_misses": True,
    "later_first": True,
    "barrier": None,
}


def test_profiles_set_what_is_unset() -> None:
    assert ManifoldMix().options() == PAPER
    assert ManifoldMix(profile="reference").options() == REFERENCE


@pytest.mark.parametrize("profile", ["paper", "reference"])
@pytest.mark.parametrize("name", [name for name in PAPER if PAPER[name] != REFERENCE[name] and name != "profile"])
def test_an_option_overrides_its_profile(profile: str, name: str) -> None:
    other = (REFERENCE if profile == "paper" else PAPER)[name]
    own = (PAPER if profile == "paper" else REFERENCE) | {name: other}
    assert build(ManifoldMix, {"profile": profile, name: other}).options() == own


class Scripted(MergeProblem):
    """The real problem, but for its scores: singles by a table, averages and trials by functions."""

    def __init__(
        self,
        real: MergeProblem,
        singles: list[float],
        average: Callable[[Recipe], float],
        trial: Callable[[Vector], float],
    ) -> None:
        self.__dict__.update(real.__dict__)
        self._scores, self._average, self._trial = singles, average, trial
        self.boxes: list[tuple[Vector, Vector, Vector, int]] = []

    def evaluate(self, recipe: Any) -> Outcome:
        rows = [i for i, _ in recipe.terms(0)]
        alone = len(rows) == 1
        score = self._scores[self.pool.names.index(rows[0].name)] if alone else self._average(recipe)
        return Outcome(score=score, samples=120)

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Callable[[Vector], Outcome]:
        return lambda factors: Outcome(score=self._trial(factors), samples=120)

    def maximize(self, function: Any, *, lower: Vector, upper: Vector, start: Vector, budget: int, **more: Any) -> Any:
        self.boxes.append((lower, upper, start, budget))
        return super().maximize(function, lower=lower, upper=upper, start=start, budget=budget, **more)


def scripted(
    pool: ModelPool, average: float, trial: float = -1e9, best: float = 0.8, rest: float = 0.7
) -> tuple[Scripted, list[dict[str, Any]]]:
    problem, facts = watched(pool, budget=3)
    return Scripted(problem, [rest, rest, best, rest, rest], lambda recipe: average, lambda x: trial), facts


@pytest.mark.parametrize("best", [0.8, -0.5])
def test_tau_admits_what_is_just_above_the_threshold(pool: ModelPool, best: float) -> None:
    """Promising is average > incumbent − (1 − τ)·|incumbent|, for scores of either sign."""
    tau, rest = 0.9, best - 0.01
    threshold = best - (1 - tau) * abs(best)
    for average, promising in ((threshold + 1e-9, True), (threshold - 1e-9, False)):
        problem, facts = scripted(pool, average, best=best, rest=rest)
        ManifoldMix(tau=tau, barrier=None).mix(problem)
        assert len(facts) == 4
        assert [("searches" in fact) for fact in facts] == [promising] * 4
        assert all(fact.get("why") == (None if promising else "not promising") for fact in facts)


def test_equal_scores_count_only_where_ties_are_accepted(pool: ModelPool) -> None:
    for ties in (False, True):
        problem, facts = scripted(pool, average=0.8, trial=0.8)
        ManifoldMix(tau=1.0, barrier=None, accept_ties=ties, rescore=False).mix(problem)
        assert [fact["accepted"] for fact in facts] == [ties] * 4


def test_the_barrier_skips_candidates_of_another_basin(pool: ModelPool) -> None:
    problem, facts = scripted(pool, average=0.79)  # the midpoint scores that, too
    ManifoldMix(tau=0.9, barrier=0.05).mix(problem)
    assert all(fact["midpoint"] == 0.79 and "searches" in fact for fact in facts)
    problem, facts = scripted(pool, average=0.5)
    ManifoldMix(tau=0.5, barrier=0.2).mix(problem)  # mean of 0.8 and 0.7 is 0.75: 0.25 below
    assert all("basin" in fact["why"] and "searches" not in fact for fact in facts)
    problem, facts = scripted(pool, average=0.5)
    ManifoldMix(tau=0.5, barrier=None).mix(problem)
    assert all("midpoint" not in fact and "searches" in fact for fact in facts)


def test_a_mix_whose_rescore_loses_is_rejected(pool: ModelPool) -> None:
    problem, facts = scripted(pool, average=0.8, trial=0.9)  # the search claims 0.9, the rebuilt mix scores 0.8
    recipe = ManifoldMix(tau=0.9, barrier=None).mix(problem)
    assert [fact["accepted"] for fact in facts] == [False] * 4
    assert all(fact["rescored"] == 0.8 for fact in facts)
    assert recipe.names == (pool.names[2],)


def test_boxes_and_starts(pool: ModelPool) -> None:
    problem, _ = scripted(pool, average=0.8, trial=-1.0)
    ManifoldMix(barrier=None).mix(problem)
    lower, upper, start, budget = problem.boxes[0]
    assert (lower.tolist(), upper.tolist(), start.tolist(), budget) == ([0, 0], [1, 1], [0.5, 0.5], 250)
    problem, _ = scripted(pool, average=0.8, trial=0.9)
    ManifoldMix(profile="reference").mix(problem)
    lower, upper, start, budget = problem.boxes[0]
    assert (lower.tolist(), upper.tolist(), start.tolist()) == ([0.25] * 4, [0.75] * 4, [0.5] * 4)
    assert budget == 30 * 4
    lower, upper, *_ = problem.boxes[1]
    assert (lower.tolist(), upper.tolist()) == ([0.3] * 4, [1.0] * 4)


def test_later_searches_go_on_only_while_they_gain(pool: ModelPool) -> None:
    problem, facts = scripted(pool, average=0.8, trial=0.9)
    ManifoldMix(profile="reference").mix(problem)
    assert facts[0]["searches"] == [0.9, 0.9], "the second search gained nothing: no third one"
    problem, facts = scripted(pool, average=0.8, trial=0.9)
    ManifoldMix(profile="reference", passes=1).mix(problem)
    assert facts[0]["searches"] == [0.9]


def test_near_misses_are_reported_only(pool: ModelPool) -> None:
    problem, facts = scripted(pool, average=0.8, trial=-1.0)
    recipe = ManifoldMix(near_misses=True, barrier=None).mix(problem)
    assert facts[1]["near_misses_with_incumbent"] == 0.8
    assert recipe.names == (pool.names[2],)


@pytest.mark.parametrize("profile", ["paper", "reference"])
def test_on_the_real_problem_the_score_never_falls(pool: ModelPool, profile: str) -> None:
    problem, facts = watched(pool)
    recipe = ManifoldMix(profile=profile).mix(problem)
    ranking = problem.rank()
    incumbents = [fact["incumbent"] for fact in facts]
    assert len(facts) == 4
    assert incumbents[0] == ranking[0][1].score
    assert incumbents == sorted(incumbents)
    assert problem.best is not None
    assert problem.best[1].score == max(problem.evaluate(problem.best[0]).score, problem.best[1].score)
    assert problem.best[1].score >= incumbents[-1]
    assert profile == "reference" or problem.best[0] is recipe  # where ties are accepted, the first of equals is kept
    assert len(recipe.names) == 1 + sum(fact["accepted"] for fact in facts)
    assert np.allclose(recipe.coefficients.sum(axis=0), 1.0)


def test_frozen_components_keep_the_best_model_s_values(pool: ModelPool) -> None:
    problem, facts = watched(pool, freeze=("^fc2$",))
    recipe = ManifoldMix(tau=0.5, accept_ties=True, barrier=None).mix(problem)
    assert any(fact["accepted"] for fact in facts)
    best = pool.ingredients[problem.rank()[0][0]]
    column = problem.partition.names.index("fc2")
    assert recipe.ingredients[0] == best
    assert recipe.terms(column) == [(best, 1.0)]
    assert len(recipe.terms(problem.partition.names.index("fc1"))) > 1


def test_inert_factors_stay_at_the_running_average(pool: ModelPool) -> None:
    problem, facts = watched(pool)
    recipe = ManifoldMix(tau=0.5, accept_ties=True, barrier=None).mix(problem)
    models = 1 + sum(fact["accepted"] for fact in facts)
    assert models > 1
    column = problem.partition.names.index("unused")
    assert np.allclose(recipe.coefficients[:, column], 1 / models)
