"""Variances under negative coefficients: never zero or below, with the same bits wherever a merge is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.mixing.arithmetic import materialise, materialise_tensor
from merging.storage.pool import ModelPool
from merging.testing.fixtures import blobs, tiny_problem
from merging.values.recipe import Recipe


class Normed(nn.Module):
    """A linear classifier behind a BatchNorm layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.bn(inputs))
        return logits


VARIANCES = ([0.5, 1.0, 2.0, 0.0], [4.0, 1.5, 2.0, 0.0], [3.0, 0.2, 2.0, 0.0])


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    """Three classifiers whose variances differ widely."""
    (tmp_path / "pool").mkdir()
    for number, variances in enumerate(VARIANCES):
        torch.manual_seed(number)
        save_file(
            Normed().state_dict() | {"bn.running_var": torch.tensor(variances)},
            tmp_path / f"pool/m{number}.safetensors",
        )
    return ModelPool.open([tmp_path / "pool"])


def task(*, train: bool) -> merging.Task:
    data = {"train": blobs(150, seed=4)} if train else {}
    return merging.Task(name="normed", build=lambda pool: Normed(), held_out=blobs(90, seed=1), **data)  # type: ignore[arg-type]


def test_a_tenth_of_the_smallest_and_the_same_bits_everywhere(pool: ModelPool, tmp_path: Path) -> None:
    problem = tiny_problem(pool, task=task(train=False))
    column = np.array([1.5, -0.6, 0.1])
    recipe = Recipe(pool.ingredients, problem.partition, np.repeat(column[:, None], len(problem.partition), axis=1))
    exact = column @ np.array(VARIANCES)
    assert exact[0] < 0.05 < exact[1], "one falls below, another does not"
    wanted = np.maximum(exact, 0.1 * np.min(VARIANCES, axis=0)).astype(np.float32)
    found = materialise(recipe, pool)
    assert np.array_equal(found["bn.running_var"].numpy(), wanted)
    problem.evaluator.evaluate(recipe)
    live = problem.evaluator.gradients._live  # type: ignore[attr-defined]
    assert torch.equal(live.module.bn.running_var, found["bn.running_var"])
    merging.apply(recipe, models=[tmp_path / "pool"], output=tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in load_file(tmp_path / "model.safetensors").items())


def test_averages_are_as_they_were(pool: ModelPool) -> None:
    problem = tiny_problem(pool, task=task(train=False))
    recipe = problem.mean(range(3))
    column = problem.partition.names.index("bn")
    own = materialise_tensor(recipe, pool, "bn.running_var", column)
    assert torch.equal(own, torch.tensor(VARIANCES, dtype=torch.float64).mul(1 / 3).sum(0).float())


def test_a_trial_beyond_the_ends(pool: ModelPool) -> None:
    problem = tiny_problem(pool, task=task(train=False))
    path = problem.search.between(problem.single(0), problem.single(1))
    outcome = path(np.full(len(problem.partition), 1.5))
    assert outcome.nan == 0
    live = problem.evaluator.gradients._live  # type: ignore[attr-defined]
    assert live.module.bn.running_var[0] == pytest.approx(0.05), "1.5 · 0.5 − 0.5 · 4 is below"


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("recalibrate", [None, False])
def test_affine_never_answers_nan(pool: ModelPool, *, train: bool, recalibrate: bool | None) -> None:
    result = merging.merge(
        pool, merging.Learned(profile="affine", rate=0.1), task=task(train=train), recalibrate=recalibrate, device="cpu"
    )
    row = result.report.merged
    assert row is not None
    assert row.coefficients is not None
    assert (row.coefficients.negative > 0) or train, "the test is one of negative coefficients"
    assert not any("NaN" in note or "negative variance" in note for note in result.report.notes)
    assert all((tensor >= 0).all() for name, tensor in result.state_dict().items() if name.endswith("running_var"))


@pytest.mark.parametrize(
    "strategy",
    [merging.TaskArithmetic(scale=1.8), merging.Weighted(weights=("m0=2.5", "m1=-1.5")), merging.Ties(scale=2.0)],
)
def test_whatever_has_negative_coefficients(pool: ModelPool, tmp_path: Path, strategy: merging.MixStrategy) -> None:
    base = Normed().state_dict() | {"bn.running_var": torch.full((4,), 5.0)}
    save_file(base, tmp_path / "base.safetensors")
    result = merging.merge([tmp_path / "pool"], strategy, base=tmp_path / "base.safetensors", task=task(train=False))
    assert not any("NaN" in note or "negative variance" in note for note in result.report.notes)
    assert (result.state_dict()["bn.running_var"] >= 0).all()
