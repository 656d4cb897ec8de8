"""``merge check``: every mistake and not the first, counts that are right, leaks, pictures, and an honest estimate."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

import merging
from merging.errors import Stopped
from merging.looking.check import check
from merging.looking.estimate import estimate
from merging.looking.samples import chosen, half_blocks
from merging.plugins.discovery import load_all
from merging.plugins.registry import strategies
from merging.plugins.task import Split
from merging.running.leaks import digests
from merging.running.plan import plan
from merging.running.rehearsal import rehearse
from merging.testing import tiny_pool
from merging.testing.fixtures import tiny_task
from tests.conftest import TASK, Merge

CHECK = ["check", "--task", TASK]


@pytest.fixture
def folder(pool_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pool that a test may damage."""
    shutil.copytree(pool_folder, tmp_path / "pool")
    return tmp_path / "pool"


@pytest.fixture
def flags(folder: Path) -> list[str]:
    return [*CHECK, "--models", str(folder / "model_*"), "--partitioner", "layer"]


def test_a_pool_that_is_whole(merge: Merge, flags: list[str], folder: Path) -> None:
    ran = merge(*flags, "--base", str(folder / "base.safetensors"), "--budget", "20", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [model["name"] for model in found["models"]] == [f"model_{number}" for number in range(5)]
    assert all(model["error"] is None and len(model["hash"]) == 64 for model in found["models"])
    assert found["base"]["parameters"] == 4 * 8 + 8 + 8 * 3 + 3 + 4 + 1
    assert found["errors"] == []
    task = tiny_task()
    for each in found["sets"]:
        labels = task.split(each["name"]).labels
        assert each["counts"] == [int((labels == number).sum()) for number in range(3)]
        assert (each["samples"], each["shape"], each["dtype"]) == (len(labels), [4], "float32")
    assert [each["name"] for each in found["sets"]] == ["train", "held-out", "test", "shifted"]
    assert found["cost"]["evaluations"] > 20
    assert list(Path().iterdir()) == [Path("pool")]  # nothing is written
    shown = merge(*flags, "--budget", "20")
    assert "Everything fits" in shown.out
    assert "evaluations if every candidate is worth a try" in " ".join(shown.out.split())


def test_all_mistakes_are_listed(merge: Merge, flags: list[str], folder: Path) -> None:
    (folder / "model_1.safetensors").write_bytes(b"\x00" * 100)
    state = load_file(folder / "model_2.safetensors")
    state["fc1.weight"][0, 0] = float("nan")
    save_file(state, folder / "model_2.safetensors")
    state = load_file(folder / "model_0.safetensors")
    save_file({**state, "extra": torch.zeros(1)}, folder / "model_3.safetensors")
    ran = merge(*flags, "--base", "nowhere.safetensors")
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 4, ran.err
    assert "model_1.safetensors" in errors[0]
    assert "'fc1.weight' holds NaN or infinite values" in errors[1]
    assert "no such checkpoint" in errors[2]
    assert "model_3.safetensors has an extra tensor 'extra'" in errors[3]
    assert "model_0" in ran.out
    assert "Everything fits" not in ran.out
    listed = json.loads(merge(*flags, "--json").out)
    assert [bool(model["error"]) for model in listed["models"]] == [False, True, True, True, False]
    assert listed["cost"] is None


def test_the_odd_one_out_is_not_the_first(merge: Merge, flags: list[str], folder: Path) -> None:
    save_file({"other": torch.zeros(3)}, folder / "model_0.safetensors")
    ran = merge(*flags)
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert ran.code == 2
    assert len(errors) == 1
    assert "model_0.safetensors" in errors[0]


def test_models_that_do_not_fit_the_task(merge: Merge, tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    ran = merge(*CHECK, "--models", str(tmp_path / "a.safetensors"))
    assert ran.code == 2
    assert "does not fit the task's model" in ran.err
    ran = merge(*CHECK, "--models", "nothing-*.pt")
    assert ran.code == 2
    assert "no models match" in ran.err
    assert "held-out" in ran.out  # the data are looked at all the same


def test_needs_of_the_strategy(merge: Merge, flags: list[str]) -> None:
    ran = merge(*flags, "--strategy", "ties")
    assert ran.code == 2
    assert "strategy 'ties' needs base" in ran.err


def test_twins(merge: Merge, flags: list[str], folder: Path) -> None:
    shutil.copy(folder / "model_0.safetensors", folder / "model_9.safetensors")
    shutil.copy(folder / "base.safetensors", folder / "model_8.safetensors")
    ran = merge(*flags, "--base", str(folder / "base.safetensors"), "--strategy", "greedy")
    assert ran.code == 0
    assert "model_0, model_9 hold the same weights" in ran.out
    assert "model_8 and the base hold the same weights" in ran.out


def test_strangers(merge: Merge, flags: list[str], folder: Path) -> None:
    """A model of another initialisation, and a base of another."""
    task = ["--base", str(folder / "base.safetensors"), "--strategy", "greedy"]
    assert "nothing in common" not in merge(*flags, *task).out
    for name, said in (("model_1", "model_1 has nothing in common"), ("base", "the base has nothing in common")):
        kept = load_file(folder / f"{name}.safetensors")
        draw = torch.Generator().manual_seed(1)
        other = {n: torch.randn(t.shape, generator=draw) if t.ndim > 1 else t for n, t in kept.items()}
        save_file(other, folder / f"{name}.safetensors")
        ran = merge(*flags, *task)
        assert ran.out.count("nothing in common") == 1
        assert said in ran.out
        save_file(kept, folder / f"{name}.safetensors")


def images(count: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % classes


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[Path]:
    """Two small models of timm, and image data with two leaks, a missing class and a doubled image."""
    pixels, labels = images(40, 0)
    test, marks = images(20, 1)
    test[3], marks[3] = pixels[7], labels[7]
    test[4], marks[4] = pixels[8], (labels[8] + 1) % 4
    few, fewer = images(12, 2, classes=3)
    few[5] = few[4]
    np.savez(
        tmp_path / "data.npz",
        a_images=pixels,
        a_labels=labels,
        b_images=test,
        b_labels=marks,
        c_images=few,
        c_labels=fewer,
    )
    state = merging.model_source("timm:test_resnet").module(4).state_dict()
    for number in range(2):
        save_file(
            {n: t + 0.01 * number if t.is_floating_point() else t for n, t in state.items()},
            tmp_path / f"model_{number}.safetensors",
        )
    (tmp_path / "merge.toml").write_text(
        '[task]\nmodel = "timm:test_resnet"\nheld_out = "data.npz:a"\ntest = "data.npz:b"\n'
        '[task.shifts]\nfew = "data.npz:c"\n[pool]\nmodels = ["model_*.safetensors"]\n'
    )
    return tmp_path


def test_leaks_missing_classes_and_pictures(merge: Merge, photos: Path) -> None:
    ran = merge("check", "--strategy", "greedy", "--pictures", "strip.png", "--samples", "6")
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "2 samples of test also in held-out, 1 of them with another label" in said
    assert "few: no samples of 1 of 4 classes (3)" in said
    assert "few: 1 samples occur more than once" in said
    with Image.open(photos / "strip.png") as picture:
        colours = np.array(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 500  # photographs of noise, not white paper
    found = json.loads(merge("check", "--strategy", "greedy", "--json").out)
    assert found["outputs"] == 4
    assert found["shared"] == [{"first": "held-out", "second": "test", "samples": 2, "otherwise": 1}]


def test_leaks_are_said_by_run_and_benchmark(merge: Merge, photos: Path) -> None:
    assert merge("run", "--strategy", "uniform", "--no-baselines", "--output", "out").code == 0
    assert merge("benchmark", "--strategies", "best", "--output", "compared").code == 0
    for file in (photos / "out/report.json", photos / "compared/benchmark.json"):
        notes = json.loads(file.read_text())["notes"]
        assert "2 samples of test also in held-out, 1 of them with another label: scores there are too high" in notes


def test_every_broken_set_is_named(merge: Merge, photos: Path) -> None:
    text = (photos / "merge.toml").read_text()
    (photos / "merge.toml").write_text(text.replace("data.npz:a", "data.npz:x").replace("data.npz:c", "gone.npz:c"))
    ran = merge("check")
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert ran.code == 2
    assert len(errors) == 2, errors
    assert sum("'x'" in error for error in errors) == 1
    assert sum("gone.npz" in error for error in errors) == 1
    assert "model_1" in ran.out


def test_a_set_that_is_fine_is_not_blamed(merge: Merge, photos: Path) -> None:
    text = (photos / "merge.toml").read_text()
    table = '{ path = "data.npz:b", map = { "7" = "8" } }'
    (photos / "merge.toml").write_text(text.replace('"data.npz:b"', table).replace('"data.npz:c"', '"data.npz:q"'))
    ran = merge("check")
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert ran.code == 2
    assert len(errors) == 2, errors
    assert not any("held-out" in error for error in errors)


def test_labels_beyond_the_outputs(merge: Merge, photos: Path) -> None:
    pixels, labels = images(10, 5, classes=6)
    np.savez(photos / "more.npz", a_images=pixels, a_labels=labels)
    text = (photos / "merge.toml").read_text()
    (photos / "merge.toml").write_text(text.replace("data.npz:b", "more.npz:a"))
    ran = merge("check", "--strategy", "greedy")
    assert ran.code == 2
    assert "test: label 5, but the model has 4 outputs" in ran.err


def test_pictures_that_cannot_be(merge: Merge, flags: list[str]) -> None:
    ran = merge(*flags, "--pictures", "strip.txt")
    assert (ran.code, "pictures are written as .png" in ran.err) == (2, True)
    ran = merge(*flags, "--pictures", "nowhere/strip.png")
    assert (ran.code, "there is no folder nowhere" in ran.err) == (2, True)
    ran = merge(*flags, "--strategy", "greedy", "--pictures", "strip.png")  # the blobs are four numbers each
    assert (ran.code, "no set holds images" in ran.err) == (2, True)
    assert not Path("strip.png").exists()


def test_samples_of_a_strip_show_every_class() -> None:
    labels = torch.tensor([2, 2, 2, 0, 0, 1, 2, 0])
    split = Split.of(torch.arange(8.0)[:, None], labels)
    assert chosen(split, 5) == [3, 5, 0, 4, 1]
    assert sorted(chosen(split, 100)) == list(range(8))


def test_pictures_in_a_terminal() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = 255, 0, 0
    image[1, 0] = 0, 0, 255
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=40)
    lines = half_blocks(image, 4)
    assert len(lines) == 2
    console.print(lines[0])
    assert "\x1b[38;2;255;0;0;48;2;0;0;255m▀" in out.getvalue()


def test_equal_texts_are_equal_however_padded() -> None:
    short = Split.of(torch.tensor([[5, 6, 0], [7, 0, 0]]), torch.tensor([0, 1]))
    long = Split.of(torch.tensor([[7, 0, 0, 0], [5, 6, 6, 0]]), torch.tensor([1, 0]))
    assert len(digests(short, 0).keys() & digests(long, 0).keys()) == 1
    assert not digests(short).keys() & digests(long).keys()


@pytest.mark.parametrize(
    "name",
    [
        "best",
        "uniform",
        "greedy",
        "wise-ft",
        "ties",
        "fisher",
        "learned",
        "ensemble",
        "greedy-ensemble",
        "manifoldmix",
        "model-stock",
    ],
)
def test_evaluations_are_about_those_of_the_run(name: str, tmp_path: Path) -> None:
    """A run never needs many more than was said, as what is said takes every candidate to be worth a try."""
    load_all(())
    pool = tiny_pool(tmp_path, models=4)
    strategy, settings = strategies[name](), {"partitioner": merging.Layer(), "task": tiny_task(), "budget": 12}
    said = estimate(plan(pool, strategy, **settings))  # type: ignore[arg-type]
    report = merging.merge(pool, strategy, **settings).report  # type: ignore[arg-type]
    assert said.complete
    assert report.evaluations <= said.evaluations + 3  # merges that coincide where everything is kept
    assert report.forward_equivalents <= 1.1 * said.passes + 3
    assert said.evaluations <= 2.5 * report.evaluations + 3
    assert 0 < said.pass_seconds < 1
    assert said.minutes >= said.passes * said.pass_seconds / 60


def test_a_long_rehearsal_ends(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path, models=4)
    made = plan(pool, merging.ManifoldMix(), partitioner=merging.Layer(), task=tiny_task())
    rehearsal = rehearse(made, 3, seconds=0.0)
    assert not rehearsal.complete
    assert rehearsal.meter.evaluations == 0
    limited = plan(pool, merging.ManifoldMix(), partitioner=merging.Layer(), task=tiny_task(), max_evaluations=7)
    assert estimate(limited).evaluations == 7


def test_it_can_be_stopped(pool_folder: Path) -> None:
    with pytest.raises(Stopped):
        check([pool_folder / "model_*"], merging.Greedy(), task=tiny_task(), should_stop=lambda: True)


def test_without_a_task(merge: Merge, folder: Path) -> None:
    ran = merge("check", "--models", str(folder / "model_*"), "--strategy", "uniform")
    assert ran.code == 0, ran.err
    assert "Everything fits" in ran.out
    ran = merge("check", "--models", str(folder / "model_*"), "--strategy", "greedy")
    assert (ran.code, "needs" in ran.err) == (2, True)


def test_unlabelled_data_are_counted(merge: Merge, photos: Path) -> None:
    text = (photos / "merge.toml").read_text()
    (photos / "merge.toml").write_text(text.replace("test =", 'unlabelled = "data.npz:b"\ntest ='))
    ran = merge("check", "--strategy", "greedy", "--pictures", "strip.png")
    assert ran.code == 0, ran.err
    assert "unlabelled 20 no labels" in " ".join(ran.out.split())
    assert "of unlabelled also" not in ran.out
