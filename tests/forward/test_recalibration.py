"""BatchNorm statistics of averages are measured again: on the real ResNet-20 (He et al. 2016) and CIFAR-10 images."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from benchmarks.resnet20 import ResNet20
from merging.data.images import Normalise
from merging.data.npz import load_npz
from merging.forward.recalibration import equal_batches, recalibrate, statistics_of
from merging.plugins.task import Task
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.strategies.learned import Learned
from merging.strategies.lines import Lines
from merging.strategies.manifoldmix import ManifoldMix
from merging.strategies.monosoup import MonoSoup
from merging.strategies.shrink import Shrink
from merging.strategies.slerp import Slerp
from merging.strategies.swa import Swa
from merging.strategies.uniform import Uniform
from merging.values.recipe import Ensemble, Recipe, Weights
from tests.conftest import Merge

pytestmark = pytest.mark.gpu

DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")


def rescaled(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same function: filters scaled channel by channel, and the statistics behind them too."""
    generator, scaled = torch.Generator().manual_seed(seed), dict(state)
    for name in [name for name in state if name.endswith("running_mean")]:
        norm = name.removesuffix(".running_mean")
        factors = torch.exp(1.2 * torch.randn(len(state[name]), generator=generator))
        filters = norm.replace("bn", "conv") + ".weight"
        scaled[filters] = state[filters] * factors[:, None, None, None]
        scaled[name] = state[name] * factors
        scaled[f"{norm}.running_var"] = state[f"{norm}.running_var"] * factors**2
    return {name: tensor.contiguous() for name, tensor in scaled.items()}


def excerpt(key: str, chosen: slice, folder: Path) -> str:
    with np.load(DATA / "cifar10.npz") as arrays:
        data, offsets, labels = (arrays[f"{key}_{part}"] for part in ("jpeg", "offsets", "labels"))
    numbers = range(len(labels))[chosen]
    parts = [data[offsets[i] : offsets[i + 1]] for i in numbers]
    ends = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    path = folder / f"{key}.npz"
    np.savez(path, **{"x_jpeg": np.concatenate(parts), "x_offsets": ends, "x_labels": labels[list(numbers)]})
    return f"{path}:x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models that compute the same and share no filter, 500 held-out and 512 training images."""
    folder = tmp_path_factory.mktemp("resnet")
    (folder / "pool").mkdir()
    state = load_file(DATA / "cifar10_resnet20.safetensors")
    for number in range(3):
        save_file(rescaled(state, number), folder / "pool" / f"model_{number}.safetensors")
    excerpt("test", slice(0, None, 20), folder)
    excerpt("train", slice(0, None, 98), folder)
    return folder


def task(folder: Path, *, train: bool = True) -> Task:
    own = load_npz(f"{folder / 'train.npz'}:x") if train else None
    prepare = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    held_out = load_npz(f"{folder / 'test.npz'}:x")
    return Task(
        name="resnet",
        build=lambda pool: ResNet20(),
        held_out=held_out,
        tests={"test": held_out},
        prepare=prepare,
        train=own,
    )


