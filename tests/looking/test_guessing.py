"""What a folder holds: which checkpoints are meant, which architecture they are, what each set is for."""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import timm.optim
import timm.utils
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models as torchvision_models

from merging.cli.main import cli
from merging.errors import MergingError
from merging.looking.guessing.architecture import architectures, distinct
from merging.looking.guessing.checkpoints import as_patterns, listed, meant
from merging.looking.guessing.guess import Given, propose
from merging.looking.guessing.pools import FoundPool, grouped
from merging.looking.guessing.proposal import toml
from merging.looking.guessing.sets import found_sets, with_roles
from merging.looking.guessing.signature import index
from merging.looking.guessing.trying import Tried, best_of
from merging.models.catalogue import model_source
from merging.models.clip import OpenClip
from tests.conftest import TASK


def pool_of(folder: Path, module: nn.Module, count: int = 2) -> FoundPool:
    """Checkpoints of one architecture, which differ a little."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        state = {name: t + number if t.is_floating_point() else t for name, t in module.state_dict().items()}
        torch.save(state, folder / f"run_{number}.pth")
    return grouped(listed(folder).paths)


def pictures(folder: Path, classes: str, count: int = 2) -> None:
    """A folder of class folders."""
    for number, name in enumerate(classes):
        for each in range(count):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (40 * number, 90 * each, 0)).save(folder / name / f"{each}.png")


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (
            ["checkpoint-8.pth.tar", "checkpoint-9.pth.tar", "last.pth.tar", "model_best.pth.tar"],
            ["model_best.pth.tar"],
        ),
        (["epoch=1-step=20.ckpt", "epoch=2-step=40.ckpt", "last.ckpt"], ["last.ckpt"]),
        (["model_0.pt", "model_1.pt", "model_10.pt"], ["model_0.pt", "model_1.pt", "model_10.pt"]),
        (["best.pt", "seed1.pt", "seed2.pt"], ["best.pt", "seed1.pt", "seed2.pt"]),
        (["best.pt", "last.pt"], ["best.pt"]),
        (["last.pt"], ["last.pt"]),
        (["best_seed0.pth", "best_seed1.pth"], ["best_seed0.pth", "best_seed1.pth"]),
        (["best_lr0.1.pt", "best_lr1e-3.pt", "last.pt"], ["best_lr0.1.pt", "best_lr1e-3.pt"]),
        (["best-epoch=3-acc=0.91.ckpt", "best-epoch=5-acc=0.93.ckpt"], ["best-epoch=3-acc=0.91.ckpt"]),
        (["best.ckpt", "best-v1.ckpt"], ["best.ckpt"]),
    ],
)
def test_of_a_run_its_best_checkpoint_is_meant(names: list[str], taken: list[str]) -> None:
    assert [path.name for path in meant([Path(name) for name in names])] == taken


def test_each_run_gives_one_checkpoint_whatever_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs beside other runs' epochs are one run's; a folder of transformers is taken rather than what is in it."""
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        for epoch in (9, 10):
            Path("runs", run).mkdir(parents=True, exist_ok=True)
            save_file({"w": torch.ones(2)}, f"runs/{run}/epoch_{epoch}.safetensors")
        for folder in ("", "checkpoint-5"):
            place = Path("trainer", run, folder)
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.json").write_text("{}")
            save_file({"w": torch.ones(2)}, place / "model.safetensors")
    assert [str(path) for path in listed(Path("runs")).paths] == [
        "runs/a/epoch_10.safetensors",
        "runs/b/epoch_10.safetensors",
    ]
    found = listed(Path("trainer"))
    assert [str(path) for path in found.paths] == ["trainer/a", "trainer/b"]
    assert "trainer/a/checkpoint-5" in [str(path) for paths in found.left_out.values() for path in paths]


