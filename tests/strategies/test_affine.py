"""The affine soup: its optimisation against float64 by hand, its steps, and pools that are odd."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.errors import OptionError
from merging.plugins.registry import strategies
from merging.storage.pool import ModelPool
from merging.strategies.learned import Learned
from merging.strategies.wise_ft import WiseFt
from merging.testing.fixtures import TinyNet, blobs, tiny_problem, tiny_task

pytestmark = pytest.mark.gpu
Array = NDArray[np.float64]
STEPS, RATE = 11, 0.05


def affine(**options: object) -> Learned:
    return Learned(profile="affine", **options)  # type: ignore[arg-type]


def gradients(rows: list[dict[str, Array]], table: Array, scale: float, x: Array, y: Array) -> tuple[Array, float]:
    """Derivatives of the cross-entropy of a mix of linear classifiers by its table, ``(rows, 2)``, and by the scale."""
    weight = sum(t * row["weight"] for t, row in zip(table[:, 0], rows, strict=True))
    bias = sum(t * row["bias"] for t, row in zip(table[:, 1], rows, strict=True))
    logits = x @ np.asarray(weight).T + bias
    p = np.exp(scale * logits - (scale * logits).max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = (p - np.eye(p.shape[1])[y]) / len(y)
    by_weight, by_bias = scale * slope.T @ x, scale * slope.sum(0)
    found = np.array([[(by_weight * row["weight"]).sum(), (by_bias * row["bias"]).sum()] for row in rows])
    return found, float((slope * logits).sum())


def adam(start: Array, slopes: list[Array]) -> Array:
    """Where AdamW without decay is after these gradients, its rate falling by half a cosine over ``STEPS`` steps."""
    x, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(slopes):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = RATE * (1 + math.cos(math.pi * t / STEPS)) / 2
        x = x - rate * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    return x


def test_the_optimisation_against_float64_by_hand(tmp_path: Path) -> None:
    states = []
    for number in range(3):
        torch.manual_seed(number)
        states.append({name: tensor.detach() for name, tensor in nn.Linear(4, 3).state_dict().items()})
        save_file(states[-1], tmp_path / f"m{number}.safetensors")
    data = blobs(90, seed=1)
    task = merging.Task(name="linear", build=lambda pool: nn.Linear(4, 3), held_out=data)
    pool = ModelPool.open([tmp_path])
    by_tensor = merging.Custom(patterns=("weight=weight", "bias=bias"))
    problem, again = (tiny_problem(pool, task=task, partitioner=by_tensor) for _ in range(2))
    assert problem.partition.names == ("weight", "bias")
    recipe = affine(steps=STEPS, rate=RATE, batch=40).mix(problem)

    mean = again.mean(range(3))
    log = math.log(affine()._temperature(again, mean))
    models = [{name: tensor.double().numpy() for name, tensor in state.items()} for state in states]
    rows = [{name: np.mean([m[name] for m in models], 0) for name in models[0]}, *models]
    batches: list[tuple[Tensor, Tensor]] = []
    while len(batches) < STEPS:  # 90 samples: three batches of 30 an epoch, the fourth epoch is cut
        batches += again.slopes.batches("held-out", again.generator, 30)
    moved, slopes, sharp = np.zeros((3, 2)), list[Array](), list[Array]()
    for inputs, labels in batches[:STEPS]:
        assert len(labels) == 30
        x = adam(np.concatenate([moved.ravel(), [log]]), [np.concatenate([*pair]) for pair in zip(slopes, sharp)])  # noqa: B905
        now, scale = x[:-1].reshape(3, 2), math.exp(x[-1])
        table = np.vstack([1 - now.sum(0), now])
        found, by_scale = gradients(rows, table, scale, inputs.double().numpy(), labels.numpy())
        slopes.append((found[1:] - found[0]).ravel())
        sharp.append(np.array([by_scale * scale]))
    x = adam(
        np.concatenate([moved.ravel(), [log]]), [np.concatenate([*pair]) for pair in zip(slopes, sharp, strict=True)]
    )
    now = x[:-1].reshape(3, 2)
    wanted = now + (1 - now.sum(0)) / 3
    assert np.abs(now).max() > 0.1, "it went somewhere"
    assert np.allclose(recipe.coefficients, wanted, atol=2e-4)


@pytest.mark.parametrize(("samples", "size", "cost"), [(90, 90, 3.0), (300, 100, 1.0), (1280, 128, 0.3)])
def test_the_number_of_steps_does_not_depend_on_the_samples(
    pool: ModelPool, samples: int, size: int, cost: float
) -> None:
    task = merging.Task(name="blobs", build=lambda pool: TinyNet(), held_out=blobs(samples, seed=1))
    problem = tiny_problem(pool, task=task)
    said: list[str] = []
    problem.progress.say = said.append  # type: ignore[method-assign]
    affine(steps=20).mix(problem)
    passes = problem.evaluator.ledger.total.forward_equivalents
    assert passes == pytest.approx(20 * cost + 3, abs=1e-6), "the mean, its logits, the steps, the soup"
    assert said == [
        f"learning: 20 steps of {size} samples, {20 * cost:.0f} forward-equivalents on {samples:,} held-out samples"
    ]


def test_from_400_samples_on_it_costs_160_forward_equivalents_at_the_most() -> None:
    for count in range(400, 30_000):
        size = math.ceil(count / math.ceil(count / 128))
        assert 140 * 3 * size / count < 160 - 10


@pytest.mark.parametrize("block", [2, 3])
def test_blocks_share_the_steps(pool: ModelPool, block: int) -> None:
    problem = tiny_problem(pool)
    recipe = affine(steps=30, block=block).mix(problem)
    blocks = math.ceil(5 / block)
    passes = problem.evaluator.ledger.total.forward_equivalents
    assert passes == pytest.approx(3 * 30 + 1 + blocks, abs=3 * blocks), "30 steps in all, an evaluation a block"
    assert np.allclose(recipe.coefficients.sum(0), 1.0)
    assert set(recipe.names) == set(pool.names)


def test_coefficients_may_be_negative_and_the_pool_s_order_is_no_matter(pool: ModelPool, tmp_path: Path) -> None:
    recipe = affine().mix(tiny_problem(pool))
    assert (recipe.coefficients < 0).any()
    for number, checkpoint in enumerate(reversed(pool.checkpoints)):
        save_file(checkpoint.load(), tmp_path / f"model_{number}.safetensors")
    turned = affine().mix(tiny_problem(ModelPool.open([tmp_path / "model_*"])))
    assert np.allclose(recipe.coefficients, turned.coefficients[::-1], atol=5e-3)


def test_frozen_parts_stay_the_first_model_s_and_move_nothing(pool: ModelPool) -> None:
    problem = tiny_problem(pool, freeze=("^fc2$",))
    column = problem.partition.names.index("fc2")
    blend = problem.slopes.blend([problem.mean(range(5)), *map(problem.single, range(5))])
    table = np.full((6, len(problem.partition)), 1 / 6)
    _, slopes, _ = blend.gradient(table, next(iter(problem.slopes.batches("held-out", problem.generator, 50))))
    assert not slopes[:, column].any()
    assert slopes.any()
    recipe = affine(steps=15).mix(problem)
    assert recipe.terms(column) == [(pool.ingredients[0], 1.0)]
    assert len(recipe.terms(problem.partition.names.index("fc1"))) == 5


def odd(folder: Path, states: list[dict[str, Tensor]]) -> ModelPool:
    folder.mkdir()
    for number, state in enumerate(states):
        save_file(state, folder / f"m{number}.safetensors")
    return ModelPool.open([folder])


def test_two_models_a_duplicate_and_an_equal_layer(pool: ModelPool, tmp_path: Path) -> None:
    states = [checkpoint.load() for checkpoint in pool.checkpoints]
    for name, given in {
        "two": states[:2],
        "duplicate": [states[0], states[1], states[1]],
        "equal": [state | {n: states[0][n] for n in states[0] if n.startswith("fc1")} for state in states[:3]],
    }.items():
        problem = tiny_problem(odd(tmp_path / name, given))
        recipe = affine(steps=20).mix(problem)
        assert np.isfinite(recipe.coefficients).all()
        assert np.allclose(recipe.coefficients.sum(0), 1.0)
        assert (recipe.coefficients[:, problem.partition.names.index("fc2")] != 1 / len(given)).all(), "it has learned"
        if name == "duplicate":
            assert np.array_equal(recipe.coefficients[1], recipe.coefficients[2])
        if name == "equal":
            column = problem.partition.names.index("fc1")
            assert problem.partition.components[column].constant
            assert np.allclose(recipe.coefficients[:, column], 1 / 3)


class Tied(nn.Module):
    """Two names of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.b(self.a(x).relu()))
        return logits


