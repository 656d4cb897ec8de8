"""``python -m benchmarks.engine``: the bare pass takes what the module takes, in every precision, on every device."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from benchmarks import engine
from benchmarks.common import noisy
from merging.data.images import Normalise
from merging.partitioners.block import Block
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from merging.testing.second_device import second_device

pytestmark = pytest.mark.slow


def small(folder: Path, images: int) -> tuple[ModelPool, Task]:
    """SqueezeNet with random weights, and noise."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8)
    task = Task(
        name="small",
        build=lambda pool: squeezenet1_1(num_classes=3),
        held_out=Split.of(pixels, torch.arange(images) % 3),
        prepare=Normalise((0.5,) * 3, (0.5,) * 3),
    )
    return noisy(squeezenet1_1(num_classes=3), folder, 2), task


@pytest.mark.parametrize("where", ["here", "second"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_run_the_same_module(precision: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.SUBJECTS, "small", (small, Block(), 6))
    with second_device() if where == "second" else contextlib.nullcontext():
        row = engine.measure("small", tmp_path, None, 1, precision)
    assert row["dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[precision]
    assert row["ratio"] > 0
    assert row["images"] == 6