def test_a_pattern_names_the_checkpoints_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m_0.pt", "m_1.pt", "other.pt"):
        torch.save({"w": torch.ones(1)}, name)
    assert as_patterns([Path("m_0.pt"), Path("m_1.pt")]) == ["m_*.pt"]
    assert as_patterns([Path("m_0.pt"), Path("other.pt")]) == ["m_0.pt", "other.pt"], "m_1.pt would match *.pt"


def test_the_largest_set_that_agrees_is_taken_and_the_rest_is_told(tmp_path: Path) -> None:
    """Another head, a diverged run, a copy, and the base by its name."""
    for number in range(3):
        torch.save({"w": torch.ones(4, 4) * number, "fc.weight": torch.rand(3, 4)}, tmp_path / f"m{number}.pt")
    torch.save({"w": torch.ones(4, 4), "fc.weight": torch.rand(5, 4)}, tmp_path / "five.pt")
    torch.save({"w": torch.full((4, 4), torch.nan), "fc.weight": torch.rand(3, 4)}, tmp_path / "nan.pt")
    torch.save(torch.load(tmp_path / "m1.pt"), tmp_path / "same.pt")
    torch.save({"w": torch.zeros(4, 4), "fc.weight": torch.rand(3, 4)}, tmp_path / "pretrained.pt")
    found = grouped(listed(tmp_path).paths)
    assert [model.path.name for model in found.models] == ["m0.pt", "m1.pt", "m2.pt"]
    assert found.base is not None
    assert found.base.path.name == "pretrained.pt"
    why = {path.name: reason for reason, paths in found.left_out.items() for path in paths}
    assert "'fc.weight' is [5, 4] there, [3, 4]" in why["five.pt"]
    assert "NaN" in why["nan.pt"]
    assert "same weights" in why["same.pt"]


@pytest.mark.parametrize("strategy", ["uniform", "ties", "best"])
def test_merges_of_earlier_runs_are_no_models(tmp_path: Path, pool_folder: Path, strategy: str) -> None:
    """Left out are the run's folder, with or without a recipe, and its model elsewhere; not the best model itself."""
    shutil.copytree(pool_folder, tmp_path / "pool", ignore=shutil.ignore_patterns("base*"))
    pool = listed(tmp_path).paths
    run = tmp_path / "runs" / "first"
    flags = [
        "--models",
        str(tmp_path / "pool" / "model_*"),
        "--task",
        TASK,
        "--strategy",
        strategy,
        "--output",
        str(run),
    ]
    flags += ["--base", str(pool[0])] if strategy == "ties" else []
    cli.main(["run", *flags, "--json"], standalone_mode=False)
    assert (run / "recipe.json").exists() == (strategy != "ties")
    merged = load_file(run / "model.safetensors")
    torch.save(merged, tmp_path / "again.pt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.json").write_text('{"strategy": "of another program"}')
    (other / "events.jsonl").write_text('{"event": "of another program"}\n')
    save_file({name: tensor + 1 for name, tensor in merged.items()}, other / "model_9.safetensors")
    found = listed(tmp_path)
    assert found.left_out == {"results of merge run": [run]}
    whole = grouped(found.paths, results=found.results)
    kept = {model.path for model in whole.models}
    if strategy == "best":  # a copy of a model, and no merge
        assert len(kept) == len(pool) + 1
        assert "the same weights as" in next(iter(whole.left_out))
    else:
        assert kept == {*pool, other / "model_9.safetensors"}
        assert whole.left_out == {f"the merge of {run}": [tmp_path / "again.pt"]}
    (run / "report.json").unlink()
    (run / "recipe.json").unlink(missing_ok=True)
    assert listed(tmp_path).results == [run], "one that was cut off has its journal"


