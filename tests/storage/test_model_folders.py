"""Folders as libraries write them: what is one model, in the order in which the library itself would look."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.model_folder import is_model_folder, is_weights
from merging.storage.pool import ModelPool
from merging.storage.sources import expand
from tests.conftest import Merge

CONFIG = ViTConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    image_size=8,
    patch_size=4,
    num_labels=3,
)


def state(number: float) -> dict[str, Tensor]:
    return {"a.weight": torch.full((2, 2), float(number)), "a.bias": torch.full((2,), float(number))}


def leftovers(folder: Path) -> None:
    """What Trainer, accelerate and DeepSpeed leave beside a model."""
    for name in (
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "scheduler.bin",
        "scaler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "random_states_0.pkl",
        "sampler.bin",
        "training_args.bin",
        "optimizer_1.bin",
        "custom_checkpoint_0.pkl",
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        ".hidden.safetensors",
    ):
        torch.save({"state": {}, "param_groups": [], "step": torch.ones(3)}, folder / name)
    (folder / "trainer_state.json").write_text("{}")


def shards(folder: Path, number: float, stem: str = "model", suffix: str = "safetensors") -> None:
    parts = {f"{stem}-0000{n}-of-00002.{suffix}": [name] for n, name in enumerate(state(0), 1)}
    for file, names in parts.items():
        part = {name: state(number)[name] for name in names}
        if suffix == "safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
    places = {name: file for file, names in parts.items() for name in names}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}))


FORMS: list[tuple[str, Callable[[Path, float], None]]] = [
    ("model.safetensors", lambda folder, number: save_file(state(number), folder / "model.safetensors")),
    ("model.safetensors.index.json", lambda folder, number: shards(folder, number)),
    ("pytorch_model.bin", lambda folder, number: torch.save(state(number), folder / "pytorch_model.bin")),
    ("pytorch_model.bin.index.json", lambda folder, number: shards(folder, number, "pytorch_model", "bin")),
]
"""In the order of ``from_pretrained``."""


@given(chosen=st.sets(st.integers(0, 3), min_size=1), training=st.booleans())
def test_the_loaders_own_order(chosen: set[int], training: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    for index in chosen:
        FORMS[index][1](folder, float(index))
    if training:
        leftovers(folder)
    assert is_model_folder(folder)
    assert expand(folder) == [folder]
    assert Checkpoint(folder).hash == content_hash(state(float(min(chosen))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs as ``Trainer`` leaves them: checkpoints with optimizer and random states, and the final model."""
    folder = tmp_path_factory.mktemp("trainer")
    for run in range(2):
        torch.manual_seed(run)
        model = ViTForImageClassification(CONFIG)
        for place in ("checkpoint-2", "checkpoint-10", "final"):
            model.save_pretrained(folder / f"run{run}" / place)
            torch.save({"args": 1}, folder / f"run{run}" / place / "training_args.bin")
            if place != "final":
                leftovers(folder / f"run{run}" / place)
    return folder


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("run*/final", ["run0/final", "run1/final"]),
        ("run0/checkpoint-*", ["run0/checkpoint-2", "run0/checkpoint-10"]),
        ("run0", ["run0/checkpoint-2", "run0/checkpoint-10", "run0/final"]),
        ("run*/final/model.safetensors", ["run0/final/model.safetensors", "run1/final/model.safetensors"]),
        ("run0/checkpoint-2/*", ["run0/checkpoint-2/model.safetensors"]),
    ],
)
def test_folders_of_trainer(saved: Path, pattern: str, names: list[str], merge: Merge) -> None:
    assert [str(path.relative_to(saved)) for path in expand(saved / pattern)] == names
    if len(names) == 1:
        return
    ran = merge("run", "--strategy", "uniform", "--models", saved / pattern, "--output", "out")
    assert ran.code == 0, ran.err
    files = [path / "model.safetensors" if path.is_dir() else path for path in expand(saved / pattern)]
    states = [load_file(file) for file in files]
    for name, tensor in load_file("out/model.safetensors").items():
        want = sum(own[name].double() for own in states) / len(states)
        assert torch.equal(tensor, want.float())


def test_a_folder_above_says_where_models_are(saved: Path, merge: Merge) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", saved)
    assert ran.code == 2
    assert f"its folders hold some: {saved}/run0, {saved}/run1" in ran.err
    with pytest.raises(CheckpointError, match="models lie in its folders checkpoint-10, checkpoint-2, final"):
        Checkpoint(saved / "run0")


def test_accelerates_folder_without_a_configuration(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"step_{number}").mkdir()
        save_file(state(number), tmp_path / f"step_{number}/model.safetensors")
        leftovers(tmp_path / f"step_{number}")
    pool = ModelPool.open([tmp_path / "step_*"])
    assert pool.names == ("step_0", "step_1")
    assert ModelPool.open([tmp_path]).names == ("step_0", "step_1")


