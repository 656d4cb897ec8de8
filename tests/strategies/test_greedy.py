"""Greedy soups against the recipe of the paper, written out on state dicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.testing import TinyNet, tiny_pool, tiny_problem, tiny_task
from tests.heard import Heard


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=6)


def right(state: dict[str, Tensor]) -> int:
    module = TinyNet().eval()
    module.load_state_dict(state)
    data = tiny_task().held_out
    with torch.inference_mode():
        return int((module(data.inputs).argmax(1) == data.labels).sum())


def slow_greedy(states: list[dict[str, Tensor]], order: list[int], *, ties: bool) -> list[int]:
    """Recipe 1 of Wortsman et al. (2022), every average made anew in float64."""

    def mean(indices: list[int]) -> dict[str, Tensor]:
        return {
            name: (sum(states[i][name].double() for i in indices) / len(indices)).to(tensor.dtype)  # type: ignore[union-attr]
            for name, tensor in states[0].items()
        }

    chosen = order[:1]
    for index in order[1:]:
        before, after = right(mean(chosen)), right(mean([*chosen, index]))
        if after > before or (ties and after == before):
            chosen = [*chosen, index]
    return chosen


@pytest.mark.parametrize("ties", [False, True])
def test_sorted_greedy_is_the_paper_s_recipe(pool: ModelPool, ties: bool) -> None:
    states = [checkpoint.load() for checkpoint in pool.checkpoints]
    order = sorted(range(6), key=lambda i: -right(states[i]))
    recipe = Greedy(accept_ties=ties).mix(tiny_problem(pool))
    wanted = slow_greedy(states, order, ties=ties)
    assert recipe.names == tuple(pool.names[i] for i in wanted)
    assert np.allclose(recipe.coefficients, 1 / len(wanted))


def test_random_orders_keep_the_best_and_report_the_spread(pool: ModelPool) -> None:
    problem, told = tiny_problem(pool, seed=5), Heard()
    problem.progress = told
    recipe = Greedy(order="random", orders=4).mix(problem)
    states = [checkpoint.load() for checkpoint in pool.checkpoints]
    ranking = sorted(range(6), key=lambda i: -right(states[i]))
    generator = tiny_problem(pool, seed=5).generator
    soups = [slow_greedy(states, [int(i) for i in generator.permutation(ranking)], ties=False) for _ in range(4)]
    scores = [tiny_problem(pool).evaluate(problem.mean(soup)).score for soup in soups]
    last = told.facts[-1]
    assert (last["best"], last["orders"]) == (max(scores), 4)
    assert last["mean"] == pytest.approx(np.mean(scores))
    assert last["spread"] == pytest.approx(np.std(scores, ddof=1))
    assert problem.evaluate(recipe).score == max(scores)


def test_every_decision_is_told_with_its_scores(pool: ModelPool) -> None:
    problem, told = tiny_problem(pool), Heard()
    problem.progress = told
    Greedy().mix(problem)
    assert len(told.facts) == 5
    for facts in told.facts:
        assert facts["accepted"] == (facts["average"] > facts["incumbent"])
