"""What a user's model may get wrong, said in the user's words: outputs that are no logits, one sample for BatchNorm."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.errors import TaskError
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from merging.testing import blobs, tiny_task
from merging.testing.fixtures import tiny_numerics
from merging.training.hyperparameters import HyperParameters
from merging.training.trainer import Run, accuracy

Pair = namedtuple("Pair", "logits features")
OUTPUTS = {
    "tuple": (lambda logits: (logits, logits), "a tuple of 2"),
    "list": (lambda logits: [logits], "a list of 1"),
    "mapping": (lambda logits: OrderedDict(logits=logits, hidden=logits), "an? OrderedDict with logits, hidden"),
    "named": (lambda logits: Pair(logits, logits), "a Pair of 2"),
    "nothing": (lambda logits: None, "a NoneType"),
}


class Net(nn.Module):
    def __init__(self, answer: Any = lambda logits: logits) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.answer = answer

    def forward(self, inputs: Tensor) -> Any:
        return self.answer(self.fc2(torch.relu(self.norm(self.fc1(inputs)))))


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(Net().state_dict(), tmp_path / f"m{seed}.safetensors")
    return ModelPool.open([tmp_path])


def task(answer: Any = lambda logits: logits, train: Split | None = None) -> Task:
    return replace(tiny_task(), build=lambda pool: Net(answer), train=train)


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_model_that_gives_no_logits(kind: str, pool: ModelPool) -> None:
    answer, words = OUTPUTS[kind]
    with pytest.raises(TaskError, match=rf"the model gives {words}, not a tensor of logits; wrap it"):
        merging.merge(pool, merging.Uniform(), task=task(answer), device="cpu")
    with pytest.raises(TaskError, match=f"the model gives {words}"):
        merging.evaluate(pool.checkpoints[0], task(answer), device="cpu")


def test_training_a_model_that_gives_no_logits() -> None:
    with pytest.raises(TaskError, match="the model gives a tuple of 2"):
        accuracy(Net(OUTPUTS["tuple"][0]), task(), tiny_task().held_out, tiny_numerics())


def test_statistics_of_one_sample(pool: ModelPool) -> None:
    with pytest.raises(TaskError, match="BatchNorm needs at least two values a channel and was given a single sample"):
        merging.merge(pool, merging.Uniform(), task=task(train=blobs(1, seed=5)), device="cpu")
    assert merging.merge(pool, merging.Uniform(), task=task(train=blobs(2, seed=5)), device="cpu")
    assert merging.merge(pool, merging.Uniform(), task=task(train=blobs(1, seed=5)), device="cpu", recalibrate=False)


def test_training_on_one_sample() -> None:
    settings = HyperParameters(learning_rate=0.1, epochs=1, batch_size=8, optimizer="sgd")
    run = Run(Net(), task(train=blobs(1, seed=5)), settings, numerics=tiny_numerics())
    with pytest.raises(TaskError, match="was given a single sample"):
        run.step()
