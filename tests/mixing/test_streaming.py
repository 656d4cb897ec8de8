"""Merging without a model: the bits of the definition, whatever the dtypes, shards, units and threads."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging
from merging.errors import CheckpointError, FolderError, InterruptedRunError, OptionError, RecipeError
from merging.mixing import reading
from merging.mixing.arithmetic import materialise
from merging.mixing.reading import units
from merging.mixing.streaming import stream
from merging.partitioners.layer import Layer
from merging.plugins.progress import Silent
from merging.storage import shards
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.storage.raw import has_only_finite
from merging.storage.shards import INDEX, ModelWriter, parse_size
from merging.strategies.uniform import Uniform
from merging.values.partition import Partition
from merging.values.recipe import Recipe

DTYPES = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def state(seed: int) -> dict[str, Tensor]:
    """Every dtype, a 0-dim tensor, integers, one that is cut into pieces."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"w.{dtype}": torch.randn(7, 5, generator=generator).to(getattr(torch, dtype)) for dtype in DTYPES}
    return tensors | {
        "scalar": torch.randn((), generator=generator),
        "count": torch.tensor(seed),
        "flags": torch.tensor([True, False, True]),
        "large": torch.randn(300, 999, generator=generator),
        "cut": torch.randn(700_001, generator=generator).bfloat16(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for number in range(3):
        save_file(state(number), folder / f"m{number}.safetensors")
    return folder


@pytest.fixture
def pool(folder: Path) -> ModelPool:
    return ModelPool.open([folder])


def recipe_of(pool: ModelPool) -> Recipe:
    names = list(pool.tensors)
    partition = Partition.of_groups({"odd": names[1::2], "even": names[::2]})
    table = np.array([[0.5, 1.0], [0.7, -0.25], [0.0, 0.25]])
    override = {"w.float16": torch.full((7, 5), 3.0, dtype=torch.float16)}
    return Recipe(pool.ingredients, partition, table, override)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape), name
    assert content_hash(one) == content_hash(other)


@pytest.mark.parametrize("unit", [1, 1 << 20, 48 << 20])
def test_streamed_bits_are_the_definition(
    pool: ModelPool, tmp_path: Path, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNIT", unit)
    recipe = recipe_of(pool)
    with ModelWriter(tmp_path, pool.tensors) as writer:
        found = stream(recipe, pool, writer, Silent())
    written = load_file(tmp_path / "model.safetensors")
    same(written, materialise(recipe, pool))
    assert found.hash == content_hash(written)
    assert [found.hashes[c] for c in pool.checkpoints] == [i.hash for i in pool.ingredients]


@pytest.mark.parametrize("weight", [0.5, 0.25, -0.25, 1.0, 1 / 3])
def test_factors_that_are_taken_out_change_no_bit(pool: ModelPool, tmp_path: Path, weight: float) -> None:
    partition = Partition.of_groups({"all": list(pool.tensors)})
    recipe = Recipe(pool.ingredients, partition, np.full((3, 1), weight))
    with ModelWriter(tmp_path, pool.tensors) as writer:
        stream(recipe, pool, writer, Silent())
    same(load_file(tmp_path / "model.safetensors"), materialise(recipe, pool))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_another_dtype_is_one_cast_of_the_sum(pool: ModelPool, tmp_path: Path, dtype: str) -> None:
    result = merging.merge(pool, Uniform(), output=tmp_path / "out", dtype=dtype)
    written = load_file(tmp_path / "out" / "model.safetensors")
    same(written, materialise(result.merge, pool, getattr(torch, dtype)))  # type: ignore[arg-type]
    assert written["large"].dtype == getattr(torch, dtype)
    assert written["count"].dtype == torch.int64
    same(result.state_dict(), written)


def test_float32_sums_are_close_and_another_thing(pool: ModelPool, tmp_path: Path) -> None:
    for name in ("float64", "float32"):
        merging.merge(pool, Uniform(), output=tmp_path / name, accumulate=name)
    exact, quick = (load_file(tmp_path / name / "model.safetensors") for name in ("float64", "float32"))
    assert not torch.equal(exact["large"], quick["large"])
    assert torch.allclose(exact["large"], quick["large"], rtol=1e-6, atol=1e-6)


def test_units_cover_every_element_once() -> None:
    tensors = {"b": ((5, 700_000), "float32"), "a": ((), "float32"), "c": ((0,), "int8"), "d": ((9,), "float64")}
    for models in (1, 7):
        work = units(tensors, models)
        flat = [piece for unit in work for piece in unit]
        assert [p.name for p in flat if p.start == 0] == ["a", "b", "c", "d"]
        ends = {name: max(p.stop for p in flat if p.name == name) for name in tensors}
        assert ends == {"a": 1, "b": 3_500_000, "c": 0, "d": 9}
        assert sum(p.stop - p.start for p in flat) == 3_500_010


def test_shards_and_their_index(pool: ModelPool, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    merging.merge(pool, Uniform(), output=whole)
    merging.merge(pool, Uniform(), output=parts, max_shard_size="500KB")
    files = sorted(parts.glob("model-*.safetensors"))
    assert len(files) >= 3
    index = json.loads((parts / INDEX).read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert not (parts / "model.safetensors").exists()
    for name, file in index["weight_map"].items():
        assert name in load_file(parts / file)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in load_file(whole / "model.safetensors").values())
    shards_again, file_again = Checkpoint(parts), Checkpoint(whole / "model.safetensors")
    assert shards_again.hash == file_again.hash == Checkpoint(parts / INDEX).hash
    with pytest.raises(OptionError, match="5GB or 500MiB"):
        parse_size("many")
    assert (parse_size("2GiB"), parse_size("1.5 kB"), parse_size("12")) == (2 << 30, 1500, 12)


def test_nothing_stale_stays_in_a_folder(pool: ModelPool, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    merging.merge(pool, Uniform(), output=folder, max_shard_size="500KB")
    (folder / "mine.txt").write_text("not a run's")
    merging.merge(pool, Uniform(), output=folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "events.jsonl",
        "mine.txt",
        "model.safetensors",
        "recipe.json",
        "report.json",
    ]


@pytest.fixture
def hugging(folder: Path, tmp_path: Path) -> Path:
    """Two models as Hugging Face's libraries save them: one file, and shards."""
    for number in range(2):
        home = tmp_path / "hub" / f"run-{number}"
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps({"torch_dtype": "float32", "hidden": 3}))
        (home / "tokenizer.json").write_text("{}")
        (home / "README.md").write_text("of another model")
        tensors = load_file(folder / f"m{number}.safetensors")
        if number:
            info = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
            with ModelWriter(home, info, 500_000) as writer:
                for name, tensor in tensors.items():
                    writer.write(name, 0, tensor.reshape(-1).view(torch.uint8).numpy())
        else:
            save_file(tensors, home / "model.safetensors")
    return tmp_path / "hub"


def test_hugging_face_folders_are_models(merge, hugging: Path, tmp_path: Path, folder: Path) -> None:  # noqa: ANN001
    out = tmp_path / "out"
    ran = merge("run", "--strategy", "uniform", "--models", hugging, "--dtype", "bfloat16", "--output", out)
    assert ran.code == 0, ran.err
    assert json.loads((out / "config.json").read_text()) == {"torch_dtype": "bfloat16", "hidden": 3}
    assert (out / "tokenizer.json").exists()
    assert "of another model" not in (out / "README.md").read_text()
    assert "`merge apply recipe.json --dtype bfloat16` rebuilds the same bits" in (out / "README.md").read_text()
    assert "recipe.json --output model.safetensors --dtype bfloat16" in ran.out
    pool = ModelPool.open([hugging])
    assert pool.names == ("run-0", "run-1")
    assert [i.hash for i in pool.ingredients] == [Checkpoint(folder / f"m{k}.safetensors").hash for k in range(2)]
    recipe = json.loads((out / "recipe.json").read_text())
    assert [row["hash"] for row in recipe["ingredients"]] == [i.hash for i in pool.ingredients]
    again = merge("apply", out, "--dtype", "bfloat16", "--output", tmp_path / "again.safetensors")
    assert again.code == 0, again.err
    same(load_file(tmp_path / "again.safetensors"), load_file(out / "model.safetensors"))
    again = merge("apply", out, "--max-shard-size", "300KB", "--output", tmp_path / "again")
    assert again.code == 0, again.err
    assert Checkpoint(tmp_path / "again").tensors.keys() == pool.tensors.keys()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / INDEX).write_text("[]"), "not an index of shards"),
        (lambda home: next(home.glob("model-*")).unlink(), "is missing; download it again"),
        (lambda home: (home / INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}'), "outside its folder"),
        (lambda home: _add(home / INDEX), "names tensor 'ghost', which no shard holds"),
    ],
)
def test_damaged_shards_are_named(merge, hugging: Path, spoil, said: str) -> None:  # noqa: ANN001
    spoil(hugging / "run-1")
    ran = merge("run", "--strategy", "uniform", "--models", hugging, "--output", "out")
    assert ran.code == 2
    assert said in ran.err
    assert not Path("out").exists()