def test_tied_tensors_have_one_coefficient(tmp_path: Path) -> None:
    for number in range(3):
        torch.manual_seed(number)
        torch.save(Tied().state_dict(), tmp_path / f"m{number}.pt")
    task = merging.Task(name="tied", build=lambda pool: Tied(), held_out=blobs(60, seed=1))
    result = merging.merge(
        ModelPool.open([tmp_path]), "affine", task=task, baselines=False, output=tmp_path / "out", device="cpu"
    )
    tensors = result.state_dict()
    assert torch.equal(tensors["a.weight"], tensors["b.weight"])
    assert not torch.equal(tensors["a.weight"], ModelPool.open([tmp_path / "m*"]).checkpoints[0].load()["a.weight"])


def test_models_at_odd_temperatures(pool: ModelPool, tmp_path: Path) -> None:
    """A pool whose logits are ten times too large is learned as if they were not: the temperature goes along."""
    states = [checkpoint.load() for checkpoint in pool.checkpoints]
    hot = [state | {n: 10 * state[n] for n in state if n.startswith("fc2")} for state in states]
    plain, large = (
        affine(steps=20).mix(tiny_problem(odd(tmp_path / name, given)))
        for name, given in {"plain": states, "hot": hot}.items()
    )
    assert np.allclose(plain.coefficients, large.coefficients, atol=2e-3)


