"""One way to a device: who runs a module places it, nothing stays behind, and the device's scores are the CPU's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.device import batch_for, on_device
from merging.forward.feed import Feed
from merging.looking.estimate import estimate
from merging.looking.inspection import inspect_pool
from merging.looking.interpolation import interpolate
from merging.looking.scoring import evaluate
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.task import Split, Task
from merging.running.plan import Plan, plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.testing import TinyNet, tiny_task
from merging.testing.second_device import second_device
from merging.values.recipe import Recipe

ROOT = Path(merging.__file__).parent


def sends() -> Iterator[str]:
    """Every ``.to(device)`` and ``.cuda()`` in the package: ``file: expression``."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "cuda"):
                said = " ".join(ast.unparse(value) for value in [*node.args, *(word.value for word in node.keywords)])
                if node.func.attr == "cuda" or "device" in said or "'cuda'" in said:
                    yield f"{path.relative_to(ROOT)}: {ast.unparse(node)}"


def test_nothing_else_sends_to_a_device() -> None:
    assert set(sends()) == {
        "forward/device.py: what.to(device)",
        "forward/device.py: tensor.pin_memory().to(device, non_blocking=True)",  # without waiting
        "forward/feed.py: buffer.to(self.device, non_blocking=True)",  # on a stream of its own
        "data/images.py: t.repeat(width).to(images.device)",  # kept for each device that images were on
    }


def test_modules_and_tensors_go_there(device: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert on_device(module, device, "channels_last") is module
    assert all(part.is_cuda for part in (*module.parameters(), *module.buffers()))
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    there = on_device(torch.arange(3), device)
    assert there.is_cuda
    assert on_device(there, there.device) is there
    task = Task(
        name="t",
        build=lambda pool: module,
        held_out=Split.of(torch.zeros(2, 3, dtype=torch.uint8), torch.arange(2)),
        prepare=lambda x: x.float() if x.dtype == torch.uint8 else x,
    )
    assert batch_for(task, torch.zeros(2, 3, dtype=torch.uint8), device, torch.bfloat16).dtype == torch.bfloat16
    ids = batch_for(task, torch.zeros(2, 3, dtype=torch.int64), device, torch.bfloat16)
    assert ids.dtype == torch.int64
    assert ids.is_cuda


# --- whole evaluations, on any device and here ----------------------------------------------------------------------


class Pictures(nn.Module):
    """Two convolutions, so that it runs channels-last; BatchNorm; a mask that no file holds."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 3)
        self.register_buffer("mask", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.two(self.norm(self.one(x)).relu()).mean((2, 3)) * self.mask)
        return logits


class Words(nn.Module):
    """Token ids, positions of its own, padding that is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8), nn.Embedding(6, 8)
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        x = self.layer(x, src_key_padding_mask=(ids == 0))
        logits: Tensor = self.head(x[:, 0])
        return logits


KINDS: dict[str, tuple[type[nn.Module], Any]] = {
    "numbers": (TinyNet, lambda draw, n: torch.from_numpy(draw.normal(size=(n, 4)).astype(np.float32))),
    "pictures": (Pictures, lambda draw, n: torch.from_numpy(draw.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8))),
    "words": (Words, lambda draw, n: torch.from_numpy(draw.integers(1, 20, (n, 6))) * (torch.arange(6) < 5)),
}