def test_both_formats_side_by_side_are_one_model(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / f"both{number}"
        folder.mkdir()
        save_file(state(number), folder / "model.safetensors")
        torch.save(state(number), folder / "pytorch_model.bin")
    for source in (tmp_path / "both*", tmp_path):
        pool = ModelPool.open([source])
        assert pool.names == ("both0", "both1")
        assert [c.files[0].name for c in pool.checkpoints] == ["model.safetensors"] * 2


def test_a_folder_of_several_models_stays_one(tmp_path: Path) -> None:
    for name in ("model.safetensors", "other.safetensors", "third.pt"):
        (torch.save if name.endswith(".pt") else save_file)(state(1), tmp_path / name)
    leftovers(tmp_path)
    assert not is_model_folder(tmp_path)
    assert [path.name for path in expand(tmp_path)] == ["model.safetensors", "other.safetensors", "third.pt"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("__0_0.distcp", "dcp_to_torch"),
        ("zero_to_fp32.py", "zero_to_fp32.py makes a file"),
        ("model.h5", "Keras"),
        ("flax_model.msgpack", "Flax"),
        ("model.ckpt.index", "TensorFlow"),
        ("x.gguf", "llama.cpp"),
    ],
)
def test_folders_of_other_libraries_are_named(file: str, words: str, tmp_path: Path, merge: Merge) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_bytes(b"?")
    ran = merge("run", "--strategy", "uniform", "--models", "run")
    assert ran.code == 2
    assert words in ran.err
    with pytest.raises(CheckpointError, match=words):
        Checkpoint(tmp_path / "run")


