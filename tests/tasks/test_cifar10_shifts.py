"""The suite cifar10-shifts on an excerpt of its real files: parts, classes, and accuracies by a plain loop."""

from __future__ import annotations

import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import merging
from benchmarks.resnet20 import ResNet20
from merging.errors import TaskError
from merging.plugins.task import Task
from merging.tasks.cifar10 import SHIFTS, cifar10_shifts
from tests.conftest import Merge

DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COVERED = {"tin_balanced": (1, 2, 3, 4, 5, 6, 8, 9)} | dict.fromkeys(SHIFTS[1:], (0, 1, 2, 3, 5, 8, 9))
"""The classes that each set's labels show."""
MODEL = "python:benchmarks.resnet20:model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files with every 50th training image, 25th test image and 10th shifted image."""
    folder = tmp_path_factory.mktemp("cifar10")
    arrays: dict[str, np.ndarray] = {}
    with np.load(DATA / "cifar10.npz") as whole:
        arrays["classes"] = whole["classes"]
        for key, step in (("train", 50), ("test", 25)):
            data, offsets, labels = (whole[f"{key}_{part}"] for part in ("jpeg", "offsets", "labels"))
            parts = [data[offsets[i] : offsets[i + 1]] for i in range(0, len(labels), step)]
            arrays[f"{key}_jpeg"] = np.concatenate(parts)
            arrays[f"{key}_offsets"] = np.cumsum([0, *map(len, parts)])
            arrays[f"{key}_labels"] = labels[::step]
    np.savez(folder / "cifar10.npz", allow_pickle=False, **arrays)
    with np.load(DATA / "cifar10_shifts.npz") as whole:
        chosen = {f"{key}_{part}": whole[f"{key}_{part}"] for key in SHIFTS for part in ("images", "labels")}
        every = {key: 10 if len(chosen[f"{key}_labels"]) > 100 else 1 for key in SHIFTS}
        np.savez(
            folder / "cifar10_shifts.npz",
            classes=whole["classes"],
            **{name: array[:: every[name.rpartition("_")[0]]] for name, array in chosen.items()},
        )
    return folder


@pytest.fixture
def task(folder: Path) -> Task:
    return cifar10_shifts(folder, MODEL)


def test_held_out_and_test_are_halves_of_each_class(task: Task, folder: Path) -> None:
    test = task.tests["test"]
    counts = [np.bincount(split.labels.numpy()) for split in (task.held_out, test)]
    with np.load(folder / "cifar10.npz") as arrays:
        assert np.array_equal(sum(counts), np.bincount(arrays["test_labels"]))
        assert task.train is not None
        assert task.train.labels.tolist() == arrays["train_labels"].tolist(), "every training image, in its order"
    assert np.abs(counts[0] - counts[1]).max() <= 1
    rows = [split.inputs[i].numpy().tobytes() for split in (task.held_out, test) for i in range(len(split))]
    assert len(set(rows)) == len(rows) == 400, "the halves share no image"
    assert task.classes == CLASSES


def test_another_seed_gives_other_halves(task: Task, folder: Path) -> None:
    first, again, other = (cifar10_shifts(folder, MODEL, split_seed=seed) for seed in (0, 0, 1))
    assert task.held_out.fingerprint == first.held_out.fingerprint == again.held_out.fingerprint
    assert other.held_out.fingerprint != first.held_out.fingerprint
    assert (first.name, other.name) == ("cifar10-shifts", "cifar10-shifts (split 1)")
    images = {name: {bytes(x.numpy()) for x in made.held_out.inputs} for name, made in (("0", first), ("1", other))}
    assert 60 < len(images["0"] & images["1"]) < 140, "two independent halves of 400 share about 100"
    with pytest.raises(TaskError, match="split_seed is -1; it is a whole number from 0 on"):
        cifar10_shifts(folder, MODEL, split_seed=-1)


