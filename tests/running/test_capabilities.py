"""What a strategy is given, by what its ``needs`` say; and the names that members had before."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import merging
from merging.errors import RecipeError, RequirementError
from merging.moved import MEMBERS
from merging.plugins.registry import strategies
from merging.plugins.strategy import NEEDS, MixStrategy
from merging.running.needs import OFFERED
from merging.running.problem import MergeProblem
from merging.running.search import Searching
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool, tiny_problem, tiny_task

GIVEN = {
    "scores": {"model", "objective"},
    "search": {"objective"},
    "slopes": {"gradients", "per_sample_gradients"},
}
"""A part → the entries of ``needs`` of which one is enough; written again, as the documentation has it."""
PARTS = sorted(NEEDS - {"base", "classes"})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"))


def declaring(*entries: str, **members: Any) -> MixStrategy:
    """A strategy with these needs."""
    kind = type("Declaring", (merging.Uniform,), {"needs": frozenset(entries), "name": "declaring", **members})
    return dataclass(frozen=True)(kind)()


def given(pool: ModelPool, strategy: MixStrategy | None) -> MergeProblem:
    problem = tiny_problem(pool)
    problem.strategy = strategy
    return problem


@pytest.mark.parametrize("needs", [(), *itertools.combinations(PARTS, 1), *itertools.combinations(PARTS, 2)])
def test_a_part_is_there_exactly_where_the_needs_say(pool: ModelPool, needs: tuple[str, ...]) -> None:
    problem = given(pool, declaring(*needs))
    for part, entries in GIVEN.items():
        if entries & set(needs):
            assert getattr(problem, part) is not None
            continue
        with pytest.raises(RequirementError) as caught:
            getattr(problem, part)
        said = str(caught.value)
        assert "\n" not in said
        assert f"strategy 'declaring' uses problem.{part}" in said
        assert all(f'"{entry}"' in said for entry in entries)


def test_nobody_s_problem_offers_everything(pool: ModelPool) -> None:
    problem = given(pool, None)
    assert all(getattr(problem, part) is not None for part in OFFERED)


@pytest.mark.parametrize("inner", [merging.Learned(), merging.ManifoldMix(), merging.Fisher(), merging.Uniform()])
def test_an_inner_strategy_is_given_what_it_needs(pool: ModelPool, inner: MixStrategy) -> None:
    """The union: of the outer strategy's needs and its parts'."""
    problem = given(pool, merging.WiseFt(inner=inner))
    there = {part for part, entries in GIVEN.items() if entries & inner.needs}
    for part in GIVEN:
        if part in there:
            assert getattr(problem, part) is not None
        else:
            with pytest.raises(RequirementError):
                getattr(problem, part)


def test_options_that_need_more_are_given_more(pool: ModelPool) -> None:
    """``requires`` counts, not ``needs`` alone: a sweep is scored."""
    with pytest.raises(RequirementError, match=r"problem\.search"):
        given(pool, merging.WiseFt()).search  # noqa: B018
    assert given(pool, merging.WiseFt(alpha=None)).search is not None


@pytest.mark.parametrize("name", list(strategies))
def test_every_strategy_uses_only_what_it_declares(name: str, tmp_path: Path) -> None:
    plugin = strategies[name]
    chosen = plugin(**plugin.example_options)
    if "unlabelled" in chosen.requires():
        pytest.skip("the tiny task has no unlabelled data")
    problem = given(tiny_pool(tmp_path, models=max(3, chosen.fewest())), chosen)
    problem.searching = Searching(problem.searching.optimizer, budget=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen.mix(problem)


@dataclass(frozen=True)
class Undeclared(merging.MixStrategy):
    """Searches without an objective among its needs."""

    name: ClassVar[str] = "undeclared"
    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        problem.search.between(problem.single(0), problem.single(1))
        return problem.single(0)


def test_a_run_says_what_was_not_declared(pool: ModelPool) -> None:
    with pytest.raises(RequirementError, match=r"'undeclared' uses problem\.search.*add \"objective\" to needs"):
        merging.merge(pool, Undeclared(), task=tiny_task(), device="cpu", baselines=False)


def calls(problem: MergeProblem) -> dict[str, tuple[Any, ...]]:
    """Arguments with which each member that has moved may be called."""
    a, b = problem.single(0), problem.single(1)
    return {
        "exceeds": (a, 0.5),
        "labels": (),
        "logits": (a,),
        "score": (torch.zeros(120, 3),),
        "between": (a, b),
        "batches": ("train", np.random.default_rng(0)),
        "blend": ([a, b],),
        "live": (a,),
        "squared_gradients": (a, "held-out", 8),
    }


OLD = [(part, name) for part, names in MEMBERS["problem"].items() for name in names.split()]


@pytest.mark.parametrize(("part", "name"), OLD)
@pytest.mark.parametrize("strategy", [None, declaring(), declaring("model", "objective", "gradients")])
def test_old_names_work_and_say_the_new_one(
    pool: ModelPool, part: str, name: str, strategy: MixStrategy | None
) -> None:
    """For one release, whatever is declared: nothing had to be."""
    problem = given(pool, strategy)
    new = r"problem\.slopes\.blend" if name == "gradient" else rf"problem\.{part}\.{name} "
    with pytest.warns(FutureWarning, match=rf"problem\.{name} has moved: write {new}") as said:
        found = getattr(problem, name)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert problem.strategy is strategy
    if name in calls(problem):
        result = found(*calls(problem)[name])
        assert result is not None
    elif name == "splits":
        assert found == ("held-out", "train")


def test_an_old_search_draws_from_the_same_seeds(pool: ModelPool) -> None:
    """A search by its old name is the search by the new one, to the bit, and counts as one."""
    found = []
    for old in (True, False):
        problem = given(pool, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if old else "error", FutureWarning)
            part = problem if old else problem.search
            path = part.between(problem.single(0), problem.single(1))
            size = len(problem.partition)
            box = {"lower": np.zeros(size), "upper": np.ones(size), "start": np.full(size, 0.5)}
            found.append([part.maximize(path, **box, budget=5).x.tolist() for _ in range(2)])
        assert problem.seeds.used
    assert found[0] == found[1]


def test_names_that_never_were_are_still_an_attribute_error(pool: ModelPool) -> None:
    problem = given(pool, None)
    assert not hasattr(problem, "logitz")
    with pytest.raises(AttributeError, match="problem has no attribute 'evaluat'"):
        problem.evaluat  # noqa: B018


@pytest.mark.parametrize("factors", [np.ones(1), np.ones(9), np.float64(0.5), np.ones((4, 1)), 0.5, [0.5] * 4])
def test_a_path_takes_a_factor_for_each_component(pool: ModelPool, factors: Any) -> None:
    problem = tiny_problem(pool, partitioner=merging.Layer())
    assert len(problem.partition) == 4
    path = problem.search.between(problem.single(0), problem.single(1))
    with pytest.raises(RecipeError, match="each of the 4 components, active or not; it was given"):
        path(factors)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_path_takes_finite_factors(pool: ModelPool, factor: float) -> None:
    problem = tiny_problem(pool)
    with pytest.raises(RecipeError, match="NaN or infinite"):
        problem.search.between(problem.single(0), problem.single(1))(np.full(len(problem.partition), factor))


@pytest.mark.parametrize("split", ["test", "shifted", "nope", "unlabelled"])
def test_no_test_set_is_handed_to_a_strategy(pool: ModelPool, split: str) -> None:
    """It chose the merge otherwise, and the report would praise the merge on it."""
    problem = tiny_problem(pool)
    for ask in (
        lambda: problem.scores.logits(problem.single(0), split),
        lambda: problem.scores.labels(split),
        lambda: next(problem.slopes.batches(split, problem.generator, 4)),
        lambda: problem.slopes.squared_gradients(problem.single(0), split, 4),
    ):
        with pytest.raises(RequirementError, match=f"may use held-out, train, not '{split}'"):
            ask()


@pytest.mark.parametrize("logits", [torch.zeros(3, 3), torch.zeros(()), 0.5])
def test_scored_logits_are_those_of_the_held_out_data(pool: ModelPool, logits: Any) -> None:
    with pytest.raises(RecipeError, match=r"held-out logits have 120 rows; .* was given a"):
        tiny_problem(pool).scores.score(logits)