def test_what_timm_saves_is_named_by_its_own_arguments(tmp_path: Path) -> None:
    """CheckpointSaver with EMA and a Namespace: the trained weights are taken, and the averages are known."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        model: Any = timm.create_model("test_resnet", num_classes=4)
        utils: Any = timm.utils
        optim: Any = timm.optim
        ema = utils.ModelEmaV3(model, decay=0.9)
        with torch.no_grad():
            model.fc.weight.add_(1)
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        arguments = argparse.Namespace(model="test_resnet", lr=0.1, mean=[0.1, 0.2, 0.3])
        optimizer = optim.create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9)
        saver = utils.CheckpointSaver(
            model, optimizer, args=arguments, model_ema=ema, checkpoint_dir=str(folder), recovery_dir=str(folder)
        )
        saver.save_checkpoint(0, metric=91.0)
    found = grouped(listed(tmp_path).paths)
    assert [str(model.path.relative_to(tmp_path)) for model in found.models] == [
        "run0/model_best.pth.tar",
        "run1/model_best.pth.tar",
    ]
    assert (found.key, found.keys) == ("state_dict", ("state_dict_ema",))
    (said,), _ = architectures(found)
    assert (said.spec, said.classes) == ("timm:test_resnet", 4)
    assert said.settings == {"mean": [0.1, 0.2, 0.3]}


SMALL = [
    *("timm:resnet18", "timm:mobilenetv3_small_050", "timm:test_efficientnet", "timm:test_vit", "timm:test_convnext"),
    *("timm:lcnet_050", "timm:ghostnet_050", "timm:edgenext_xx_small", "timm:mobilevit_xxs", "timm:mnasnet_small"),
    *("torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5"),
    *("timm:vit_tiny_patch16_224(img_size=64)", "timm:deit_tiny_patch16_224(img_size=96)"),
    "timm:vit_tiny_patch16_224(global_pool='avg')",
]


@pytest.mark.slow
@settings(max_examples=3)
@given(spec=st.sampled_from(SMALL), classes=st.integers(2, 40))
def test_an_architecture_is_found_by_its_tensors(
    tmp_path_factory: pytest.TempPathFactory, spec: str, classes: int
) -> None:
    """Or one that computes the same of the same pictures, or several of which this is one."""
    module = model_source(spec).module(classes)
    found, _ = architectures(pool_of(tmp_path_factory.mktemp("drawn"), module))
    assert spec in [each.spec for each in found]
    assert {each.classes for each in found} == {classes}
    state = module.state_dict()
    for each in found:
        built = each.source.module(classes).state_dict()
        assert {name: tensor.shape for name, tensor in built.items()} == {name: t.shape for name, t in state.items()}


def test_of_several_that_fit_the_plain_one_comes_first(tmp_path: Path) -> None:
    """The same tensors in two libraries; a name in the files' path decides, else the rule."""
    module = torchvision_models.resnet18(num_classes=3)
    found, _ = architectures(pool_of(tmp_path / "models", module))
    names = [each.spec for each in distinct(found)]
    assert names[0] == "timm:resnet18"
    assert "torchvision:resnet18" in names
    named, _ = architectures(pool_of(tmp_path / "resnetblur18", module))
    assert named[0].spec == "timm:resnetblur18"


@pytest.mark.slow
def test_an_image_tower_with_a_head_is_found_with_and_without_quickgelu(tmp_path: Path) -> None:
    found, _ = architectures(pool_of(tmp_path, OpenClip("ViT-S-32-alt").module(3)))
    assert found[0].spec == "open_clip:ViT-S-32-alt"
    quick = next(signature for signature, names in index()["open_clip"].items() if "ViT-B-32-quickgelu" in names)
    assert "ViT-B-32" in index()["open_clip"][quick], "their tensors are the same: data have to decide"


def test_a_folder_of_transformers_and_a_lightning_checkpoint_are_known_by_what_they_say(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import ResNetConfig, ResNetForImageClassification

    for seed in range(2):
        torch.manual_seed(seed)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=3)  # type: ignore[call-arg]
        ResNetForImageClassification(config).save_pretrained(tmp_path / f"hub/run{seed}")
        state = {f"model.{name}": t for name, t in timm.create_model("test_resnet", num_classes=5).state_dict().items()}
        content = {"state_dict": state, "pytorch-lightning_version": "2.1", "hyper_parameters": {"arch": "test_resnet"}}
        Path(tmp_path / "lightning").mkdir(exist_ok=True)
        torch.save(content, tmp_path / f"lightning/run{seed}.ckpt")
    hub = grouped(listed(tmp_path / "hub").paths)
    assert architectures(hub)[0][0].spec == f"transformers:{tmp_path / 'hub/run0'}"
    (said,), _ = architectures(grouped(listed(tmp_path / "lightning").paths))
    assert (said.spec, said.classes) == ("timm:test_resnet", 5)
    assert "hyper_parameters" in said.why


