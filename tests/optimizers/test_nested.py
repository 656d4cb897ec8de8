"""The nested search: what it saves, how it breaks ties, and what it is told of costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import merging
from merging.errors import StrategyError
from merging.forward.stages import stages_of
from merging.forward.staging import Staging
from merging.optimizers.nested import Nested
from merging.plugins.optimizer import Vector
from merging.running.search import BoxSearch, Priced, run_search
from merging.storage.pool import ModelPool
from merging.testing.fixtures import Bowl, tiny_pool, tiny_problem, tiny_task
from merging.values.outcome import Outcome


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return tiny_pool(tmp_path)


def searched(
    function: Any, costs: tuple[float, ...] | None, budget: int = 250, **options: Any
) -> tuple[Any, BoxSearch]:
    size = 3 if costs is None else len(costs)
    box = BoxSearch(
        function,
        np.zeros(size),
        np.ones(size),
        np.full(size, 0.5),
        budget,
        np.random.default_rng(0),
        Priced(costs=costs),
    )
    return run_search(Nested(**options), box), box


def test_dear_variables_move_seldom() -> None:
    """Of one dear and two cheap variables, the dear one takes few values, and the cheap ones follow at each of them."""
    bowl = Bowl(3)
    solution, _ = searched(bowl, (1.0, 0.01, 0.01))
    assert np.abs(solution.x - bowl.top).max() < 0.05
    dear = {float(point[0]) for point in bowl.points}
    assert len(dear) <= 16
    assert len(bowl.points) > 6 * len(dear)


def test_it_looks_around_once_more_where_that_costs_little() -> None:
    """What the first grid misses, the second one may find; where dear variables are many, there is none."""

    def narrow(x: Vector) -> Outcome:
        return Outcome(score=1.0 if abs(x[0] - 0.5 - 0.125 * 2 / 3) < 1e-3 else -float(abs(x[0] - 0.5)), samples=1)

    assert searched(narrow, (1.0, 0.01))[0].score == 1.0
    assert searched(narrow, (1.0, 0.01), again=0.5)[0].score == 0.0
    assert searched(narrow, (1.0, 1.0))[0].score == 0.0
    assert searched(narrow, (1.0, 1.0), again=2)[0].score == 1.0


def test_what_lies_behind_a_ridge_of_dear_and_cheap_is_found() -> None:
    """Where the best cheap value depends on the dear one, moves of one at a time stop at once; nested ones do not."""

    def ridge(x: Vector) -> Outcome:
        return Outcome(score=-float(abs(x[0] - 0.9) + 40 * abs(x[0] - x[1])), samples=1)

    nested, _ = searched(ridge, (1.0, 0.01), tolerance=0.005)
    flat, _ = searched(ridge, (1.0, 1.0), tolerance=0.005)
    assert abs(nested.x[0] - 0.9) < 0.1
    assert abs(flat.x[0] - 0.5) < 0.1


def test_ties_go_to_the_smaller_loss() -> None:
    """On a plateau of scores the search walks down the loss, and the core keeps that point, not the first."""

    def plateau(x: Vector) -> Outcome:
        return Outcome(score=0.5, samples=1, loss=float(((x - 0.2) ** 2).sum()))

    solution, _ = searched(plateau, (1.0, 0.01))
    assert np.abs(solution.x - 0.2).max() < 0.03
    assert solution.score == 0.5


def test_a_score_is_never_given_for_a_loss() -> None:
    def both(x: Vector) -> Outcome:
        return Outcome(score=float(x[0]), samples=1, loss=float(x[0]))

    solution, _ = searched(both, (1.0,))
    assert solution.x.tolist() == [1.0]


@pytest.mark.parametrize(
    ("costs", "said"), [(None, "converged; no variable is cheap"), ((1.0, 0.3, 0.01), "converged")]
)
def test_it_says_where_nothing_is_cheap(costs: tuple[float, ...] | None, said: str) -> None:
    assert searched(Bowl(3), costs)[0].stopped == said


def test_all_cheap_is_a_search_inside_alone() -> None:
    bowl = Bowl(2)
    solution, _ = searched(bowl, (0.01, 0.0))
    assert np.abs(solution.x - bowl.top).max() < 0.05


def test_costs_have_a_number_for_each_variable() -> None:
    with pytest.raises(ValueError, match="costs must have"):
        BoxSearch(Bowl(2), *np.full((3, 2), 0.5), 5, np.random.default_rng(0), Priced(costs=(1.0,)))


def chain() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))


def test_a_search_is_told_what_a_move_of_each_component_costs() -> None:
    """From the head up: what is told is what the pass costs that moves this component alone."""
    torch.manual_seed(0)
    inputs, labels = torch.rand(12, 4), torch.arange(12) % 2
    pool, task = ModelPool([chain(), chain()]), merging.task(chain, (inputs, labels))
    problem = tiny_problem(pool, task=task, optimizer=Nested())
    size = len(problem.partition)
    costs = problem.evaluator.scorer.costs()  # type: ignore[union-attr]
    path = problem.search.between(problem.single(0), problem.single(1))
    at = np.full(size, 0.5)
    path(at)
    heads = [column for column, cost in enumerate(costs) if cost == min(costs)]
    assert max(costs) == pytest.approx(1.0)
    assert min(costs) < 0.5
    for column in heads:
        moved = at.copy()
        moved[column] = 0.25
        assert path(moved).passes == pytest.approx(costs[column])


def test_costs_do_not_ask_what_is_kept(pool: ModelPool) -> None:
    """Points must be the same with and without savings; so costs are the model's, whatever the memory."""
    problems = [tiny_problem(pool, optimizer=Nested()) for _ in range(2)]
    problems[0].evaluator.scorer.passes.activations.limit = 0  # type: ignore[union-attr]
    first, second = (problem.evaluator.scorer.costs() for problem in problems)  # type: ignore[union-attr]
    assert first == second


