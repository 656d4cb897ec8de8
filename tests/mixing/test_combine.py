"""What a strategy returns for a tensor is looked at once: a tensor, of the right shape, of the right kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging
from merging.errors import PartitionError, RecipeError, StrategyError
from merging.mixing.arithmetic import materialise
from merging.mixing.computed import Computed, check_merge
from merging.mixing.writing import Writing
from merging.partitioners.whole import Whole
from merging.plugins.problem import Problem
from merging.plugins.progress import Silent
from merging.plugins.strategy import MixStrategy
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.storage.raw import as_tensor
from merging.testing import tiny_pool, tiny_task
from merging.values.partition import Partition
from merging.values.recipe import Ensemble, Recipe, Weights
from tests.conftest import Merge

SHAPES = [(), (1,), (2,), (4,), (2, 2), (1, 2), (2, 1), (3, 2)]
KINDS = ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "int64", "bool", "complex64"]


@dataclass(frozen=True)
class Given(MixStrategy):
    """Returns for each tensor what a function makes of the mean."""

    name: ClassVar[str] = "given"
    make: ClassVar[Callable[[Tensor], Any]]

    def mix(self, problem: Problem) -> Weights:
        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Any:
            return type(self).make(torch.stack(models).mean(0))

        return problem.weights(self, combine)


def strategy(function: Callable[[Tensor], Any]) -> MixStrategy:
    return type("Own", (Given,), {"make": staticmethod(function)})()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: tensors of every shape, and an integer."""
    folder = tmp_path_factory.mktemp("shapes")
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        tensors = {f"w{list(shape)}": torch.randn(shape, generator=generator) for shape in SHAPES}
        save_file(tensors | {"steps": torch.tensor(3)}, folder / f"m{number}.safetensors")
    return folder


@given(shape=st.sampled_from(SHAPES), kind=st.sampled_from(KINDS), format=st.sampled_from(["safetensors", "pt", None]))
def test_shapes_and_kinds(folder: Path, tmp_path: Path, shape: tuple[int, ...], kind: str, format: str | None) -> None:
    """Only floating-point tensors of the tensor's own shape are written."""
    dtype = getattr(torch, kind)
    target = f"w{list(shape)}"
    pool = ModelPool.open([folder])
    made = strategy(lambda mean: mean.to(dtype) if tuple(mean.shape) == shape else mean)
    out = Path(f"{tmp_path}/{shape}{kind}{format}")
    if out.exists():
        return

    def merge() -> dict[str, Tensor]:
        if format is None:
            return merging.merge(pool, made).state_dict()
        merging.merge(pool, made, output=out, format=format)
        return load_file(out / "model.safetensors") if format == "safetensors" else torch.load(out / "model.pt")

    if not dtype.is_floating_point:
        with pytest.raises(StrategyError, match=rf"strategy 'given' returned an? {kind} tensor for 'w\[") as caught:
            merge()
        assert f"'{target}', which is float32" in str(caught.value)
        assert not out.exists()
    else:
        found = merge()
        mean = torch.stack([c.read(target).double() for c in pool.checkpoints]).mean(0)
        assert torch.equal(found[target], mean.to(dtype).float())
        assert found["steps"] == 3