@pytest.mark.slow
@with_data
def test_an_average_is_as_good_as_its_models_again(folder: Path, tmp_path: Path) -> None:
    pool = ModelPool.open([folder / "pool"])
    single = merging.evaluate(folder / "pool/model_0.safetensors", task(folder))["held-out"].accuracy
    assert 0.76 < single < 0.86, "81.0 % on the whole test copy"
    stale = merging.merge(pool, Uniform(), task=task(folder), recalibrate=False, baselines=False)
    assert stale.report.rows[-1].held_out < single - 0.1
    assert any("averaged, not measured again on data" in note for note in stale.report.notes)
    fresh = merging.merge(pool, Uniform(), task=task(folder), output=tmp_path / "out", baselines=False)
    assert abs(fresh.report.rows[-1].held_out - single) < 0.02
    count = len(load_npz(f"{folder / 'train.npz'}:x"))
    batches = -(-count // fresh.report.numerics["batch"])  # of one size: 510 samples on a CPU
    measured = count // batches * batches
    assert any("19 layers" in note and f"measured again on {measured}" in note for note in fresh.report.notes)
    assert fresh.report.rows[-1].forward_equivalents == pytest.approx(1 + measured / 500), "measuring costs passes too"
    assert isinstance(fresh.merge, Recipe)
    assert set(fresh.merge.overrides) == set(statistics_of(ResNet20()))
    # what was written is what was scored, and comes back bit for bit
    written = load_file(tmp_path / "out/model.safetensors")
    again = merging.evaluate(tmp_path / "out/model.safetensors", task(folder))["held-out"]
    assert again.accuracy == fresh.report.rows[-1].held_out
    assert (tmp_path / "out/overrides.safetensors").exists()
    rebuilt = merging.evaluate(tmp_path / "out/recipe.json", task(folder))["held-out"]
    assert rebuilt.accuracy == again.accuracy
    assert torch.equal(written["bn1.running_mean"], fresh.merge.overrides["bn1.running_mean"])
    assert torch.equal(
        written["bn1.num_batches_tracked"], load_file(folder / "pool/model_0.safetensors")["bn1.num_batches_tracked"]
    )


@pytest.mark.slow
@with_data
@pytest.mark.parametrize(
    "strategy",
    [Greedy(accept_ties=True), Swa(last=2), Slerp(), Learned(epochs=1), ManifoldMix(tau=0.9, budget=4)],
    ids=lambda s: s.name,
)
def test_searches_judge_averages_by_what_they_can_do(folder: Path, strategy: merging.MixStrategy) -> None:
    """Without, every average scores far below the single models, and nothing would ever be accepted."""
    pool = ModelPool.open([folder / "pool"])
    result = merging.merge(pool, strategy, task=task(folder), baselines=False, tests=False)
    assert result.report.rows[-1].held_out > 0.74
    if isinstance(result.merge, Weights):
        assert result.merge.measured == set(statistics_of(ResNet20()))


@pytest.mark.slow
@with_data
@pytest.mark.parametrize("strategy", [Lines(alpha=0.5), Shrink(), MonoSoup(smallest=1.0)], ids=lambda s: s.name)
def test_edits_are_averages_too(folder: Path, tmp_path: Path, strategy: merging.MixStrategy) -> None:
    base = tmp_path / "base.safetensors"
    save_file(rescaled(load_file(DATA / "cifar10_resnet20.safetensors"), 7), base)
    pool = ModelPool.open([folder / "pool"], base)
    result = merging.merge(pool, strategy, task=task(folder), output=tmp_path / "out", baselines=False, tests=False)
    assert result.report.rows[-1].held_out > 0.74, "far below, where statistics are averaged"
    assert not isinstance(result.merge, Ensemble)
    assert result.merge.measured == set(statistics_of(ResNet20()))
    if isinstance(result.merge, Recipe):
        again, written = merging.apply(tmp_path / "out").state_dict(), load_file(tmp_path / "out/model.safetensors")
        assert all(torch.equal(again[name], tensor) for name, tensor in written.items())


@pytest.mark.slow
@with_data
def test_the_same_bits_twice(folder: Path) -> None:
    pool = ModelPool.open([folder / "pool"])
    first, second = (
        merging.merge(pool, Uniform(), task=task(folder), baselines=False, tests=False).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@with_data
def test_the_command(merge: Merge, folder: Path) -> None:
    toml = (
        "[task]\nmodel = 'python:benchmarks.resnet20:model'\n"
        f"held_out = '{folder / 'test.npz'}:x'\ntrain = '{folder / 'train.npz'}:x'\n"
        "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
        f"[pool]\nmodels = ['{folder / 'pool'}']\n"
    )
    Path("merge.toml").write_text(toml)
    scores = {}
    for flag in ("--recalibrate", "--no-recalibrate"):
        out = flag.strip("-")
        ran = merge("run", "--strategy", "uniform", "--trust-code", "--no-baselines", flag, "--output", out)
        assert ran.code == 0, ran.err
        scores[flag] = json.loads(Path(out, "report.json").read_text())["rows"][-1]["held_out"]
    assert scores["--recalibrate"] > scores["--no-recalibrate"] + 0.1
    Path("merge.toml").write_text("\n".join(line for line in toml.splitlines() if not line.startswith("train")))
    ran = merge("run", "--strategy", "uniform", "--trust-code", "--recalibrate", "--output", "none")
    assert ran.code == 2
    assert "give the task some (train, or unlabelled)" in ran.err
    assert not Path("none").exists()


@given(st.integers(1, 5000), st.integers(1, 600))
def test_batches_are_equal_few_and_leave_little_out(count: int, most: int) -> None:
    size, batches = equal_batches(count, most)
    assert 1 <= size <= most
    assert 0 <= count - size * batches < batches
    assert batches == math.ceil(count / most)


def test_statistics_are_exact_means_over_batches() -> None:
    """Against float64 by hand: means of batch means and of unbiased batch variances."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval()
    module[1].num_batches_tracked.fill_(7)
    data = torch.randn(5, 16, 4, generator=generator)
    recalibrate(module, iter(data))
    hidden = data.double() @ module[0].weight.detach().double().T + module[0].bias.detach().double()
    assert torch.allclose(module[1].running_mean.double(), hidden.mean((0, 1)), atol=1e-6)
    assert torch.allclose(module[1].running_var.double(), hidden.var(1).mean(0), atol=1e-6)
    assert module[1].num_batches_tracked == 7
    before = module[1].running_mean.clone()
    aside = nn.ModuleDict({"used": module, "unused": nn.BatchNorm1d(3)})
    aside.forward = aside["used"].forward  # type: ignore[method-assign]
    aside["unused"].running_mean.fill_(5.0)
    assert recalibrate(aside, iter(data)) == {"used.1.running_mean", "used.1.running_var"}
    assert (aside["unused"].running_mean == 5.0).all(), "a layer that no pass reaches keeps its statistics"
    assert torch.equal(module[1].running_mean, before)
    assert recalibrate(module, iter(data), {"another.running_mean"}) == frozenset()
    assert module[1].momentum == 0.1
    assert not module[1].training


def test_models_without_batch_norm_are_left_alone(tmp_path: Path) -> None:
    pool = merging.testing.tiny_pool(tmp_path)
    result = merging.merge(pool, Uniform(), task=merging.testing.tiny_task(), recalibrate=True, baselines=False)
    assert isinstance(result.merge, Recipe)
    assert not result.merge.overrides
    assert any("nothing to recalibrate" in note for note in result.report.notes)
    silent = merging.merge(pool, Uniform(), task=merging.testing.tiny_task(), baselines=False)
    assert not any("BatchNorm" in note for note in silent.report.notes)
    without = merging.testing.tiny_task()
    none = Task(name="blobs", build=without.build, held_out=without.held_out)
    with pytest.raises(merging.MergingError, match=r"give the task some \(train"):
        merging.merge(pool, Uniform(), task=none, recalibrate=True)
