"""Pools: natural order, names, agreement; every refusal names file and tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import merging
from merging.errors import PoolError, RecipeError
from merging.storage.pool import ModelPool
from merging.storage.sources import natural_key
from merging.strategies.uniform import Uniform
from merging.testing import tiny_pool, tiny_task
from merging.testing.fixtures import open_tiny_pool
from merging.values.recipe import Ingredient


def write(path: Path, value: float = 0.0, **more: Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"w": torch.full((2, 2), float(value)), "b": torch.ones(2), "steps": torch.tensor(3), **more}
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def test_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2, 100):
        write(tmp_path / f"model_{number}.safetensors", number)
    names = ("model_1", "model_2", "model_9", "model_10", "model_100")
    assert ModelPool.open([tmp_path]).names == names
    assert ModelPool.open([tmp_path / "model_*"]).names == names
    assert ModelPool.open([tmp_path / f"model_{n}.safetensors" for n in (100, 2, 9, 1, 10)]).names == names


@given(st.lists(st.integers(0, 10**6), unique=True), st.text("abc_-", max_size=4))
def test_natural_key_sorts_numbers_by_value(numbers: list[int], stem: str) -> None:
    names = [f"{stem}_{number}" for number in sorted(numbers)]
    assert sorted(reversed(names), key=natural_key) == names


def test_folders_globs_and_files_add_up_without_repetition(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.pt", 1)
    write(tmp_path / "a" / "y.safetensors", 2)
    (tmp_path / "a" / "notes.txt").write_text("no checkpoint")
    write(tmp_path / "b" / "z.pt", 3)
    pool = ModelPool.open([tmp_path / "a", tmp_path / "a" / "x.pt", str(tmp_path / "**" / "*.pt")])
    assert pool.names == ("x", "y", "z")
    assert len(pool) == 3


def test_names_that_collide_get_their_folders(tmp_path: Path) -> None:
    for number in (10, 2):
        write(tmp_path / f"run_{number}" / "model.pt", number)
    assert ModelPool.open([tmp_path / "*" / "*.pt"]).names == ("run_2/model", "run_10/model")


def test_the_same_stem_in_two_formats(tmp_path: Path) -> None:
    write(tmp_path / "model.pt", 1)
    write(tmp_path / "model.safetensors", 2)
    names = ModelPool.open([tmp_path]).names
    assert len(set(names)) == 2


def test_sources_that_match_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"nothing_\*"):
        ModelPool.open([tmp_path / "nothing_*"])
    with pytest.raises(PoolError, match=str(tmp_path)):
        ModelPool.open([tmp_path])


def test_the_base_is_left_out_of_the_pool(tmp_path: Path) -> None:
    base = write(tmp_path / "base.pt", 0)
    write(tmp_path / "m.pt", 1)
    pool = ModelPool.open([tmp_path], base)
    assert pool.names == ("m",)
    assert pool.base is not None
    assert pool.base_ingredient.name == "base"
    assert torch.equal(pool.read(pool.base_ingredient, "w"), torch.zeros(2, 2))
    with pytest.raises(PoolError, match="besides the base"):
        ModelPool.open([base], base)
    with pytest.raises(PoolError, match="give one with `base`"):
        _ = ModelPool.open([tmp_path]).base_ingredient


def test_duplicates_and_constant(tmp_path: Path) -> None:
    write(tmp_path / "a.pt", 1)
    write(tmp_path / "b.safetensors", 1)
    write(tmp_path / "c.pt", 2)
    pool = ModelPool.open([tmp_path])
    assert pool.duplicates == (("a", "b"),)
    assert pool.constant == {"b", "steps"}
    assert pool.mixable == {"w", "b"}
    assert torch.equal(pool.read(pool.ingredients[2], "w"), torch.full((2, 2), 2.0))


def test_signed_zeros_are_not_constant(tmp_path: Path) -> None:
    write(tmp_path / "a.pt", 0.0)
    write(tmp_path / "b.pt", -0.0)
    pool = ModelPool.open([tmp_path])
    assert pool.constant == {"b", "steps"}
    assert pool.duplicates == ()


def test_ties_count_only_where_all_have_them(tmp_path: Path) -> None:
    shared = torch.ones(3)
    torch.save({"x": shared, "y": shared, "z": shared.clone()}, tmp_path / "a.pt")
    torch.save({"x": shared, "y": shared, "z": shared}, tmp_path / "b.pt")
    torch.save({"x": shared, "y": shared, "z": shared.clone()}, tmp_path / "c.pt")
    assert ModelPool.open([tmp_path / "a.pt", tmp_path / "c.pt"]).ties == (("x", "y"),)
    assert ModelPool.open([tmp_path / "a.pt", tmp_path / "b.pt"]).ties == ()


@pytest.mark.parametrize(
    ("more", "tensor"),
    [
        ({"extra": torch.ones(1)}, "extra"),
        ({"w": torch.ones(2, 3)}, "w"),
        ({"w": torch.ones(2, 2).int()}, "w"),
        ({"steps": torch.tensor(3.0)}, "steps"),
        ({"steps": torch.tensor(3, dtype=torch.int32)}, "steps"),
        ({"steps": torch.tensor([3])}, "steps"),
    ],
)
def test_disagreement_names_files_and_tensor(tmp_path: Path, more: dict[str, Tensor], tensor: str) -> None:
    write(tmp_path / "first.pt")
    write(tmp_path / "second.pt", **more)
    with pytest.raises(PoolError) as caught:
        ModelPool.open([tmp_path])
    for part in ("first.pt", "second.pt", f"'{tensor}'"):
        assert part in str(caught.value)


def test_a_missing_tensor_and_another_architecture(tmp_path: Path) -> None:
    write(tmp_path / "first.pt")
    torch.save({"w": torch.ones(2, 2), "b": torch.ones(2)}, tmp_path / "second.pt")
    with pytest.raises(PoolError, match=r"second\.pt misses tensor 'steps'.*first\.pt"):
        ModelPool.open([tmp_path])
    torch.save({"conv": torch.ones(2)}, tmp_path / "second.pt")
    with pytest.raises(PoolError, match=r"second\.pt and .*first\.pt are different architectures.*'w'.*'conv'"):
        ModelPool.open([tmp_path])


def test_the_base_must_fit_too(tmp_path: Path) -> None:
    write(tmp_path / "m.pt")
    write(tmp_path / "other" / "base.pt", extra=torch.ones(1))
    with pytest.raises(PoolError, match=r"base\.pt.*'extra'"):
        ModelPool.open([tmp_path / "m.pt"], tmp_path / "other" / "base.pt")


def test_an_unknown_ingredient_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.pt")
    with pytest.raises(RecipeError, match="'gone'"):
        ModelPool.open([tmp_path]).find(Ingredient("gone", "0" * 64))


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(PoolError, match="at least one"):
        ModelPool([])


def test_a_linear_probe_in_the_pool_is_named(tmp_path: Path) -> None:
    """It has the base's weights but for its head; a fine-tuned model has none of them."""
    pool = tiny_pool(tmp_path, models=3)
    assert pool.untuned == {}
    assert pool.base is not None
    state = pool.base.load()
    save_file(state | {"fc2.bias": state["fc2.bias"] + 1}, tmp_path / "model_9.safetensors")
    probed = open_tiny_pool(tmp_path)
    assert probed.untuned == {"model_9": 1}
    assert ModelPool(probed.checkpoints).untuned == {}, "nothing to compare with"
    result = merging.merge(probed, Uniform(), task=tiny_task(), baselines=False)
    assert any("model_9 keeps the base's weights but for 1 of 5 tensors" in note for note in result.report.notes)


def test_the_release_of_model_soups_is_recognised(tmp_path: Path) -> None:
    for number in range(72):
        value = float(min(number, 4) if number == 5 else number)  # model_4 and model_5 are one model
        save_file({"w": torch.tensor([value])}, tmp_path / f"model_{number}.safetensors")
    notes = merging.merge(ModelPool.open([tmp_path]), Uniform()).report.notes
    assert any("model_4, model_5 are the same weights" in note for note in notes)
    assert any("model_0 of the model-soups release is the linear-probe initialisation" in note for note in notes)