@pytest.mark.parametrize("steps", [15, 140])
def test_partition_by_layer_where_nobody_names_one(pool: ModelPool, steps: int) -> None:
    settings = {"task": tiny_task(), "device": "cpu", "baselines": False, "tests": False}
    assert merging.merge(pool, affine(steps=steps), **settings).report.partitioner == "layer"
    assert merging.merge(pool, affine(steps=steps), partitioner="whole", **settings).report.partitioner == "whole"


def test_other_strategies_keep_theirs_and_one_on_top_asks_its_part() -> None:
    assert Learned().default_partitioner() == "whole"
    assert Learned(coefficients="affine").default_partitioner() == "whole", "only the name has other defaults"
    assert WiseFt().default_partitioner() == "whole"
    assert WiseFt(inner=affine()).default_partitioner() == "layer"
    assert WiseFt(inner="affine") == WiseFt(inner=affine())  # type: ignore[arg-type]


def test_options_beside_the_name() -> None:
    assert strategies["affine"](epochs=3).steps is None
    assert strategies["affine"](steps=70).options()["steps"] == 70
    with pytest.raises(OptionError, match="'steps' of 'affine' says how long it learns, and so does 'epochs'"):
        strategies["affine"](steps=70, epochs=3)
    with pytest.raises(OptionError, match="'coefficients' of 'affine' is 'convex', but the name says 'affine'"):
        affine(coefficients="convex")
    assert Learned().options() == {"coefficients": "convex", "epochs": None, "batch": 128, "rate": None, "block": 18}


@pytest.mark.parametrize(
    ("samples", "given", "size", "steps"),
    [
        (400, {}, 100, 140),
        (3584, {}, 128, 140),
        (3712, {}, 128, 145),  # 29 batches an epoch
        (13_000, {}, 449, 145),
        (26_000, {}, 510, 255),
        (26_000, {"batch_most": 128}, 128, 1020),
        (26_000, {"batch": 600}, 591, 220),
        (26_000, {"batch": 120}, 120, 1085),
        (748, {"batch": 8}, 8, 470),
        (1000, {"epochs": 30}, 125, 240),
        (13_000, {"steps": 20}, 128, 20),
        (26_000, {"profile": "affine"}, 128, 140),
        (26_000, {"epochs": 1}, 128, 204),
    ],
)
def test_large_sets_take_large_steps(samples: int, given: dict[str, Any], size: int, steps: int) -> None:
    class Large:
        """A problem over so many held-out samples."""

        class scores:
            labels = staticmethod(lambda: range(samples))

    learned = Learned(**given)
    assert learned._size(Large()) == size  # type: ignore[arg-type]
    assert learned._steps(Large(), 1.0) == steps  # type: ignore[arg-type]


def test_blocks_by_the_model_s_size_alone(pool: ModelPool) -> None:
    class Large:
        """A problem over models of so many numbers."""

        def __init__(self, models: int, numbers: int) -> None:
            self.pool = type("Pool", (), {"__len__": lambda _: models, "tensors": {"w": ((numbers,), "float16")}})()

    def sizes(models: int, numbers: int) -> list[int]:
        return [end - begin for begin, end in affine()._blocks(Large(models, numbers))]  # type: ignore[arg-type]

    assert sizes(200, 1_000_000) == [200]
    assert sizes(72, 87_849_216) == [18] * 4, "ViT-B/32: as Li et al. do"
    assert sizes(20, 87_849_216) == [10, 10], "of nearly one size"
    assert sizes(100, 25_000_000) == [34, 34, 32]