@pytest.mark.parametrize("whole", [True, False], ids=["one file", "shards"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_key_means_nothing_to_safetensors(whole: bool, named: str, tmp_path: Path) -> None:
    name = "model.safetensors" if whole else "model.safetensors.index.json"
    dict(FORMS)[name](tmp_path, 1)
    path = tmp_path / name if named == "file" else tmp_path
    with pytest.raises(CheckpointError, match=r"safetensors: is a safetensors file, which has no 'ema'; leave the key"):
        Checkpoint(path, key="ema")
    assert Checkpoint(path).tensors


def test_shards_without_their_index(tmp_path: Path) -> None:
    shards(tmp_path, 1)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match="2 shards and not their index"):
        Checkpoint(tmp_path)


# --- links, brackets, Hub caches


@pytest.fixture
def hub(saved: Path, tmp_path: Path) -> Path:
    """A Hub cache: snapshots are folders of links to blobs without suffix."""
    for run in range(2):
        top = tmp_path / f"hub/models--x--run{run}"
        snapshot = top / f"snapshots/{'ab'[run] * 8}"
        snapshot.mkdir(parents=True)
        (top / "blobs").mkdir()
        for name in ("config.json", "model.safetensors"):
            content = (saved / f"run{run}/final" / name).read_bytes()
            blob = top / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return tmp_path / "hub"


@pytest.mark.parametrize("form", ["*/snapshots/*/model.safetensors", "*/snapshots/*", "*/blobs/*"])
def test_a_hub_cache_is_merged_applied_and_evaluated(hub: Path, saved: Path, form: str, merge: Merge) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", hub / form, "--output", "out")
    assert ran.code == 0, ran.err
    recipe = json.loads(Path("out/recipe.json").read_text())
    assert len(recipe["ingredients"]) == 2
    if "blobs" not in form:
        assert all("/snapshots/" in row["file"] for row in recipe["ingredients"])
    assert merge("apply", "out/recipe.json", "--output", "again.safetensors").code == 0
    assert Path("again.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    states = [load_file(saved / f"run{run}/final/model.safetensors") for run in range(2)]
    for name, tensor in load_file("out/model.safetensors").items():
        assert torch.equal(tensor, ((states[0][name].double() + states[1][name].double()) / 2).float())


@pytest.mark.parametrize("link", ["symbolic", "hard", "folder"])
def test_a_link_counts_once(link: str, tmp_path: Path) -> None:
    for number in range(2):
        save_file(state(number), tmp_path / f"m{number}.safetensors")
    if link == "symbolic":
        (tmp_path / "latest.safetensors").symlink_to(tmp_path / "m1.safetensors")
    elif link == "hard":
        (tmp_path / "latest.safetensors").hardlink_to(tmp_path / "m1.safetensors")
    else:
        (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    sources = [tmp_path / "*.safetensors", tmp_path / "again/*.safetensors"] if link == "folder" else [tmp_path]
    pool = ModelPool.open(sources)
    assert len(pool) == 2
    assert len({row.hash for row in pool.ingredients}) == 2


NAMES = st.text(st.sampled_from("ab[]*? -!{}"), min_size=1, max_size=8).filter(lambda name: name.strip() == name)


@given(name=NAMES)
def test_folders_are_literal_in_patterns(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("x") / name
    folder.mkdir()
    decoy = folder.parent / "decoy" / "sub"
    decoy.mkdir(parents=True)
    for number in range(2):
        save_file(state(number), folder / f"m{number}.safetensors")
    save_file(state(3), decoy / "m3.safetensors")
    assert [path.name for path in expand(folder / "m*.safetensors")] == ["m0.safetensors", "m1.safetensors"]
    assert [path.name for path in expand(folder / "m[0-5].safetensors")] == ["m0.safetensors", "m1.safetensors"]


def test_a_working_folder_with_brackets(tmp_path: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "proj [v2]"
    work.mkdir()
    monkeypatch.chdir(work)
    for number in range(2):
        save_file(state(number), work / f"m{number}.safetensors")
    (work / "merge.toml").write_text("[pool]\nmodels = ['*.safetensors']\n[run]\nstrategy = 'uniform'\n")
    for arguments in (["--models", "*.safetensors", "--strategy", "uniform"], []):
        ran = merge("run", *arguments, "--output", f"out{len(arguments)}")
        assert ran.code == 0, ran.err
        assert (work / f"out{len(arguments)}/model.safetensors").is_file()


def test_the_base_is_found_as_models_are(saved: Path, merge: Merge) -> None:
    where = ["--base", saved / "run0/final", "--models", saved / "run*/final"]
    ran = merge("run", "--strategy", "task-arithmetic", *where, "--output", "out")
    assert ran.code == 0, ran.err
    assert merge("apply", "out/recipe.json", "--output", "again.safetensors").code == 0
    assert Path("again.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("last.pth.tar", True),
        ("model.ckpt", True),
        ("epoch=3-step=9.ckpt", True),
        ("optimizer.pt", False),
        ("rng_state_3.pth", False),
        ("scheduler.bin", False),
        ("training_args.bin", False),
        (".x.pt", False),
        ("optimizer_net.pt", False),
        ("data.tar", False),
        ("random_states_7.pkl", False),
        ("scaled.pt", True),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", False),
        ("sampler.bin", False),
        ("resampler.bin", True),
    ],
)
def test_what_training_leaves_is_no_model(name: str, model: bool, tmp_path: Path) -> None:
    torch.save(state(1), tmp_path / name)
    assert is_weights(tmp_path / name) is model


def test_results_are_models_again(tmp_path: Path, merge: Merge) -> None:
    """A soup of soups: the folders of earlier runs by a pattern, without what else lies in them."""
    for number in range(3):
        save_file(state(number), tmp_path / f"m{number}.safetensors")
    for number in range(2):
        models = ["--models", f"m{number}.safetensors", "--models", f"m{number + 1}.safetensors"]
        assert merge("run", "--strategy", "uniform", *models, "--output", f"out{number}").code == 0
    shutil.copy("m0.safetensors", "out0/overrides.safetensors")
    pool = ModelPool.open([tmp_path / "out*"])
    assert pool.names == ("out0", "out1")
    ran = merge("run", "--strategy", "uniform", "--models", "out*", "--output", "again")
    assert ran.code == 0, ran.err
    assert torch.equal(load_file("again/model.safetensors")["a.bias"], torch.full((2,), 1.0))


@pytest.mark.parametrize(
    "names",
    [
        ["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"],
        ["iter_10/mp_rank_00/model_optim_rng.pt", "iter_10/mp_rank_01/model_optim_rng.pt"],
        ["consolidated.00.pth", "consolidated.01.pth"],
        ["checkpoint_last-shard0.pt", "checkpoint_last-shard1.pt"],
        ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"],
    ],
)
def test_parts_of_one_model_are_no_pool(names: list[str], tmp_path: Path, merge: Merge) -> None:
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state(number), tmp_path / name)
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / names[0], "--models", tmp_path / names[1])
    assert ran.code == 2
    assert "are parts of one model by their names" in ran.err
    for number in range(2):  # the same part of two runs is two models
        (tmp_path / f"run{number}").mkdir()
        torch.save(state(number), tmp_path / f"run{number}" / Path(names[0]).name)
    assert len(ModelPool.open([tmp_path / "run*/*"])) == 2


def test_an_adapter_beside_a_model_and_parts_in_folders(tmp_path: Path) -> None:
    save_file(state(1), tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"an adapter .* lies beside model\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "2_Dense").mkdir()
    assert Checkpoint(tmp_path).hash == content_hash(state(1))
    save_file(state(2), tmp_path / "2_Dense/model.safetensors")
    with pytest.raises(CheckpointError, match="2_Dense holds weights of its own"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["best.th", "x.pyth", "net.tar", "model.epoch9", "x.pkl", "last"])
def test_a_pattern_goes_by_content(name: str, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"run{number}").mkdir()
        torch.save(state(number), tmp_path / f"run{number}" / name)
        (tmp_path / f"run{number}/notes.txt").write_text("not a model")
    assert len(expand(tmp_path / "run*" / name)) == 2
    assert len(expand(tmp_path / "run*/*")) == 2