def test_the_loss_is_the_cross_entropy_of_the_trial(pool: ModelPool) -> None:
    problem = tiny_problem(pool, optimizer=Nested())
    size = len(problem.partition)
    path = problem.search.between(problem.single(0), problem.single(1))
    outcome = path(np.full(size, 0.5))
    logits = problem.scores.logits(problem.mean([0, 1]))
    assert outcome.loss == pytest.approx(float(cross_entropy(logits, problem.scores.labels())), rel=1e-5)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))).loss == outcome.loss
    plain = tiny_problem(pool)
    without = plain.search.between(plain.single(0), plain.single(1))(np.full(size, 0.5))
    assert without.loss is None
    assert "loss" not in without.to_json()
    assert without.score == outcome.score


@pytest.mark.parametrize("components", [[0], [0, 9], [0, -1]])
def test_components_are_checked(pool: ModelPool, components: list[int]) -> None:
    problem = tiny_problem(pool, optimizer=Nested())
    box = {"lower": np.zeros(2), "upper": np.ones(2), "start": np.full(2, 0.5)}
    with pytest.raises(
        StrategyError, match=r"takes a component \(0 to \d\) for each of the 2 variables; it was given 0"
    ):
        problem.search.maximize(Bowl(2), **box, budget=5, components=components)


def test_what_a_search_has_spent(pool: ModelPool) -> None:
    """Forward-equivalents of its own points; one that was known costs nothing."""
    spent: list[float] = []

    class Asking(Nested):
        def maximize(self, search: Any) -> Any:
            for x in (0.25, 0.25, 0.75):
                search.evaluate(np.full(search.dimension, x))
                spent.append(search.spent)
            return search.solution("done")

    problem = tiny_problem(pool, optimizer=Asking())
    size = len(problem.partition)
    path = problem.search.between(problem.single(0), problem.single(1))
    box = {"lower": np.zeros(size), "upper": np.ones(size), "start": np.full(size, 0.5)}
    problem.search.maximize(path, **box, budget=5)
    problem.search.maximize(path, **box, budget=5)
    assert spent == [1.0, 1.0, 2.0, 0.0, 0.0, 0.0]


def test_a_component_costs_from_the_last_entry_before_it() -> None:
    torch.manual_seed(0)
    net = chain().eval()
    names, x = list(net.state_dict()), torch.rand(2, 4)
    staging = Staging(net, x, names)
    assert len(stages_of(net, x)) == 4
    total = 4 * 8 + 8 * 8 + 8 * 2
    assert staging.share_from(["3.weight"]) == pytest.approx(16 / total)
    assert staging.share_from(["2.bias", "3.bias"]) == pytest.approx((64 + 16) / total)
    assert staging.share_from(["0.weight", "3.bias"]) == pytest.approx(1.0)
    assert staging.share_from(["not there"]) == 0.0


@pytest.mark.parametrize("savings", [True, False])
def test_a_resumed_run_finds_the_same(tmp_path: Path, pool: ModelPool, savings: bool) -> None:
    """Losses are journalled with what they belong to: killed or not, with savings or without, one recipe."""
    how: Any = {
        "optimizer": Nested(),
        "partitioner": merging.Layer(),
        "task": tiny_task(),
        "budget": 20,
        "tests": False,
        "baselines": False,
    }
    strategy = merging.ManifoldMix(tau=0.5, barrier=None)
    whole = merging.merge(pool, strategy, output=tmp_path / "whole", **how)
    merging.merge(pool, strategy, output=tmp_path / "cut", exact_savings=savings, max_evaluations=12, **how)
    events = (tmp_path / "cut" / "events.jsonl").read_text("utf-8")
    assert '"loss"' in events
    again = merging.merge(pool, strategy, output=tmp_path / "cut", resume=True, exact_savings=savings, **how)
    assert again.merge.to_json() == whole.merge.to_json()
