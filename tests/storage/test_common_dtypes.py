"""Pools whose models hold the same tensors in several floating-point dtypes."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging
from merging.errors import OptionError, RecipeError, ResultError
from merging.storage import widened
from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import common_dtype, torch_dtype
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool, tiny_task
from tests.conftest import Merge
from tests.storage.test_vocabularies import WORDS
from tests.storage.test_vocabularies import write as write_vocabulary

FLOATS = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz")
FLOATS += ("float8_e5m2fnuz",)


def in_dtype(path: Path, dtype: str) -> Path:
    """Has a file hold its numbers in another dtype."""
    wanted = torch_dtype(dtype)
    save_file({n: t.to(wanted) if t.is_floating_point() else t for n, t in load_file(path).items()}, path)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A base in float16, models in bfloat16 and float32."""
    tiny_pool(tmp_path, 3)
    for name, dtype in (("base", "float16"), ("model_0", "bfloat16"), ("model_1", "bfloat16")):
        in_dtype(tmp_path / f"{name}.safetensors", dtype)
    return tmp_path


def wide(folder: Path) -> Path:
    """The same models, all saved in float32."""
    for path in (folder / "wide").parent.glob("*.safetensors"):
        (folder / "wide").mkdir(exist_ok=True)
        in_dtype(Path(shutil.copy(path, folder / "wide")), "float32")
    return folder / "wide"


def models(folder: Path, count: int = 2) -> list[Path]:
    return [folder / f"model_{number}.safetensors" for number in range(count)]


@pytest.mark.parametrize("pair", [*itertools.combinations(FLOATS, 2)], ids="-".join)
def test_the_common_dtype_holds_every_number_of_both(pair: tuple[str, str]) -> None:
    common = common_dtype(pair)
    assert common is not None
    for name in pair:
        dtype = torch_dtype(name)
        if dtype.itemsize < 4:
            kind = torch.int16 if dtype.itemsize == 2 else torch.int8
            every = torch.arange(2 ** (8 * dtype.itemsize)).to(kind).view(dtype)
        else:
            every = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
        there = every.to(torch_dtype(common)).double()
        assert torch.equal(there.nan_to_num(), every.double().nan_to_num())


def test_the_narrowest_one() -> None:
    assert [common_dtype(pair) for pair in (("float16", "bfloat16"), ("float16", "float8_e5m2"))] == [
        "float32",
        "float16",
    ]
    assert common_dtype(["int64", "float32"]) is None
    assert common_dtype(["int64", "int32"]) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_any_part_of_a_tensor_is_that_of_the_whole(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widened, "BLOCK", 7)
    state = {"w": torch.randn(9, 5, generator=torch.Generator().manual_seed(1)).to(torch_dtype(dtype))}
    save_file(state, tmp_path / "m.safetensors")
    stored = Checkpoint(tmp_path / "m.safetensors")
    seen = stored.seen_in({"w": "float32"})
    assert (seen.tensors["w"], seen.stored["w"], seen.hash) == (((9, 5), "float32"), ((9, 5), dtype), stored.hash)
    assert stored.seen_in({"w": dtype}) is stored
    whole = state["w"].float()
    assert torch.equal(seen.read("w"), whole)
    for start, stop in ((0, 45), (3, 4), (6, 29)):
        into = bytearray(4 * (stop - start))
        seen.read_bytes("w", 4 * start, memoryview(into))
        assert bytes(into) == whole.flatten()[start:stop].numpy().tobytes()


@pytest.mark.parametrize("strategy", ["uniform", "task-arithmetic", "ties", "slerp"])
def test_the_bits_are_those_of_models_saved_in_float32(strategy: str, mixed: Path) -> None:
    both = [
        merging.merge(models(folder), strategy, base=folder / "base.safetensors", dtype="float32").state_dict()
        for folder in (mixed, wide(mixed))
    ]
    assert all(
        torch.equal(both[0][name], tensor) and tensor.dtype == both[0][name].dtype for name, tensor in both[1].items()
    )


