"""What every regime of fine-tuning promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from merging.errors import Stopped
from merging.plugins.task import Split, Task
from merging.testing.fixtures import blobs, tiny_numerics
from merging.testing.plugins import PluginContract
from merging.training.hyperparameters import HyperParameters
from merging.training.regime import Regime
from merging.training.trainer import Run

SETTINGS = HyperParameters(learning_rate=0.05, weight_decay=0.0, epochs=4, batch_size=16, optimizer="sgd", warmup=0.0)


class TinyNormed(nn.Module):
    """A layer, BatchNorm and a head: what the regimes have parts for."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(features, 16), nn.BatchNorm1d(16)
        self.head = nn.Linear(16, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Class logits of a batch, shape ``(N, classes)``."""
        logits: Tensor = self.head(self.norm(self.layer(inputs)).relu())
        return logits


class RegimeContract(PluginContract):
    """Contract of a regime. Supply ``plugin``; override ``settings`` where it needs more epochs or batches."""

    kind: ClassVar[str] = "regime"

    @pytest.fixture
    def settings(self) -> HyperParameters:
        """Hyper-parameters of the runs: four epochs of ten steps."""
        return SETTINGS

    @pytest.fixture
    def task(self) -> Task:
        """A task with 160 samples to learn from."""
        train: Split = blobs(160, seed=7)
        return Task(name="blobs", build=lambda pool: _net(train), held_out=blobs(60, seed=8), train=train)

    @pytest.fixture
    def start(self, plugin: Regime, settings: HyperParameters, task: Task) -> Callable[..., list[Run]]:
        """Runs as the trainer hands them over: one, or where models are trained together two."""

        def runs(stop: Callable[[], bool] = lambda: False) -> list[Run]:
            own = [HyperParameters(**{**settings.options(), "seed": seed}) for seed in range(1 + plugin.together)]
            made = [Run(_net(blobs(9, seed=0)), task, each, numerics=tiny_numerics(), should_stop=stop) for each in own]
            plugin.check(own, made[0].module, [run.steps * run.settings.epochs for run in made])
            return made

        return runs

    def test_trains_to_the_end(self, plugin: Regime, start: Callable[..., list[Run]]) -> None:
        """Weights move and stay finite, and it comes back after each epoch, at most once for each."""
        runs = start()
        before = [{name: t.clone() for name, t in run.module.state_dict().items()} for run in runs]
        pauses = []
        for _ in itertools.islice(plugin.train(runs), 1000):
            assert all(run.done % run.steps == 0 for run in runs), "it yields within an epoch"
            pauses.append(tuple(run.done for run in runs))
        assert 1 <= len(pauses) <= SETTINGS.epochs * 10
        assert pauses == sorted(set(pauses)), "it yields twice without a step between"
        for run, old in zip(runs, before, strict=True):
            now = run.module.state_dict()
            assert any(not torch.equal(now[name], old[name]) for name in old), "nothing was trained"
            assert all(torch.isfinite(tensor).all() for tensor in now.values())

    def test_learns(self, plugin: Regime, start: Callable[..., list[Run]]) -> None:
        """The models are better than a guess."""
        runs = start()
        list(plugin.train(runs))
        assert max(run.held_out() for run in runs) > 0.4, "three classes, and no better than a guess"

    def test_gives_the_same_bits_again(self, plugin: Regime, start: Callable[..., list[Run]]) -> None:
        """Randomness comes from the runs' seeds."""
        ended = []
        for _ in range(2):
            runs = start()
            list(plugin.train(runs))
            ended.append([run.module.state_dict() for run in runs])
            torch.rand(3)
        for one, other in zip(*ended, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one), "another model the second time"

    def test_goes_on_where_it_was(self, plugin: Regime, start: Callable[..., list[Run]]) -> None:
        """A run that has some epochs behind it is trained to the end, and no further."""
        runs, again = start(), start()
        training = plugin.train(runs)
        next(training)
        for run, other in zip(runs, again, strict=True):
            other.restore(run.state())
        list(plugin.train(again))
        list(training)
        assert [run.done for run in again] == [run.done for run in runs], "it does not end where it would have"

    def test_lets_an_interruption_through(self, plugin: Regime, start: Callable[..., list[Run]]) -> None:
        """``Stopped`` reaches the trainer, which keeps the state."""
        asked = itertools.count()
        runs = start(lambda: next(asked) >= 3)
        with pytest.raises(Stopped):
            list(plugin.train(runs))


def _net(split: Any) -> TinyNormed:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TinyNormed(split.inputs.shape[1], 5)
