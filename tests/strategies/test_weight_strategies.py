"""Strategies that only see weights, against float64 references written straight from their papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import merging
from merging.errors import MergingError
from merging.mixing.sides import Sides, held
from merging.mixing.spherical import karcher, slerp
from merging.mixing.thinning import ByRank
from merging.partitioners.layer import Layer
from merging.plugins.strategy import MixStrategy
from merging.storage.pool import ModelPool
from merging.storage.raw import bytes_of
from merging.strategies.breadcrumbs import Breadcrumbs
from merging.strategies.dare import Dare
from merging.strategies.della import Della
from merging.strategies.model_stock import ModelStock
from merging.strategies.sce import Sce
from merging.strategies.slerp import Slerp
from merging.strategies.task_arithmetic import TaskArithmetic
from merging.strategies.ties import Ties
from merging.strategies.uniform import Uniform
from merging.strategies.weighted import Weighted
from merging.testing import tiny_pool, tiny_task
from merging.values.recipe import Recipe, Weights

FLOATS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "unused")


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return tiny_pool(tmp_path / "pool", models=4)


def merged(pool: ModelPool, strategy: MixStrategy, tmp_path: Path, **settings: object) -> dict[str, Tensor]:
    """Written without a task, streamed; the same bits as with one, in memory."""
    out = tmp_path / "out"
    fresh = ModelPool(pool.checkpoints, pool.base)
    merging.merge(fresh, strategy, partitioner=Layer(), output=out, **settings)  # type: ignore[arg-type]
    written = load_file(out / "model.safetensors")
    scored = merging.merge(
        pool,
        strategy,
        partitioner=Layer(),
        task=tiny_task(),
        baselines=False,
        tests=False,
        **settings,  # type: ignore[arg-type]
    )
    for name, tensor in scored.state_dict().items():
        assert torch.equal(tensor, written[name]), name
    return written


def states(pool: ModelPool) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    assert pool.base is not None
    return [c.load() for c in pool.checkpoints], pool.base.load()


def near(found: Tensor, wanted: Tensor) -> None:
    assert torch.allclose(found.double(), wanted, rtol=1e-6, atol=1e-7)


def test_weighted(pool: ModelPool, tmp_path: Path) -> None:
    strategy = Weighted(weights=("model_*=1", "model_0=2", "model_3@fc2=0", "model_1@fc2=-1"))
    found, (models, _) = merged(pool, strategy, tmp_path), states(pool)
    for name in FLOATS:
        weights = [2.0, -1.0, 1.0, 0.0] if name.startswith("fc2") else [2.0, 1.0, 1.0, 1.0]
        near(found[name], sum(w * m[name].double() for w, m in zip(weights, models, strict=True)) / sum(weights))  # type: ignore[arg-type]
    assert found["steps"] == models[0]["steps"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((), "`strategy.weights=model_0=0.5`"),
        (("model_9=1",), "unknown model 'model_9'; did you mean"),
        (("model_0@fc3=1",), "unknown component 'fc3'; did you mean 'fc"),
        (("model_0=x",), "'model_0=x' is not MODEL=WEIGHT"),
        (("model_0=nan",), "is not MODEL=WEIGHT"),
        (("model_0=1", "model_1=-1"), "add up to 0"),
    ],
)
def test_weights_that_cannot_be_used(pool: ModelPool, tmp_path: Path, weights: tuple[str, ...], said: str) -> None:
    with pytest.raises(MergingError) as error:
        merging.merge(pool, Weighted(weights=weights), partitioner=Layer(), output=tmp_path / "out")
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", [None, 0.3, -0.5])
def test_task_arithmetic(pool: ModelPool, tmp_path: Path, scale: float | None) -> None:
    found, (models, base) = merged(pool, TaskArithmetic(scale=scale), tmp_path), states(pool)
    for name in FLOATS:
        start = base[name].double()
        factor = 0.25 if scale is None else scale
        near(found[name], start + factor * sum((m[name].double() - start for m in models), torch.zeros(())))
    if scale is None:
        uniform = merging.merge(pool, Uniform()).state_dict()
        assert torch.allclose(uniform["fc1.weight"], found["fc1.weight"], atol=1e-7)


def test_model_stock(pool: ModelPool, tmp_path: Path) -> None:
    found, (models, base) = merged(pool, ModelStock(), tmp_path), states(pool)
    for name in FLOATS:
        changes = np.stack([(m[name].double() - base[name].double()).numpy().ravel() for m in models])
        unit = changes / np.linalg.norm(changes, axis=1, keepdims=True)
        table = unit @ unit.T
        cosine = max(float(np.mean([table[i, j] for i in range(4) for j in range(i)])), 0.0)
        t = 4 * cosine / (1 + 3 * cosine)
        mean = np.mean([m[name].double().numpy() for m in models], axis=0)
        near(found[name], torch.from_numpy(t * mean + (1 - t) * base[name].double().numpy()))
    recipe = merging.merge(pool, ModelStock()).merge
    assert isinstance(recipe, Recipe), "linear, so that a recipe holds it"
    assert np.allclose(recipe.coefficients.sum(0), 1)


def ties_reference(models: list[np.ndarray], base: np.ndarray, density: float, scale: float) -> np.ndarray:
    """Algorithm 1 on whole flat models."""
    changes = [m - base for m in models]
    for change in changes:
        size = np.abs(change.astype(np.float32))
        cut = np.sort(size)[::-1][round(len(size) * density) - 1]
        change[size < cut] = 0
    total = np.sum(changes, axis=0)
    sign = np.where(total < 0, -1, 1)
    agrees = [np.where(np.sign(c) == sign, c, 0) for c in changes]
    count = np.sum([a != 0 for a in agrees], axis=0)
    return base + scale * np.sum(agrees, axis=0) / np.maximum(count, 1)


@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.6, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_ties(pool: ModelPool, tmp_path: Path, density: float, scale: float, scope: str) -> None:
    found = merged(pool, Ties(density=density, scale=scale, scope=scope), tmp_path)
    models, base = states(pool)
    groups = [FLOATS] if scope == "model" else [(name,) for name in FLOATS]
    for names in groups:
        flat = [torch.cat([s[n].double().ravel() for n in names]).numpy() for s in (*models, base)]
        wanted = torch.from_numpy(ties_reference(flat[:-1], flat[-1], density, scale))
        near(torch.cat([found[n].ravel() for n in names]), wanted)


def test_nothing_dropped_is_task_arithmetic(pool: ModelPool, tmp_path: Path) -> None:
    found = merged(pool, Dare(drop=0.0, scale=0.3), tmp_path)
    wanted = merging.merge(pool, TaskArithmetic(scale=0.3)).state_dict()
    for name in FLOATS:
        near(found[name], wanted[name].double())


def test_dare_drops_its_share_and_rescales(pool: ModelPool, tmp_path: Path) -> None:
    one = ModelPool(pool.checkpoints[:1], pool.base)
    found, (models, base) = merged(one, Dare(drop=0.75), tmp_path), states(one)
    kept = 0
    for name in FLOATS:
        change, before = found[name].double() - base[name].double(), models[0][name].double() - base[name].double()
        stays = change != 0
        kept += int(stays.sum())
        near(change[stays], 4 * before[stays])
    total = sum(base[name].numel() for name in FLOATS)
    assert 0.1 * total < kept < 0.45 * total
    other = merging.merge(one, Dare(drop=0.75), seed=1).state_dict()
    assert not torch.equal(other["fc1.weight"], found["fc1.weight"])


def test_dare_with_signs(pool: ModelPool, tmp_path: Path) -> None:
    found, (models, base) = merged(pool, Dare(drop=0.0, method="ties"), tmp_path), states(pool)
    flat = [torch.cat([s[n].double().ravel() for n in FLOATS]).numpy() for s in (*models, base)]
    near(torch.cat([found[n].ravel() for n in FLOATS]), torch.from_numpy(ties_reference(flat[:-1], flat[-1], 1.0, 1.0)))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_of_two(pool: ModelPool, tmp_path: Path, t: float) -> None:
    two = ModelPool(pool.checkpoints[:2])
    found, models = merged(two, Slerp(t=t), tmp_path), [c.load() for c in two.checkpoints]
    for name in FLOATS:
        a, b = (m[name].double().numpy().ravel() for m in models)
        u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
        angle = np.arccos(np.clip(u @ v, -1, 1))
        direction = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle)
        length = (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
        near(found[name].ravel(), torch.from_numpy(length * direction))


def test_the_karcher_mean_has_no_gradient(pool: ModelPool, tmp_path: Path) -> None:
    """At the mean the tangents towards all models add up to zero (Karcher 1977)."""
    models = [c.load()["fc1.weight"].double() for c in pool.checkpoints]
    mean = karcher(models)
    assert float(mean.norm()) == pytest.approx(np.mean([float(m.norm()) for m in models]))
    centre = (mean / mean.norm()).ravel()
    tangents = []
    for model in models:
        unit = (model / model.norm()).ravel()
        across = unit - (centre @ unit) * centre
        tangents.append(torch.arccos(centre @ unit) * across / across.norm())
    assert float(torch.stack(tangents).sum(0).norm()) < 1e-9
    near(merged(pool, Slerp(), tmp_path)["fc1.weight"], mean)


def test_the_karcher_mean_of_two_is_half_the_arc() -> None:
    a, b = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(karcher([a, b]), slerp(a, b, 0.5))


def test_arcs_that_are_not_defined_are_straight() -> None:
    a, zero = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assert torch.equal(slerp(a, -a, 0.25), torch.lerp(a, -a, 0.25))
    assert torch.equal(slerp(a, zero, 0.5), a / 2)
    assert torch.equal(karcher([a, -a, zero]), zero)
    assert torch.equal(karcher([a, -a]), zero)
    assert torch.equal(slerp(a, a, 0.3), a)


def test_t_is_for_two_models(pool: ModelPool, tmp_path: Path) -> None:
    with pytest.raises(MergingError, match="'t' of 'slerp' is for two models, not 4"):
        merging.merge(pool, Slerp(t=0.3), output=tmp_path / "out")


def test_weights_carry_their_lineage_and_frozen_parts(pool: ModelPool, tmp_path: Path) -> None:
    fresh = ModelPool(pool.checkpoints, pool.base)
    result = merging.merge(fresh, Ties(), partitioner=Layer(), output=tmp_path / "out", freeze=["fc1"])
    assert isinstance(result.merge, Weights)
    assert [i.hash for i in result.merge.ingredients] == [i.hash for i in (*pool.ingredients, pool.base_ingredient)]
    assert result.merge.strategy == "ties"
    assert result.merge.hash == result.report.content_hash
    written, first = load_file(tmp_path / "out" / "model.safetensors"), pool.checkpoints[0].load()
    assert torch.equal(written["fc1.weight"], first["fc1.weight"])
    assert not torch.equal(written["fc2.weight"], first["fc2.weight"])


def test_the_band_keeps_what_lies_between(pool: ModelPool, tmp_path: Path) -> None:
    found, (models, base) = merged(pool, Breadcrumbs(density=0.5, gamma=0.2, scale=0.3), tmp_path), states(pool)
    for name in FLOATS:
        start = base[name].double().numpy()
        total = np.zeros(start.size)
        for model in models:
            change = (model[name].double().numpy() - start).ravel()
            order = np.argsort(-np.abs(change.astype(np.float32)), kind="stable")
            kept, first = int(0.5 * len(change)), int(0.2 * len(change))
            places = order[first : first + kept]
            total[places] += change[places]
        near(found[name].ravel(), torch.from_numpy(start.ravel() + 0.3 * total))


def test_large_changes_are_dropped_less_often_and_none_is_biased() -> None:
    change = torch.randn(200, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    read = held([bytes_of(change)] * 60 + [bytes_of(torch.zeros_like(change))], "float64")
    sides = Sides(name="w", shape=(200, 100), dtype="float64", models=60, read=read)
    thinned = change.reshape(1, -1).repeat(60, 1).numpy()
    ByRank(0.5, 0.3, seed=1).of(sides)(thinned, 0)
    drawn = torch.from_numpy(thinned).view(60, 200, 100)
    ranks = change.abs().argsort(dim=1).argsort(dim=1)
    stays = (drawn != 0).double().mean(0)
    assert float(stays[ranks == 0].mean()) == pytest.approx(0.2, abs=0.02)
    assert float(stays[ranks == 99].mean()) == pytest.approx(0.8, abs=0.02)
    assert float((drawn.mean(0) * change).sum() / change.square().sum()) == pytest.approx(1.0, abs=0.01)


def test_sce(pool: ModelPool, tmp_path: Path) -> None:
    found, (models, base) = merged(pool, Sce(density=0.5), tmp_path), states(pool)
    for name in FLOATS:
        start = base[name].double().numpy().ravel()
        changes = np.stack([m[name].double().numpy().ravel() - start for m in models])
        variance = changes.var(axis=0)
        places = np.argsort(-variance, kind="stable")[int(np.count_nonzero(variance > 1e-30) * 0.5) :]
        changes[:, places] = 0
        shares = np.square(changes).sum(axis=1)
        shares = shares / shares.sum() if shares.sum() else np.full(len(shares), 1 / len(shares))
        agrees = changes * np.where(changes.sum(axis=0) < 0, -1, 1) > 0
        weighed = (agrees * shares[:, None]).sum(axis=0)
        total = (agrees * changes * shares[:, None]).sum(axis=0) / np.where(weighed == 0, 1, weighed)
        near(found[name].ravel(), torch.from_numpy(start + total))


def test_weights_of_components(pool: ModelPool, tmp_path: Path) -> None:
    strategy = TaskArithmetic(scale=1.0, weights=("model_*=0.5", "model_1@fc2=-1"), normalize=False)
    found, (models, base) = merged(pool, strategy, tmp_path), states(pool)
    for name in FLOATS:
        weights = [0.5, -1.0 if name.startswith("fc2") else 0.5, 0.5, 0.5]
        start = base[name].double()
        near(found[name], start + sum(w * (m[name].double() - start) for w, m in zip(weights, models, strict=True)))


def test_probabilities_that_are_none() -> None:
    with pytest.raises(MergingError, match=r"'epsilon' of 'della' is 0.3, but .* with density 0.2 at most 0.2"):
        Della(density=0.2, epsilon=0.3)