def test_what_a_file_says_wrongly_does_not_count(tmp_path: Path) -> None:
    """An architecture that its own file names, and that does not fit, gives way to the tensors."""
    pool_of(tmp_path, timm.create_model("test_resnet", num_classes=5))
    (tmp_path / "args.yaml").write_text("model: resnet18\nmean: [0.1, 0.1, 0.1]\n")
    found, wrong = architectures(grouped(listed(tmp_path).paths))
    assert found[0].spec == "timm:test_resnet"
    assert "resnet18" in wrong[0]


def sets_in(folder: Path, classes: int) -> tuple[dict[str, str], dict[str, str]]:
    """Part → path, of parts and shifts; and what was left out."""
    found, refused = found_sets([folder], model_source("timm:test_resnet"), texts=False)
    roles = with_roles(found, classes)
    named = {name: str(each.place.path) for name, each in {**roles.parts, **roles.shifts}.items()}
    return named, {**refused, **roles.left_out}


def folders(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        pictures(folder / part, "abc")
    pictures(folder / "sketch", "abc")
    pictures(folder / "birds", "xyz")


def table(folder: Path) -> None:
    pictures(folder / "images/one", "abc")
    pictures(folder / "images/two", "abc")
    for name, part in (("val_labels.csv", "one"), ("test.csv", "two")):
        rows = [f"images/{part}/{letter}/{n}.png,{letter}" for letter in "abc" for n in range(2)]
        (folder / name).write_text("\n".join(["filename,class", *rows]) + "\n")


def arrays(folder: Path) -> None:
    images, labels = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 3
    parts: dict[str, Any] = {f"{part}_images": images for part in ("train", "val", "test", "fog")}
    parts |= {f"{part}_labels": labels for part in ("train", "val", "test", "fog")}
    np.savez(folder / "set.npz", classes=np.array(["a", "b", "c"]), **parts)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (folders, {"train": "train", "held_out": "valid", "test": "test", "sketch": "sketch"}),
        (table, {"held_out": "val_labels.csv", "test": "test.csv"}),
        (
            arrays,
            {p: f"set.npz:{k}" for p, k in (("train", "train"), ("held_out", "val"), ("test", "test"), ("fog", "fog"))},
        ),
    ],
)
def test_sets_get_their_roles_by_their_names(
    tmp_path: Path, make: Callable[[Path], None], parts: dict[str, str]
) -> None:
    make(tmp_path)
    found, left = sets_in(tmp_path, 3)
    assert parts.items() <= {part: str(Path(path).relative_to(tmp_path)) for part, path in found.items()}.items()
    if make is folders:
        assert "other classes: x, y, z" in left[str(tmp_path / "birds")]


def test_sets_with_other_numbers_of_classes_than_the_head_are_left_out(tmp_path: Path) -> None:
    folders(tmp_path)
    found, left = sets_in(tmp_path, 2)
    assert not found
    assert "3 classes, and the model has 2 outputs" in left[str(tmp_path / "test")]


def test_toml_is_what_a_parser_reads_back() -> None:
    import tomllib

    value: dict[str, Any] = {"path": 'a "b" \x7f\x1b\\ö', "n": [1, 0.5, True], "two words": {"x": "y"}}
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (0, "holds no checkpoints"),
        (1, "is the only model"),
    ],
)
def test_what_cannot_be_guessed_is_one_line(tmp_path: Path, files: int, said: str) -> None:
    for number in range(files):
        torch.save({"w": torch.ones(1)}, tmp_path / f"{number}.pt")
    with pytest.raises(MergingError, match=said) as error:
        propose(Given(folder=tmp_path))
    assert "\n" not in str(error.value)