@given(own=st.sampled_from(SHAPES), other=st.sampled_from([*SHAPES, (0,)]), scored=st.booleans())
def test_another_shape(tmp_path: Path, own: tuple[int, ...], other: tuple[int, ...], scored: bool) -> None:
    """Whatever could be broadcast, or has as many elements: only the shape itself is right."""
    folder = tmp_path / f"{own}"
    if not folder.exists():
        folder.mkdir()
        for number in range(2):
            save_file({"w": torch.ones(own), "next": torch.zeros(2)}, folder / f"m{number}.safetensors")
    pool = ModelPool.open([folder])
    whole = Whole().split(pool.tensors)
    found = Computed(
        pool, whole, lambda name, models, base: torch.ones(other) if name == "w" else models[0], strategy="x"
    )
    weights = Weights(
        tensors=dict(found) if scored and own == other else found,
        ingredients=pool.ingredients,
        strategy="x",
        options={},
        hash="",
    )
    if own == other:
        assert Writing().state_dict(weights, pool)["w"].shape == own
        return
    said = f"strategy 'x' returned shape {list(other)} for tensor 'w', which has {list(own)}"
    with pytest.raises(StrategyError) as caught:
        found["w"] if scored else Writing().state_dict(weights, pool)
    assert str(caught.value) == said
    given = Weights(
        tensors={"w": torch.ones(other), "next": torch.zeros(2)},
        ingredients=pool.ingredients,
        strategy="x",
        options={},
        hash="",
    )
    with pytest.raises(StrategyError) as caught:
        check_merge(given, pool) if scored else Writing().state_dict(given, pool)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda mean: None, "a NoneType for tensor '"),
        (lambda mean: mean.numpy(), "a ndarray for tensor '"),
        (lambda mean: mean.tolist(), "for tensor '"),
        (lambda mean: (mean, mean), "a tuple for tensor '"),
        (lambda mean: mean.to("meta"), "a meta tensor for '"),
        (lambda mean: mean.reshape(-1).to_sparse(), "a sparse tensor for '"),
        (lambda mean: torch.quantize_per_tensor(mean.float(), 0.1, 0, torch.qint8), "a quantised tensor for '"),
        (lambda mean: mean[..., None], "returned shape ["),
        (lambda mean: torch.ones(3) @ torch.ones(4), "failed on tensor '"),
        (lambda mean: {}["missing"], "failed on tensor 'fc1.bias': KeyError: 'missing' (at "),
    ],
)
@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_tensor(tmp_path: Path, make: Callable[[Tensor], Any], said: str, scored: bool) -> None:
    pool, task = tiny_pool(tmp_path / "pool", models=2), tiny_task() if scored else None
    with pytest.raises(StrategyError) as caught:
        merging.merge(pool, strategy(make), output=tmp_path / "out", task=task, baselines=False)
    assert str(caught.value).startswith("strategy 'given' ")
    assert said in str(caught.value)
    assert not list(tmp_path.glob("out/model*"))


@pytest.mark.parametrize("scored", [False, True])
def test_what_autograd_follows_is_taken(tmp_path: Path, scored: bool) -> None:
    pool, task = tiny_pool(tmp_path / "pool", models=2), tiny_task() if scored else None
    made = strategy(lambda mean: torch.nn.Parameter(mean) * 1.0)
    found = merging.merge(pool, made, output=tmp_path / "out", task=task, baselines=False).state_dict()
    assert not any(tensor.requires_grad for tensor in found.values())
    assert torch.equal(found["fc1.bias"], load_file(tmp_path / "out/model.safetensors")["fc1.bias"])


def test_a_function_may_write_to_what_it_is_given(tmp_path: Path) -> None:
    """The models' own tensors stay as they are, also in float64, where nothing needs to be widened."""
    for number in range(2):
        torch.save({"w": torch.full((3,), 1.0 + number, dtype=torch.float64)}, tmp_path / f"m{number}.pt")
    pool = ModelPool.open([tmp_path])

    def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        return models[0].add_(models[1])

    found = Computed(pool, Whole().split(pool.tensors), combine)
    assert [found["w"].tolist(), found["w"].tolist()] == [[3.0] * 3] * 2
    weights = Weights(tensors=found, ingredients=pool.ingredients, strategy="x", options={}, hash="")
    assert Writing().state_dict(weights, pool)["w"].tolist() == [3.0] * 3
    assert pool.checkpoints[0].read("w").tolist() == [1.0] * 3