def prepared(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def problem(kind: str, folder: Path, samples: int, seed: int) -> tuple[ModelPool, Task]:
    made, inputs = KINDS[kind]
    draw = np.random.default_rng(seed)
    for number in range(2):
        torch.manual_seed(seed + number)
        save_file(made().state_dict(), folder / f"{number}.safetensors")
    parts = [Split.of(inputs(draw, n), torch.from_numpy(draw.integers(0, 3, n))) for n in (samples, 30)]
    task = Task(
        name=kind,
        build=lambda pool: made(),
        held_out=parts[0],
        tests={"test": parts[1]},
        prepare=prepared,
        train=parts[1],
    )
    return ModelPool.open([folder / "*.safetensors"]), task


def planned(pool: ModelPool, task: Task, **how: Any) -> tuple[Evaluator, Plan]:
    made = plan(pool, Uniform(), partitioner=Layer(), task=task, objective=NegativeLogLikelihood(), **how)
    assert made.live is not None
    assert made.numerics is not None
    return Evaluator.over(made.live, made.task or task, made.objective, made.numerics, Ledger(Journal(None))), made


@settings(max_examples=8)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    samples=st.integers(3, 120),
    seed=st.integers(0, 99),
    precision=st.sampled_from(["fp32", "bf16"]),
    free=st.sampled_from([0, 4000, 1 << 30]),
)
def test_a_device_scores_as_the_cpu_does(
    kind: str, samples: int, seed: int, precision: str, free: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every kind of data, resident and streamed, in both precisions: scores, logits, tests, gradients, statistics."""
    pool, task = problem(kind, tmp_path_factory.mktemp("any"), samples, seed)
    scores, losses, brief = [], [], False
    for where in ("cpu", "cuda"):
        with second_device(free=free):
            evaluator, made = planned(pool, task, device=where, precision=precision)
            assert made.numerics is not None
            assert made.numerics.device == where
            ends = [Recipe.single(ingredient, made.partition) for ingredient in pool.ingredients]
            mean = Recipe.mean(pool.ingredients, made.partition)
            path = evaluator.between(*ends, "lerp")
            found = [evaluator.evaluate(mean).score, evaluator.evaluate(mean, "test").score]
            found += [path(np.full(len(made.partition), share)).score for share in (0.25, 0.5)]
            found += [float(evaluator.exceeds(recipe, Bar(found[0])).exceeds) for recipe in (*ends, mean)]
            found.append(float(evaluator.outputs.logits(ends[0]).double().sum()))
            if precision == "fp32":
                batch = next(evaluator.gradients.batches("train", np.random.default_rng(0), 8))
                found.append(evaluator.gradients.gradient(mean, batch)[0])
                blend = evaluator.gradients.blend(ends)
                losses.append(blend.gradient(np.full((2, len(made.partition)), 0.5), batch)[0])
                brief = blend.rows_in == "bfloat16"
                squares = evaluator.gradients.squared_gradients(
                    ends[0], "train", 5, np.random.default_rng(0), sampled=True
                )
                found.append(float(sum(square.sum() for square in squares.values())))
            scores.append(found)
    assert scores[1] == pytest.approx(scores[0], rel=1e-5 if precision == "fp32" else 5e-2, abs=1e-5)
    assert brief <= (free < 1 << 30)  # models lie side by side in bf16 where memory is short
    assert brief >= (precision == "fp32" and free == 0)
    assert losses[-1:] == pytest.approx(losses[:1], rel=1e-2 if brief else 1e-5)


def test_a_module_is_placed_by_whoever_looks_at_it(pool: ModelPool, device: str) -> None:
    """``merge evaluate``, ``interpolate``, ``inspect --barriers`` and ``check``'s estimate, against the CPU."""
    task = tiny_task()
    here, there = (evaluate(pool.checkpoints[0].path, task, device=where) for where in ("cpu", device))
    assert {name: found.score for name, found in here.items()} == pytest.approx(
        {name: found.score for name, found in there.items()}, abs=0.02
    )
    two = ModelPool(pool.checkpoints[:2])
    curves = [interpolate(two, task, steps=3, device=where).scores["held-out"] for where in ("cpu", device)]
    assert curves[0] == pytest.approx(curves[1], abs=0.02)
    barriers = [inspect_pool(pool, Layer(), task=task, barriers="best", device=where) for where in ("cpu", device)]
    assert barriers[0].scores == pytest.approx(barriers[1].scores, abs=0.02)
    _, made = planned(pool, task, device=device)
    assert estimate(made).device == device


@pytest.mark.parametrize("size", [1, 7, 64])
def test_streamed_batches_have_arrived(size: int, device: str) -> None:
    """Each batch is what is stored: none is read before its copy is there, no buffer is filled while it leaves."""
    split = Split.of(torch.arange(1, 90 * 4 + 1, dtype=torch.int32).view(90, 2, 2), torch.arange(90))
    for order in (None, torch.randperm(90, generator=torch.Generator().manual_seed(0))):
        streamed = Feed(split, device, room=100)
        assert not streamed.resident
        wanted = split.inputs if order is None else split.inputs[order]
        found = list(streamed.batches(size, None if order is None else on_device(order, device)))
        assert torch.equal(torch.cat([x for x, _ in found]).cpu(), wanted)
        labels = torch.cat([labels for _, labels in found]).cpu()
        assert torch.equal(labels, torch.arange(90) if order is None else order)