def written(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("base", [True, False])
def test_written_as_the_base_or_the_first_model_and_rebuilt(base: bool, mixed: Path, merge: Merge) -> None:
    out, more = mixed / "out", ["--base", mixed / "base.safetensors"] if base else []
    told = ["--strategy", "uniform", "--models", mixed / "model_*", *more, "--output", out]
    ran = merge("run", *told)
    assert ran.code == 0, ran.err
    whose = "float16, the base's dtype" if base else "bfloat16, the first model's dtype"
    assert f"written in {whose}" in " ".join(ran.out.split())
    want = torch.float16 if base else torch.bfloat16
    assert {tensor.dtype for tensor in written(out).values() if tensor.is_floating_point()} == {want}
    recipe = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    assert [row["hash"] for row in recipe["ingredients"]] == [Checkpoint(path).hash for path in models(mixed, 3)]
    assert merge("apply", out, "--output", mixed / "again").code == 0
    assert (mixed / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    shutil.copytree(mixed, mixed / "moved")
    told = ["--models", mixed / "moved" / "model_*", "--output", mixed / "third"]
    assert merge("apply", out, *told).code == 0
    assert (mixed / "third" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    recipe["dtypes"] = {name: ["float32", "float99"] for name in recipe["dtypes"]}
    (out / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    with pytest.raises(RecipeError, match="'float99', which is no floating dtype"):
        merging.apply(out, output=mixed / "fourth")


def test_a_recipe_of_models_that_agree_keeps_the_base_s_dtype(mixed: Path) -> None:
    made = merging.merge(models(mixed), "uniform", base=mixed / "base.safetensors", output=mixed / "out")
    merging.apply(mixed / "out", output=mixed / "again")  # without the base, which is no ingredient
    assert (mixed / "again" / "model.safetensors").read_bytes() == (mixed / "out" / "model.safetensors").read_bytes()
    state = made.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in written(mixed / "out").items())


def test_searches_on_a_task_see_the_exact_numbers(mixed: Path) -> None:
    rows = [
        merging.merge(
            models(folder), "manifoldmix", base=folder / "base.safetensors", task=tiny_task(), max_evaluations=8
        ).report.rows
        for folder in (mixed, wide(mixed))
    ]
    seen = [[(row.strategy, row.held_out, row.tests, row.evaluations) for row in each] for each in rows]
    assert seen[0] == seen[1]


def test_with_a_common_vocabulary(tmp_path: Path, merge: Merge) -> None:
    write_vocabulary(tmp_path / "base", dtype=torch.float16)
    write_vocabulary(tmp_path / "m1", [*WORDS, "<a>"], added=["<a>"], seed=1, dtype=torch.bfloat16)
    write_vocabulary(tmp_path / "m2", [*WORDS[::-1], "<b>"], added=["<b>"], seed=2)
    told = ["--base", tmp_path / "base", "--tokenizer-source", "union", "--output", tmp_path / "out"]
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "m*", *told)
    assert ran.code == 0, ran.err
    assert written(tmp_path / "out")["embed.weight"].dtype == torch.float16
    assert merge("apply", tmp_path / "out", "--output", tmp_path / "again").code == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_what_cannot_be_is_one_line(mixed: Path, merge: Merge) -> None:
    with pytest.raises(OptionError, match="an adapter stands on a base of its models' dtypes"):
        merging.merge(models(mixed), "uniform", base=mixed / "base.safetensors", written_as="adapter", rank=2)
    large = {
        name: torch.full_like(t, 1e6) if t.is_floating_point() else t for name, t in load_file(models(mixed)[0]).items()
    }
    save_file(large, models(mixed)[0])
    with pytest.raises(ResultError, match=r"beyond the largest number of float16.*dtype"):
        merging.merge(models(mixed), "uniform", base=mixed / "base.safetensors", output=mixed / "out")


def test_check_and_inspect_say_it(mixed: Path, merge: Merge) -> None:
    for command in ("check", "inspect"):
        ran = merge(command, *models(mixed, 3), "--base", mixed / "base.safetensors")
        assert "merged in float32, which holds all exactly; written in float16" in " ".join((ran.out + ran.err).split())


def test_a_pool_of_one_dtype_is_as_it_was(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path, 2)
    assert pool.dtypes == ()
    assert all(model.widened is None for model in pool.with_base)
    assert "dtypes" not in merging.merge(pool, "uniform").merge.to_json()
    other = ModelPool.open(
        pool, in_dtype(Path(shutil.copy(tmp_path / "base.safetensors", tmp_path / "b.safetensors")), "float64")
    )
    assert {row[1:] for row in other.dtypes} == {("float64", "float64")}
    assert ModelPool(other.checkpoints).dtypes == ()
    assert ModelPool(other.checkpoints).checkpoints == pool.checkpoints


def test_models_in_memory(mixed: Path) -> None:
    """State dicts of several dtypes are merged as files with the same tensors are."""
    files = sorted(mixed.glob("model_*.safetensors"))
    assert len({tensor.dtype for file in files for tensor in load_file(file).values()}) == 3  # one of them integer
    one = merging.merge([load_file(file) for file in files], "uniform").state_dict()
    other = merging.merge(files, "uniform").state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name])
