"""What every task promises."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from merging.plugins.functions import parameters_of
from merging.plugins.progress import Silent
from merging.plugins.task import CERTIFY, Split, Task
from merging.storage.atomic import save_safetensors
from merging.storage.pool import ModelPool
from merging.tasks.catalogue import load_task
from merging.testing.fixtures import tiny_pool
from merging.testing.plugins import Contract


class TaskContract(Contract):
    """Contract of a task. Supply ``plugin``, the registered function.

    Where it cannot be made without options (data of its own, for instance), state ``tiny`` where it is
    registered, a function that writes something small into a folder and returns the options, or override ``options``.
    """

    kind: ClassVar[str] = "task"

    @pytest.fixture
    def options(self, plugin: Any, tmp_path: Path) -> Mapping[str, Any]:
        """The options that [task] gives besides the name."""
        example = getattr(plugin, "tiny", None)
        return {} if example is None else example(tmp_path)

    @pytest.fixture
    def make(self, plugin: Any, options: Mapping[str, Any], own_cache: None) -> Callable[[], Task]:
        """Makes the task, as the command line does."""
        return lambda: load_task(plugin.name, Silent(), **options)

    @pytest.fixture
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Decoded pictures go where the test's files go."""
        monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def pool(self, make: Callable[[], Task], tmp_path: Path) -> ModelPool:
        """Checkpoints of its architecture: its own pool, or a module of its own making, or the tiny net's."""
        task = make()
        if task.pool is not None:
            return task.pool()
        if task.fresh is None:
            return tiny_pool(tmp_path / "tiny", models=1)
        state = task.fresh(len(task.classes) or _outputs(task)).state_dict()
        file = tmp_path / "fresh.safetensors"
        save_safetensors(file, {name: tensor.contiguous() for name, tensor in state.items()})
        return ModelPool.open([file])

    def test_every_option_has_help(self, plugin: Any) -> None:
        """The docstring's ``Args:`` say what each parameter is."""
        for option in parameters_of(plugin):
            assert option.spec.help, f"say in the docstring's Args: what '{option.name}' is"

    def test_has_the_sets_that_it_states(self, plugin: Any, make: Callable[[], Task]) -> None:
        """``sets``, where it is registered with them, names the held-out data and all test sets, as they come."""
        stated = tuple(getattr(plugin, "sets", ()))
        there = ("held-out", *make().tests)
        if stated:
            assert there == tuple(name for name in stated if name in there), f"it has {there}, and states {stated}"

    def test_makes_the_same_task_again(self, make: Callable[[], Task]) -> None:
        """The same samples in the same order, whatever the global generators are."""
        first = {name: split.fingerprint for name, split in _splits(make()).items()}
        torch.rand(1), np.random.default_rng().random(), random.random()  # noqa: S311 (not for secrets)
        again = {name: split.fingerprint for name, split in _splits(make()).items()}
        assert again == first, "it has other samples the second time"

    def test_leaves_the_global_generators_alone(self, make: Callable[[], Task]) -> None:
        """Random numbers come from generators of its own."""
        before = torch.random.get_rng_state(), random.getstate()
        make()
        assert torch.equal(torch.random.get_rng_state(), before[0]), "it draws from torch's global generator"
        assert random.getstate() == before[1], "it draws from Python's global generator"

    def test_what_selects_is_no_test(self, make: Callable[[], Task]) -> None:
        """Held-out and training samples are in no test set."""
        task = make()
        chosen = {"held-out": task.held_out} | ({} if task.train is None else {"train": task.train})
        for name, split in chosen.items():
            for test, other in task.tests.items():
                assert other.fingerprint != split.fingerprint, f"the test set '{test}' is the {name} data"

    def test_samples_are_on_the_cpu(self, make: Callable[[], Task]) -> None:
        """The evaluator moves them; labels are as many as samples."""
        for name, split in _splits(make()).items():
            assert split.tensor.device.type == split.labels.device.type == "cpu", name
            assert len(split.inputs) == len(split.labels) > 0, name

    def test_its_model_answers(self, make: Callable[[], Task], pool: ModelPool) -> None:
        """It is built, prepared samples go in, and what comes out has a place for every label."""
        task = make()
        module = task.build(pool).eval()
        for name, split in _splits(task).items():
            with torch.inference_mode():
                logits = split.project(module(task.prepare(split.tensor[:3])))
            assert logits.shape[0] == min(3, len(split)), f"{name}: {tuple(logits.shape)} for three samples"
            if split.categorical and name != CERTIFY:
                assert logits.ndim == 2, f"{name}: logits are of shape {tuple(logits.shape)}, not (N, classes)"
                assert int(split.labels.max()) < logits.shape[1], f"{name}: a label is none of the model's outputs"

    def test_builds_a_module_a_pool(self, make: Callable[[], Task], pool: ModelPool) -> None:
        """Weights are replaced in place: two builds share none."""
        task = make()
        one, other = task.build(pool), task.build(pool)
        shared = {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in other.parameters()} - {0}
        assert not shared, "build gives one module twice"


def _splits(task: Task) -> dict[str, Split]:
    """All that are there, by name."""
    found = {"held-out": task.held_out, "train": task.train, "unlabelled": task.unlabelled, **task.tests}
    return {name: split for name, split in found.items() if split is not None}


def _outputs(task: Task) -> int:
    """As many classes as its labels, or the classes that its sets name, need."""
    splits = [split for split in _splits(task).values() if split.categorical]
    named = [output for split in splits for group in split.classes or () for output in group]
    return 1 + max([int(split.labels.max()) for split in splits if split.classes is None] + named)