def _add(index: Path) -> None:
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))


def test_a_weights_only_merge_reads_its_inputs_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: dict[tuple[str, str], int] = {}
    real = Checkpoint.read_bytes

    def counted(self: Checkpoint, name: str, offset: int, into: memoryview) -> None:
        reads[self.name, name] = reads.get((self.name, name), 0) + len(into)
        real(self, name, offset, into)

    monkeypatch.setattr(Checkpoint, "read_bytes", counted)
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: pytest.fail(f"{name} is read another time"))
    result = merging.merge(ModelPool.open([folder]), Uniform(), output=tmp_path / "out")
    sizes = {name: tensor.nbytes for name, tensor in state(0).items()}
    sizes["flags"] *= 2  # integers of several elements are compared first: they are not averaged, and may be codes
    assert reads == {(f"m{k}", name): size for k in range(3) for name, size in sizes.items()}
    monkeypatch.undo()
    assert [i.hash for i in result.merge.ingredients] == [i.hash for i in ModelPool.open([folder]).ingredients]


def test_nan_is_found_on_the_way_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    bad = state(5)
    bad["large"][7, 7] = float("nan")
    save_file(bad, tmp_path / "bad.safetensors")
    pool = ModelPool.open([folder, tmp_path / "bad.safetensors"])
    with pytest.raises(CheckpointError, match=r"bad.safetensors: tensor 'large' holds NaN"):
        merging.merge(pool, Uniform(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finite_values_may_overflow_a_sum() -> None:
    assert has_only_finite(torch.full((4,), 3e38))
    assert has_only_finite(torch.full((4,), 60_000.0, dtype=torch.float16))
    assert has_only_finite(torch.tensor([1e300, 1e308, 1e308], dtype=torch.float64))
    assert not has_only_finite(torch.tensor([1.0, float("inf")]))
    assert not has_only_finite(torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn))
    assert has_only_finite(torch.tensor([True]))
    assert has_only_finite(torch.zeros(0))


def test_interrupted_nothing_is_left(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT", 1)
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(InterruptedRunError, match="nothing was written"):
        merging.merge(ModelPool.open([folder]), Uniform(), output=tmp_path / "out", should_stop=should_stop)
    assert not (tmp_path / "out").exists()


def test_out_of_disk_nothing_is_left(merge, folder: Path, tmp_path: Path) -> None:  # noqa: ANN001
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        ran = merge("run", "--strategy", "uniform", "--models", folder, "--output", tmp_path / "out")
        applied = merge("apply", tmp_path / "none", "--output", tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ran.code == 2
    assert "File too large; nothing was left there" in ran.err
    assert not (tmp_path / "out").exists()
    assert applied.code == 2
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_changed_ingredient_is_refused_by_apply(merge, folder: Path, tmp_path: Path) -> None:  # noqa: ANN001
    copies = tmp_path / "copies"
    copies.mkdir()
    for number in range(2):
        save_file(state(number), copies / f"m{number}.safetensors")
    assert merge("run", "--strategy", "uniform", "--models", copies, "--output", tmp_path / "out").code == 0
    save_file(state(9), copies / "m1.safetensors")
    ran = merge("apply", tmp_path / "out", "--output", tmp_path / "again.safetensors")
    assert ran.code == 2
    assert "has changed since the recipe was written" in ran.err
    assert not (tmp_path / "again.safetensors").exists()
    with pytest.raises(RecipeError):
        ModelPool.open([copies]).find(
            Recipe.single(ModelPool.open([folder]).ingredients[2], _whole(folder)).ingredients[0]
        )


def _whole(folder: Path) -> Partition:
    return Partition.of_groups({"all": list(ModelPool.open([folder]).tensors)})


def test_pickles_stream_too(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "pt"
    home.mkdir()
    for number in range(3):
        tensors = load_file(folder / f"m{number}.safetensors")
        tensors["large"] = tensors["large"].T.contiguous().T  # not contiguous in the file
        torch.save({"state_dict": tensors}, home / f"m{number}.pt")
    merging.merge(ModelPool.open([home]), Uniform(), output=tmp_path / "from_pt")
    merging.merge(ModelPool.open([folder]), Uniform(), output=tmp_path / "from_st")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("from_pt", "from_st"))
    same(one, two)


def test_tied_tensors_stay_one(folder: Path, tmp_path: Path) -> None:
    """In a .pt they are one storage; a safetensors file must hold each name, so there they are equal copies."""
    home = tmp_path / "tied"
    home.mkdir()
    for number in range(3):
        table = torch.randn(40, 9, generator=torch.Generator().manual_seed(number))
        torch.save({"embed": table, "head": table, "other": table + 1}, home / f"m{number}.pt")
    pool = ModelPool.open([home])
    assert pool.ties == (("embed", "head"),)
    result = merging.merge(pool, Uniform(), partitioner=Layer(), output=tmp_path / "st")
    assert ("embed", "head") in [component.tensors for component in result.merge.partition.components]  # type: ignore[union-attr]
    written = load_file(tmp_path / "st" / "model.safetensors")
    same(written, materialise(result.merge, pool))  # type: ignore[arg-type]
    assert torch.equal(written["embed"], written["head"])
    merging.merge(pool, Uniform(), output=tmp_path / "pt", format="pt")
    again = torch.load(tmp_path / "pt" / "model.pt", weights_only=True)
    assert again["embed"].data_ptr() == again["head"].data_ptr() != again["other"].data_ptr()
    same(again, written)


@pytest.mark.parametrize("words", [("run", "--strategy", "uniform", "--models", "*.safetensors"), ("apply", "out")])
def test_merging_weights_needs_no_torch(merge, tmp_path: Path, words: tuple[str, ...]) -> None:  # noqa: ANN001
    for number in range(3):
        tensors = {"a": torch.randn(30, 7), "half": torch.randn(5).half(), "wide": torch.randn(5).double()}
        save_file(tensors | {"steps": torch.tensor(number)}, tmp_path / f"m{number}.safetensors")
    if words[0] == "apply":
        assert merge("run", "--strategy", "uniform", "--models", "*.safetensors", "--output", "out").code == 0
    code = (
        "import sys\nfrom merging.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'scipy', 'nevergrad', 'optuna', 'open_clip'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    out = "again" if words[0] == "apply" else "out"
    ran = subprocess.run([sys.executable, "-c", code, *words, "--output", out], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / out / "model.safetensors").exists()


def test_a_replaced_file_is_not_read(folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        save_file(state(number), tmp_path / f"m{number}.safetensors")
    pool = ModelPool.open([tmp_path])
    (tmp_path / "m1.safetensors").unlink()
    save_file(state(7), tmp_path / "m1.safetensors")
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        pool.checkpoints[1].read("large")
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        merging.merge(pool, Uniform(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_folder_writer_refuses_a_second_model(tmp_path: Path) -> None:
    (tmp_path / shards.MODEL).write_text("there")
    with pytest.raises(FileExistsError):
        ModelWriter(tmp_path, {"a": ((1,), "float32")})
    assert issubclass(FolderError, OSError)
