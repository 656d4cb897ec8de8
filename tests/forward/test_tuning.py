"""``--tune``: what is tried on a device, and what happens where a batch has no room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from merging.errors import OptionError
from merging.forward.device import batch_for, on_device
from merging.forward.numerics import Numerics
from merging.forward.tuning import tuned
from merging.partitioners.layer import Layer
from merging.plugins.progress import Silent
from merging.plugins.task import Task
from merging.running.plan import plan
from merging.strategies.uniform import Uniform
from merging.testing import TinyNet, blobs, tiny_pool, tiny_task


def test_larger_batches_than_the_rule_are_tried(tmp_path: Path, device: str) -> None:
    sizes: set[int] = set()

    class Seen(TinyNet):
        def forward(self, inputs: Tensor) -> Tensor:
            sizes.add(len(inputs))
            return super().forward(inputs)

    task = Task(name="large", build=lambda pool: Seen(), held_out=blobs(5000, 1))
    made = plan(tiny_pool(tmp_path), Uniform(), partitioner=Layer(), task=task, device=device, tune=True)
    assert {128, 256, 512, 1024, 2048} <= sizes
    assert made.numerics is not None
    assert made.numerics.batch in sizes


def test_a_batch_without_room_is_not_chosen(device: str) -> None:
    class Small(TinyNet):
        most = 300

        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(inputs)

    class Heard(Silent):
        said = ""

        def say(self, text: str) -> None:
            self.said += text

    module, heard = on_device(Small(), device), Heard()
    inputs = blobs(3000, 1).inputs
    rule = Numerics.choose(device, module, inputs[0])
    assert rule.batch == 512
    task = tiny_task()
    chosen = tuned(rule, module, lambda x: batch_for(task, x, device), inputs, heard)
    assert chosen.batch in (128, 256)
    assert "the rule's has no room" in heard.said
    module.most = 0
    with pytest.raises(OptionError, match=r"no room on cuda, not even for 128 samples; try `device=cpu`"):
        tuned(rule, module, lambda x: batch_for(task, x, device), inputs, heard)


@pytest.mark.parametrize(("samples", "tried"), [(5000, 2048), (1500, 1024), (600, 512)])
def test_a_cpu_tries_larger_batches_while_they_are_faster(
    samples: int, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds here are passes through the module: the larger the batch, the fewer."""
    passes: list[int] = []

    class Counted(TinyNet):
        def forward(self, inputs: Tensor) -> Tensor:
            passes.append(len(inputs))
            return super().forward(inputs)

    def counted(work: Callable[[], object]) -> float:
        passes.clear()
        work()
        sizes.update(passes)
        return float(len(passes))

    sizes: set[int] = set()
    monkeypatch.setattr("merging.forward.tuning.median_seconds", counted)
    module, inputs = Counted(), blobs(samples, 1).inputs
    rule, task = Numerics.choose("cpu", module, inputs[0]), tiny_task()
    chosen = tuned(rule, module, lambda x: batch_for(task, x, "cpu"), inputs, Silent())
    assert chosen.batch == max(sizes) == tried
    monkeypatch.setattr("merging.forward.tuning.available_memory", lambda: 0)
    assert tuned(rule, module, lambda x: batch_for(task, x, "cpu"), inputs, Silent()).batch == 512
