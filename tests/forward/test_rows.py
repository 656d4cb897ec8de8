"""Rows that are mixed and projected on: every layout against float64, and steps that do not wait for the device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import merging
from merging.evaluation.scorer import LiveScorer
from merging.forward.live import LiveModel
from merging.forward.rows import Rows, rows_dtype
from merging.partitioners.layer import Layer
from merging.plugins.partitioner import Partitioner
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.session import Session
from merging.storage.pool import ModelPool
from merging.strategies.learned import Learned
from merging.testing.fixtures import TinyNet, tiny_pool, tiny_problem, tiny_task
from merging.testing.second_device import second_device

EACH = merging.Custom(
    patterns=tuple(f"{number}=^{re.escape(name)}$" for number, name in enumerate(TinyNet().state_dict()))
)
DIVISIONS: dict[str, tuple[Partitioner, tuple[str, ...]]] = {
    "one component": (merging.Whole(), ()),
    "layers": (Layer(), ()),
    "many tiny ones": (EACH, ()),
    "frozen ones": (EACH, (r"bias",)),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"))


def live_model(problem: MergeProblem) -> LiveModel:
    scorer = problem.evaluator.scorer
    assert isinstance(scorer, LiveScorer)
    return scorer.live


def layouts(live: LiveModel, problem: MergeProblem, count: int) -> Iterator[Rows]:
    recipes = [problem.single(index) for index in range(count)]
    for dtype in (torch.float32, torch.bfloat16):
        for piece in (None, 3, 16, 4096):
            yield Rows(live, recipes, dtype, piece)


def by_hand(live: LiveModel, problem: MergeProblem, count: int) -> Tensor:
    rows = torch.zeros((count, len(live.weights)))
    for index, row in enumerate(rows):
        live.fill(row, problem.single(index))
    return rows.double()


@pytest.mark.parametrize("division", DIVISIONS)
def test_mixes_and_projections_are_those_of_float64(pool: ModelPool, division: str) -> None:
    partitioner, freeze = DIVISIONS[division]
    problem, count = tiny_problem(pool, partitioner=partitioner, freeze=freeze), 3
    live = live_model(problem)
    table = torch.randn((count, len(problem.partition)), generator=torch.Generator().manual_seed(0))
    slope = torch.randn(len(live.weights), generator=torch.Generator().manual_seed(1))
    rows = by_hand(live, problem, count)
    weights, found = torch.zeros_like(rows[0]), torch.zeros(table.shape, dtype=torch.float64)
    for column, component in enumerate(problem.partition.components):
        part = live.slice_of(column)
        weights[part] = rows[0, part] if component.frozen else table[:, column].double() @ rows[:, part]
        if column in problem.partition.active:
            found[:, column] = rows[:, part] @ slope[part].double()
    assert found.any()
    for made in layouts(live, problem, count):
        brief = made.dtype == torch.bfloat16
        live.weights.fill_(7.0)
        made.mix(table)
        torch.testing.assert_close(live.weights.double(), weights, rtol=0, atol=3e-2 if brief else 1e-5)
        torch.testing.assert_close(made.project(slope), found, rtol=0, atol=2e-1 if brief else 1e-4)
        places = torch.tensor([0, 5, len(live.weights) - 1])
        torch.testing.assert_close(made.at(places).double(), rows[:, places], rtol=1e-2 if brief else 0, atol=0)


def test_rows_that_are_widened_in_parts_are_the_same(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny_problem(pool)
    live, recipes = live_model(problem), [problem.single(0), problem.single(1)]
    table, slope = torch.rand((2, len(problem.partition))), torch.randn(len(live.weights))
    found = []
    for numbers in (1 << 20, 21, 1):
        monkeypatch.setattr("merging.forward.rows.AT_ONCE", numbers)
        made = Rows(live, recipes, torch.bfloat16)
        made.mix(table)
        found.append((live.weights.clone(), made.project(slope)))
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])


def test_long_rows_are_projected_on_without_a_copy(pool: ModelPool) -> None:
    problem = tiny_problem(pool, partitioner=merging.Whole())
    live = live_model(problem)
    made, slope = Rows(live, [problem.single(0), problem.single(1)], piece=16), torch.randn(len(live.weights))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        made.project(slope)
    names = [event.name for event in seen.events()]
    assert names.count("aten::bmm") == 1
    assert not {"aten::clone", "aten::contiguous"} & set(names)


def test_rows_are_bf16_where_memory_is_short() -> None:
    card = torch.device("cuda")
    assert rows_dtype(1000, card, free=8000) == torch.float32
    assert rows_dtype(1001, card, free=8000) == torch.bfloat16
    assert rows_dtype(1 << 60, torch.device("cpu")) == torch.float32


def learned_on(
    pool: ModelPool, strategy: Learned, device: str, free: int = 1 << 33
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """Coefficients of a soup that was learned on a device, and the decisions."""
    decisions: list[dict[str, Any]] = []
    with second_device(free=free):
        problem = Session.open(plan(pool, strategy, task=tiny_task(), device=device)).problem(strategy)
        recipe = strategy.mix(problem)
    decisions += problem.decisions
    return recipe.coefficients, decisions


@pytest.mark.parametrize("profile", ["learned", "affine"])
def test_a_second_device_learns_the_same(pool: ModelPool, profile: str) -> None:
    strategy = Learned(profile=profile, steps=12)
    here, _ = learned_on(pool, strategy, "cpu")
    there, decisions = learned_on(pool, strategy, "cuda")
    np.testing.assert_allclose(there, here, atol=2e-3)
    assert not any("rows" in decision for decision in decisions)
    brief, decisions = learned_on(pool, strategy, "cuda", free=1000)
    np.testing.assert_allclose(brief, here, atol=5e-2)
    assert [decision["rows"] for decision in decisions] == ["bfloat16"] * len(decisions)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a CUDA device whether anything waits for it")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_do_not_wait_for_the_card(pool: ModelPool, precision: str) -> None:
    strategy = Learned(steps=4)
    session = Session.open(plan(pool, strategy, task=tiny_task(), device="cuda", precision=precision))
    problem = session.problem(strategy)
    blend = problem.slopes.blend([problem.single(0), problem.single(1)])
    batch = next(iter(problem.slopes.batches("held-out", problem.generator, 32)))
    table = torch.full((2, len(problem.partition)), 0.5, dtype=torch.float64, device=blend.home)
    scale = torch.ones((), dtype=torch.float64, device=blend.home)
    blend.slopes(table, batch, scale)  # what libraries set up at their first call may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            _, slopes, slope = blend.slopes(table, batch, scale)
            table, scale = table - 0.01 * slopes, scale - 0.01 * slope
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(table).all()