def test_a_strategy_file_says_one_line(merge: Merge, tmp_path: Path) -> None:
    tiny_pool(tmp_path / "pool", models=2)
    Path("own.py").write_text(
        "from dataclasses import dataclass\nimport merging\nfrom merging.plugins.registry import strategies\n\n\n"
        "@strategies.register('stretching')\n@dataclass(frozen=True)\n"
        "class Stretching(merging.MixStrategy):\n    '''Too long.'''\n\n"
        "    def mix(self, problem):\n"
        "        return problem.weights(self, lambda name, models, base: models[0].repeat(2) if models[0].dim() == 1 "
        "else models[0])\n"
    )
    ran = merge("run", "--plugin", "own.py", "--strategy", "stretching", "--models", "pool/model*", "--output", "out")
    assert ran.code == 2
    assert "strategy 'stretching' returned shape [16] for tensor 'fc1.bias', which has [8]" in " ".join(ran.err.split())
    assert not Path("out").exists()


def test_weights_of_other_tensors(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", models=2)
    state = pool.checkpoints[0].load()

    def weights(tensors: dict[str, Any]) -> Weights:
        return Weights(
            tensors=tensors, ingredients=pool.ingredients, strategy="own", options={}, hash=content_hash(state)
        )

    check_merge(weights(state), pool)
    for tensors, said in (
        ({name: tensor for name, tensor in state.items() if name != "fc1.bias"}, "without tensor 'fc1.bias' (1 such)"),
        (state | {"more": torch.ones(1)}, "tensor 'more', which the models do not have"),
        (state | {"steps": torch.tensor(1.5)}, "a float32 tensor for 'steps', which is int64"),
        (state | {"steps": torch.tensor(1, dtype=torch.int32)}, "an int32 tensor for 'steps', which is int64"),
    ):
        with pytest.raises(StrategyError) as caught:
            check_merge(weights(tensors), pool)
        assert said in str(caught.value)

        class Own(MixStrategy):
            name = "own"

            def mix(self, problem: Problem, own: dict[str, Any] = tensors) -> Weights:
                return weights(own)

        with pytest.raises(StrategyError, match="strategy 'own' returned"):
            merging.merge(pool, Own(), task=tiny_task(), baselines=False)
        assert merging.benchmark(pool, [Own()], task=tiny_task(), singles=False).rows[0].status == "failed"


@given(shape=st.sampled_from(SHAPES), kind=st.sampled_from(KINDS))
def test_overrides_have_their_tensor_s_shape(folder: Path, shape: tuple[int, ...], kind: str) -> None:
    """An override of four elements for a tensor of two would be written over its neighbour."""
    pool = ModelPool.open([folder])
    override = torch.ones(shape).to(getattr(torch, kind))
    recipe = Recipe(pool.ingredients, Whole().split(pool.tensors), np.full((2, 1), 0.5), {"w[2]": override})
    if shape == (2,) and override.is_floating_point():
        assert Writing().state_dict(recipe, pool)["w[2]"].tolist() == [1.0, 1.0]
        return
    for build in (lambda: Writing().state_dict(recipe, pool), lambda: materialise(recipe, pool)):
        with pytest.raises(RecipeError, match=r"the recipe's overrides hold .*'w\[2\]'"):
            build()
    with pytest.raises(RecipeError, match="overrides hold"):
        check_merge(Ensemble((recipe,), (1.0,)), pool)


def test_recipes_of_other_models(folder: Path) -> None:
    pool = ModelPool.open([folder])
    whole = Whole().split(pool.tensors)
    recipe = Recipe(pool.ingredients, whole, np.full((2, 1), 0.5), {"ghost": torch.ones(2)})
    with pytest.raises(RecipeError, match="tensor 'ghost', which the models do not have"):
        Writing().state_dict(recipe, pool)
    part = Partition.of_groups({"all": list(pool.tensors)[1:]})
    with pytest.raises(PartitionError):
        Writing().model(Recipe.mean(pool.ingredients, part), pool, None, Silent(), bool)


def test_bytes_of_nothing_are_a_tensor() -> None:
    """An array of nothing has a stride of nothing, which torch cannot view in another dtype."""
    for dtype in ("float32", "bfloat16", "int64"):
        found = as_tensor(np.empty(0, dtype=np.uint8)[0:0], dtype)
        assert (found.numel(), found.dtype) == (0, getattr(torch, dtype))