def test_an_unknown_architecture_with_data_asks_for_its_name(tmp_path: Path) -> None:
    """Without data it is averaged."""
    for number in range(2):
        torch.save({"conv.weight": torch.rand(3, 3), "fc.weight": torch.rand(3, 3)}, tmp_path / f"{number}.pt")
    found = propose(Given(folder=tmp_path))
    assert [entry.value for entry in found.run] == ["uniform"]
    assert not found.task
    pictures(tmp_path / "val", "abc")
    with pytest.raises(MergingError, match=r"such as 'conv.weight' .*say which with `model`"):
        propose(Given(folder=tmp_path))


@pytest.mark.slow
def test_the_index_is_that_of_the_installed_libraries() -> None:
    """Otherwise: python -m benchmarks.architectures."""
    known = {
        "timm": timm.list_models(),
        "torchvision": torchvision_models.list_models(module=torchvision_models),
        "open_clip": [name for name in open_clip.list_models() if not name.startswith("coca_")],
    }
    found = json.loads(json.dumps(index()))
    lost = {
        source: set(names) - {name for each in found[source].values() for name in each}
        for source, names in known.items()
    }
    assert sum(map(len, lost.values())) <= 100, f"many models are new: {lost}"


def test_of_two_guesses_that_cannot_be_told_apart_the_likelier_one_is_taken() -> None:
    """Both are clearly better than the likeliest one; that the third is right once more is luck."""

    def tried(said: str, right: int) -> Tried:
        return Tried(keys={}, said=said, chance=None, hits=np.arange(128) < right)  # type: ignore[arg-type]

    guesses = [tried("as the library has it", 20), tried("as stored", 40), tried("as stored, others' pixels", 41)]
    assert best_of(guesses).said == "as stored"


def test_two_sets_of_models_of_one_size_are_a_guess_in_the_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(2):
            torch.save({name: torch.full((4,), float(number))}, tmp_path / f"{name}{number}.pth")
    found = propose(Given(folder=tmp_path))
    assert "# guessed: as many others agree" in found.text(tmp_path / "merge.toml")
    assert "models" in found.to_json(tmp_path / "merge.toml")["guessed"]


def test_data_with_more_classes_than_the_models_are_said_to_be_there(tmp_path: Path) -> None:
    pool_of(tmp_path, timm.create_model("test_resnet", num_classes=3))
    pictures(tmp_path / "data/val", "abcd")
    save_file({}, tmp_path / "data/test.parquet")  # whatever is in it, it is not read
    found = propose(Given(folder=tmp_path))
    assert not found.task
    notes = " ".join(found.notes)
    assert "Warning: " in notes
    assert "None of the data that were found can be used" in notes
    assert "4 classes, and the model has 3 outputs" in notes
    assert "test.parquet: no table that is read" in notes


def test_pixels_are_not_learned_by_labels_that_may_be_wrong(tmp_path: Path) -> None:
    """Three class folders for four outputs: which is missing is not known."""
    pool_of(tmp_path, timm.create_model("test_resnet", num_classes=4))
    pictures(tmp_path / "val", "abc")
    found = propose(Given(folder=tmp_path))
    assert list(found.scores) == ["timm:test_resnet"]
    assert any("the data name 3 classes, and the model has 4 outputs" in note for note in found.notes)


@pytest.mark.parametrize("name", ["trainset", "TrainImages", "Trainings bilder", "train2017", "trainval"])
def test_training_data_are_no_shifted_set(tmp_path: Path, name: str) -> None:
    for folder in (name, "val"):
        pictures(tmp_path / folder, "ab")
    sets, _ = found_sets([tmp_path], model_source("timm:test_resnet"), texts=False)
    roles = with_roles(sets, 2)
    assert set(roles.parts) == {"held_out", "train"}
    assert not roles.shifts
