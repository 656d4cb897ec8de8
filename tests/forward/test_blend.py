"""One backward pass gives all derivatives: of batches in parts where memory is short, and of attention by strides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.evaluation.scorer import LiveScorer
from merging.forward.attention import PackedAttention
from merging.forward.blend import Blend
from merging.plugins.task import HELD_OUT, Split, Task
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.session import Session
from merging.storage.pool import ModelPool
from merging.strategies.learned import Learned
from merging.testing.fixtures import tiny_pool, tiny_problem
from merging.testing.second_device import second_device


@pytest.fixture
def problem(tmp_path: Path) -> MergeProblem:
    return tiny_problem(tiny_pool(tmp_path, 3))


def parts(problem: MergeProblem, batch_norm: bool = False) -> tuple[Blend, nn.Module]:
    scorer = problem.evaluator.scorer
    assert isinstance(scorer, LiveScorer)
    return Blend(scorer.live, [problem.single(index) for index in range(3)], batch_norm=batch_norm), scorer.live.module


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Batches that were tried, of which those above 16 samples find no memory."""
    tried = list[int]()

    def refuse(module: nn.Module, given: tuple[Any, ...]) -> None:
        tried.append(len(given[0]))
        if len(given[0]) > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    yield tried
    handle.remove()


def test_a_batch_is_taken_in_parts_where_memory_is_short(problem: MergeProblem, request: pytest.FixtureRequest) -> None:
    table = np.full((3, len(problem.partition)), 1 / 3)
    inputs, labels = next(iter(problem.slopes.batches(HELD_OUT, np.random.default_rng(0), 50)))
    loss, slopes, by_scale = parts(problem)[0].gradient(table, (inputs, labels), 1.5)
    tried = request.getfixturevalue("scarce")
    blend, _ = parts(problem)
    for _ in range(2):
        found = blend.gradient(table, (inputs, labels), 1.5)
        assert found[0] == pytest.approx(loss, rel=1e-6)
        np.testing.assert_allclose(found[1], slopes, atol=1e-6)
        assert found[2] == pytest.approx(by_scale, rel=1e-5)
    whole = [size for size in tried if size > 16]
    assert whole, "memory was short"
    assert max(tried[len(tried) // 2 :]) <= 16, "what is too large is not tried again"


def test_statistics_of_a_batch_are_not_those_of_its_parts(problem: MergeProblem, scarce: list[int]) -> None:
    batch = next(iter(problem.slopes.batches(HELD_OUT, np.random.default_rng(0), 50)))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        parts(problem, batch_norm=True)[0].gradient(np.full((3, len(problem.partition)), 1 / 3), batch)


def test_one_sample_that_finds_no_memory_is_said(problem: MergeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: nn.Module, given: tuple[Any, ...]) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    blend, module = parts(problem)
    batch = next(iter(problem.slopes.batches(HELD_OUT, np.random.default_rng(0), 8)))
    with module.register_forward_pre_hook(refuse), pytest.raises(torch.cuda.OutOfMemoryError):
        blend.gradient(np.full((3, len(problem.partition)), 1 / 3), batch)


class Attends(nn.Module):
    """Attention over eight places, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.attention(x, x, x, need_weights=False)[0]
        logits: Tensor = self.head(y.mean(1))
        return logits


def of_attention(pool: ModelPool, device: str) -> MergeProblem:
    inputs = torch.randn(30, 8, 12, generator=torch.Generator().manual_seed(0))
    task = Task(name="places", build=lambda pool: Attends(), held_out=Split.of(inputs, torch.arange(30) % 3))
    return Session.open(plan(pool, Learned(), task=task, device=device)).problem()


def test_attention_by_strides_has_the_same_derivatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        torch.manual_seed(number)
        save_file(Attends().state_dict(), tmp_path / f"{number}.safetensors")
    pool, calls = ModelPool.open([tmp_path]), list[bool]()
    own = PackedAttention.forward

    def watched(self: PackedAttention, *given: Any, **named: Any) -> Any:
        calls.append(True)
        return own(self, *given, **named)

    monkeypatch.setattr(PackedAttention, "forward", watched)

    def slopes(problem: MergeProblem) -> tuple[float, Any, float]:
        batch = next(iter(problem.slopes.batches(HELD_OUT, np.random.default_rng(0), 30)))
        blend = problem.slopes.blend([problem.single(index) for index in range(3)])
        return blend.gradient(np.full((3, len(problem.partition)), 1 / 3), batch)

    here = slopes(of_attention(pool, "cpu"))
    assert not calls, "the CPU's bits stay torch's own"
    with second_device():
        there = slopes(of_attention(pool, "cuda"))
    assert calls
    assert there[0] == pytest.approx(here[0], rel=1e-6)
    np.testing.assert_allclose(there[1], here[1], atol=1e-6)