def test_sets_and_their_classes(task: Task, folder: Path) -> None:
    assert tuple(task.tests) == ("test", *SHIFTS)
    assert task.shifts == SHIFTS
    assert task.tests["test"].classes is None
    with np.load(folder / "cifar10_shifts.npz") as arrays:
        for name in SHIFTS:
            split = task.tests[name]
            assert split.classes == tuple((k,) for k in COVERED[name])
            assert [split.classes[label][0] for label in split.labels.tolist()] == arrays[f"{name}_labels"].tolist()
            assert np.array_equal(split.inputs.numpy(), arrays[f"{name}_images"])


@pytest.mark.slow
def test_accuracies_by_hand(task: Task, folder: Path) -> None:
    """The real ResNet-20, image by image: JPEGs opened with Pillow, logits restricted to the classes that occur."""
    scores = merging.evaluate(DATA / "cifar10_resnet20.safetensors", task)
    module = ResNet20().eval()
    module.load_state_dict(load_file(DATA / "cifar10_resnet20.safetensors"))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def right(pixels: np.ndarray, label: int, classes: tuple[int, ...]) -> bool:
        x = (torch.from_numpy(pixels.copy()).float() / 255 - mean) / std
        with torch.no_grad():
            logits = module(x.permute(2, 0, 1)[None])[0]
        return max(classes, key=lambda k: float(logits[k])) == label

    with np.load(folder / "cifar10.npz") as arrays:
        data, ends = arrays["test_jpeg"], arrays["test_offsets"]
        images = [np.array(Image.open(io.BytesIO(data[a:b].tobytes()))) for a, b in itertools.pairwise(ends)]
        hits = {x.tobytes(): right(x, k, tuple(range(10))) for x, k in zip(images, arrays["test_labels"], strict=True)}
    halves = {"held-out": task.held_out, "test": task.tests["test"]}
    for name, half in halves.items():
        assert scores[name].accuracy == pytest.approx(np.mean([hits[x.numpy().tobytes()] for x in half.inputs])), name
    assert 0.75 < np.mean(list(hits.values())) < 0.9, "81.0 % on the whole test copy"
    with np.load(folder / "cifar10_shifts.npz") as arrays:
        for name in SHIFTS:
            pairs = zip(arrays[f"{name}_images"], arrays[f"{name}_labels"].tolist(), strict=True)
            found = [right(x, k, COVERED[name]) for x, k in pairs]
            assert scores[name].accuracy == pytest.approx(np.mean(found)), name
    assert scores["tin_balanced"].accuracy > 0.5


@pytest.mark.slow
def test_a_run_from_merge_toml(folder: Path, merge: Merge) -> None:
    text = (
        f"[task]\nname = 'cifar10-shifts'\ndata = '{folder}'\nmodel = '{MODEL}'\n"
        f"[pool]\nmodels = ['{DATA}/cifar10_resnet20.safetensors', 'second.pt']\n"
    )
    state = load_file(DATA / "cifar10_resnet20.safetensors")
    torch.manual_seed(0)
    torch.save(
        {n: t + 0.01 * t.std() * torch.randn_like(t) if t.ndim > 1 else t for n, t in state.items()}, "second.pt"
    )
    Path("cifar.toml").write_text(text)
    ran = merge(
        "run", "--task", "cifar.toml", "--trust-code", "--strategy", "uniform", "--no-baselines", "--output", "out"
    )
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert set(report["tests"]) == {"test", *SHIFTS}
    assert any("measured again on" in note for note in report["notes"])


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((), r"needs data: the folder that holds cifar10.npz and cifar10_shifts.npz"),
        ((folder,), r"needs model"),
        ((tmp_path, "timm:resnet18"), r"has no cifar10\.npz"),
        ((folder, "timm:vit_tiny_patch16_224", 32), "takes images of 224 pixels only"),
    ):
        with pytest.raises(TaskError, match=said):
            cifar10_shifts(*arguments)
