"""Rows that are mixed and projected on: every layout against float64, and steps that do not wait for the device."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import merging
from merging.evaluation.scorer import LiveScorer
from merging.forward.device import on_device
from merging.forward.live import LiveModel
from merging.forward.rows import Rows, rows_dtype
from merging.partitioners.layer import Layer
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Silent
from merging.plugins.watcher import Watcher
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.session import Session
from merging.storage.pool import ModelPool
from merging.strategies.learned import Learned
from merging.testing.fixtures import TinyNet, tiny_pool, tiny_problem, tiny_task
from merging.testing.second_device import is_there, second_device
from tests.waiting import no_synchronisation

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
        if component.inert:
            weights[part] = 7.0  # left alone
        else:
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
        torch.testing.assert_close(each, found[0], rtol=0, atol=1e-5)


def test_long_rows_are_projected_on_without_a_copy(pool: ModelPool) -> None:
    problem = tiny_problem(pool, partitioner=merging.Whole())
    live = live_model(problem)
    made, slope = Rows(live, [problem.single(0), problem.single(1)], piece=16), torch.randn(len(live.weights))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as seen:
        made.project(slope)
    names = [event.name for event in seen.events()]
    assert names.count("aten::bmm") == 1
    assert not {"aten::clone", "aten::contiguous"} & set(names)


def test_rows_are_bf16_where_memory_is_short() -> None:
    card = torch.device("cuda")
    assert rows_dtype(1000, card, memory=8000) == torch.float32
    assert rows_dtype(1001, card, memory=8000) == torch.bfloat16
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


class BetweenSteps(Silent):
    """Holds a context from the end of the first step of learning to the end of the last one.

    Epochs begin with an order that comes from the CPU, so there must be one only.
    """

    def __init__(self, context: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self._context, self._entered, self._total, self.steps = context, contextlib.ExitStack(), 0, 0

    def stage(self, text: str, total: int | None = None) -> None:
        self._total = total or 0 if text.startswith("learning") else 0

    def advance(self, steps: int = 1) -> None:
        if self._total:
            self.steps += steps
        if self._total and self.steps == 1:  # what libraries set up at their first call may wait
            self._entered.enter_context(self._context())
        elif self.steps == self._total:
            self.end()

    def end(self) -> None:
        self._entered.close()
        self._total = 0


def steps_between(pool: ModelPool, strategy: Learned, precision: str, seen: BetweenSteps) -> None:
    planned = plan(pool, strategy, task=tiny_task(), device="cuda", precision=precision)
    try:
        strategy.mix(Session.open(planned, watcher=Watcher(progress=seen)).problem(strategy))
    finally:
        seen.end()
    assert seen.steps == 6


class NothingComesBack(TorchFunctionMode):
    """Refuses what brings a number from the second device to the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        reads = name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "cpu", "to")
        if reads and is_there(args[0]) and not (isinstance(found, Tensor) and is_there(found)):
            raise AssertionError(f"{name} waits for the device")
        return found


class NothingIsAsked(TorchDispatchMode):
    """Refuses operations whose result's shape, or a number on the CPU, depends on values on the second device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put_") and any(x is not None and x.dtype == torch.bool for x in args[1])
        asked = masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")
        if asked and is_there(args[0]):
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def nothing_read_back() -> Iterator[None]:
    with NothingComesBack(), NothingIsAsked():
        yield


LEARNERS = {
    "learned": Learned(steps=6, batch=16),
    "affine": Learned(profile="affine", steps=6, batch=16),
}


@pytest.mark.parametrize("profile", LEARNERS)
@pytest.mark.parametrize("free", [1 << 33, 1000])
def test_steps_read_nothing_back(pool: ModelPool, profile: str, free: int) -> None:
    with second_device(free=free):
        steps_between(pool, LEARNERS[profile], "fp32", BetweenSteps(nothing_read_back))


def test_what_is_read_back_is_seen() -> None:
    with second_device():
        there = torch.ones(2, device="cuda")
        for waits in (
            lambda: there.cpu(),
            lambda: there.to("cpu"),
            lambda: float(there[0]),
            lambda: there[there > 0],
            lambda: there.max().item(),
        ):
            with pytest.raises(AssertionError, match="waits for the device"), nothing_read_back():
                waits()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a CUDA device whether anything waits for it")
@pytest.mark.parametrize("profile", LEARNERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_do_not_wait_for_the_card(pool: ModelPool, precision: str, profile: str) -> None:
    steps_between(pool, LEARNERS[profile], precision, BetweenSteps(no_synchronisation))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="sums on a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece", [None, 3, 16])
def test_a_card_mixes_and_projects(pool: ModelPool, dtype: torch.dtype, piece: int | None) -> None:
    strategy, found = Learned(), []
    for device in ("cpu", "cuda"):
        session = Session.open(plan(pool, strategy, task=tiny_task(), device=device))
        problem = session.problem(strategy)
        live = live_model(problem)
        made = Rows(live, [problem.single(index) for index in range(3)], dtype, piece)
        draws = torch.Generator().manual_seed(0)
        table, slope = (torch.randn(shape, generator=draws) for shape in ((3, 1), len(live.weights)))
        made.mix(on_device(table, device))
        found.append((live.weights.cpu(), made.project(on_device(slope, device)).cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
