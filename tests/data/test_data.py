"""Every form that data may have gives the same samples; classes, damaged images and mistakes; docs/data.md is run."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import merging
from merging.cli.asking.request import combine, restore
from merging.cli.asking.tables import read_toml
from merging.data.classes import Choice, labelling
from merging.data.opening import load_data
from merging.errors import MergingError, TaskError
from merging.forward.recalibration import recalibrate
from merging.plugins.problem import Problem
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.tasks.cifar10 import SHIFTS
from merging.tasks.described import described_task
from merging.values.recipe import Recipe
from tests.conftest import Merge
from tests.heard import Heard
from tests.project.test_docs import blocks, page
from tests.sized import sized

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = ("bird", "cat", "dog")
LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 10, 3), dtype=np.uint8)
MODEL = """
import numpy as np
import torch
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))


def held_out():
    arrays = np.load(FILE)
    return arrays["held_out_images"], arrays["held_out_labels"]


def floats():
    return torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def wrong():
    return 3
"""


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_forms(folder: Path) -> None:
    """The same twelve images in every form, under the names that docs/data.md uses."""
    import datasets

    names, images = [CLASSES[label] for label in LABELS], [encoded(pixels) for pixels in PIXELS]
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        write(folder / f"photos/{name}/{number:02}.png", image)
    np.savez(folder / "photos.npz", held_out_images=PIXELS, held_out_labels=LABELS, classes=np.array(CLASSES))
    places = [f"photos/{name}/{number:02}.png" for number, name in enumerate(names)]
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *zip(places, names, strict=True)])
    lines = [json.dumps({"file": place, "kind": label}) for place, label in zip(places, LABELS, strict=True)]
    (folder / "photos.jsonl").write_text("\n".join(lines) + "\n")
    for shard in range(2):
        members = []
        for number in range(6 * shard, 6 * shard + 6):
            kind = ("cls", names[number].encode()) if shard else ("json", json.dumps({"label": names[number]}).encode())
            members += [(f"{number:04}.png", images[number]), (f"{number:04}.{kind[0]}", kind[1])]
        write_tar(folder / f"shards-{shard:03}.tar", members)
    features = datasets.Features(
        {"note": datasets.Value("string"), "picture": datasets.Image(), "kind": datasets.ClassLabel(names=CLASSES)}
    )
    columns = {"note": names, "picture": [{"bytes": image, "path": None} for image in images], "kind": LABELS}
    data = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": data.select(range(2)), "validation": data}).save_to_disk(folder / "photos-saved")
    (folder / "my_data.py").write_text(MODEL.replace("FILE", repr(str(folder / "photos.npz"))))


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    write_forms(folder)
    return folder


@pytest.fixture(autouse=True)
def own_module(forms: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(forms))
    yield
    sys.modules.pop("my_data", None)


FORMS: list[str | dict[str, Any]] = [
    "photos",
    "photos.npz:held_out",
    "photos.csv",
    {"path": "photos.jsonl", "image": "file", "label": "kind"},
    "shards-{000..001}.tar",
    "photos-saved:validation",
    {"path": "photos-saved/validation", "label": "kind"},
    "python:my_data:held_out",
]


def placed(spec: str | dict[str, Any], folder: Path) -> dict[str, Any]:
    table = {"path": spec} if isinstance(spec, str) else dict(spec)
    return table | ({} if table["path"].startswith("python:") else {"path": f"{folder}/{table['path']}"})


@pytest.mark.parametrize("spec", FORMS, ids=str)
@pytest.mark.parametrize("names", [None, CLASSES], ids=["its own classes", "the model's"])
def test_the_same_samples_in_every_form(forms: Path, spec: Any, names: tuple[str, ...] | None) -> None:
    expected = Split.of(torch.from_numpy(PIXELS), torch.tensor(LABELS))
    for _ in range(2):  # decoded, and from disk
        split = load_data(placed(spec, forms), classes=names, restrict=True)
        assert split.inputs.equal(expected.inputs)
        assert split.labels.tolist() == LABELS
        assert split.classes is None
        assert split.fingerprint == expected.fingerprint


@pytest.mark.parametrize("spec", FORMS, ids=str)
def test_resized_the_same_in_every_form(forms: Path, spec: Any) -> None:
    how = sized(4, 5)
    split = load_data(placed(spec, forms), how=how)
    assert np.array_equal(split.inputs.numpy(), np.stack([how.transform(Image.fromarray(image)) for image in PIXELS]))


@pytest.mark.parametrize("spec", FORMS, ids=str)
def test_without_labels(forms: Path, spec: Any) -> None:
    split = load_data(placed(spec, forms), labelled=False)
    assert split.inputs.equal(torch.from_numpy(PIXELS))
    assert split.labels.tolist() == [-1] * 12


def test_images_of_several_sizes_and_borders(tmp_path: Path) -> None:
    for number, shape in enumerate([(9, 12, 3), (14, 10, 3)]):
        write(tmp_path / f"set/a/{number}.png", encoded(np.full(shape, 50 + number, np.uint8)))
    with pytest.raises(TaskError, match="differ in size"):
        load_data(str(tmp_path / "set"))
    split = load_data(str(tmp_path / "set"), how=sized(6, 7))
    assert split.inputs.shape == (2, 6, 6, 3)
    framed = np.zeros((8, 8, 3), np.uint8)
    framed[2:-2, 2:-2] = 9
    write(tmp_path / "framed/a/0.png", encoded(framed))
    assert load_data({"path": str(tmp_path / "framed"), "border": 2}).inputs.unique().tolist() == [9]
    with pytest.raises(TaskError, match="border is 4; an image of 8 × 8"):
        load_data({"path": str(tmp_path / "framed"), "border": 4})


# classes


def test_rules_for_classes() -> None:
    def found(written: list[Any], names: Any = None, restrict: bool = True, **choice: Any) -> Any:
        made = labelling("set", written, names, ("bird", "cat", "dog"), Choice(**choice), restrict=restrict)
        return dict(made.labels), made.groups

    assert found(["cat", "dog"], ("cat", "dog")) == ({"cat": 0, "dog": 1}, ((1,), (2,)))
    assert found(["cat", "dog"], ("cat", "dog"), restrict=False) == ({"cat": 1, "dog": 2}, None)
    assert found(["cat", "dog"], ("cat", "dog"), classes="all") == ({"cat": 1, "dog": 2}, None)
    assert found(["dog"], CLASSES) == ({"dog": 2}, None)
    assert found(["dog"], CLASSES, classes="own") == ({"dog": 0}, ((2,),))
    assert found(["bird", "cat", "dog"], CLASSES, classes=["dog", "cat"]) == ({"cat": 0, "dog": 1}, ((1,), (2,)))
    assert found([0, 2]) == ({0: 0, 2: 2}, None)
    assert found([0, 2], classes="own") == ({0: 0, 2: 1}, ((0,), (2,)))
    assert found([0, 1], classes=["dog", "bird"]) == ({0: 1, 1: 0}, ((0,), (2,)))
    assert found([0, 1, 2], ("dog", "cat", "bird")) == ({0: 2, 1: 1, 2: 0}, None)
    pets = {"pets": ["dog", "cat"], "cars": []}
    assert found(["pets", "cars"], ("cars", "pets"), map=pets) == ({"pets": 0}, ((1, 2),))
    assert found(["pets"], ("cars", "pets"), map=pets, classes="all") == ({"pets": 0}, ((1, 2), (0,)))


@pytest.mark.parametrize(
    ("written", "names", "choice", "said"),
    [
        (["cta"], ("cta",), {}, r"unknown class 'cta'; did you mean 'cat'\? \(or say in its table what it is: map"),
        (["cat"], ("cat",), {"map": {"cat": "dgo"}}, "did you mean 'dog'"),
        (["cat"], ("cat",), {"map": {"cats": "cat"}}, "unknown class in map 'cats'; did you mean 'cat'"),
        ([3], None, {}, r"label 3 is out of range; there are 3 classes \(0 to 2\)"),
        ([-1], None, {}, "label -1 is out of range"),
        ([2], None, {"classes": ["cat", "dog"]}, "label 2 is out of range; there are 2 classes"),
        (["cat"], ("cat",), {"classes": ["dog"]}, "no samples of the classes asked for"),
        (["cat"], ("cat",), {"classes": "some"}, "write 'own', 'all' or a list"),
    ],
)
def test_wrong_classes(written: list[Any], names: Any, choice: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        labelling("set", written, names, CLASSES, Choice(**choice), restrict=True)


def test_a_model_that_reads_names_is_told_them(forms: Path) -> None:
    table = {"model": "open_clip:ViT-B-32", "held_out": str(forms / "photos"), "templates": ["a drawing of a {}."]}
    source = described_task(table).build.__self__  # type: ignore[attr-defined]
    assert (source.class_names, source.templates) == (CLASSES, ("a drawing of a {}.",))
    with pytest.raises(TaskError, match="python:my_data:model has no text tower"):
        described_task(table | {"model": "python:my_data:model"})


def test_names_need_a_model_with_names(forms: Path) -> None:
    table = {"model": "python:my_data:model", "held_out": "python:my_data:held_out", "test": str(forms / "photos")}
    with pytest.raises(TaskError, match=r"give \[task\] classes"):
        described_task(table)
    task = described_task(table | {"classes": list(CLASSES)})
    assert task.tests["test"].labels.tolist() == LABELS
    assert task.classes == CLASSES


@pytest.fixture
def shifted(forms: Path, tmp_path: Path) -> Path:
    """A second source: fewer classes, other names, one folder for two classes, one for none."""
    random = np.random.default_rng(1)
    for name in ("pigeon", "pets", "cars"):
        for number in range(5):
            write(tmp_path / f"web/{name}/{number}.png", encoded(random.integers(0, 256, (8, 10, 3), dtype=np.uint8)))
    for name in ("cat", "dog"):
        for number in range(6):
            write(tmp_path / f"pets/{name}/{number}.png", encoded(random.integers(0, 256, (8, 10, 3), dtype=np.uint8)))
    return tmp_path


def test_accuracies_by_hand(forms: Path, shifted: Path) -> None:
    """A set's own classes compete, the best output of a class counts: against a loop over the files."""
    table = {
        "model": "python:my_data:model",
        "held_out": str(forms / "photos"),
        "test": {"path": str(shifted / "web"), "map": {"pigeon": "bird", "pets": ["cat", "dog"], "cars": []}},
        "shifts": {
            "pets": str(shifted / "pets"),
            "unrestricted": {"path": str(shifted / "pets"), "classes": "all"},
        },
    }
    news = Heard()
    task = described_task(table, news)
    assert any("pets: scored on its 2 of the model's 3 classes" in line for line in news.said)
    torch.manual_seed(3)
    head = nn.Linear(12, 3)
    nn.init.normal_(head.weight)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)
    torch.save(module.state_dict(), shifted / "model.pt")
    scores = merging.evaluate(shifted / "model.pt", task)

    def share(folder: Path, right: dict[str, tuple[set[int], set[int]]]) -> float:
        hits = []
        for name, (outputs, rivals) in right.items():
            for file in sorted((folder / name).iterdir()):
                pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
                mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
                with torch.no_grad():
                    logits = module((pixels - mean[:, None, None]) / std[:, None, None])[0].tolist()
                hits.append(max(rivals, key=lambda k: logits[k]) in outputs)
        return sum(hits) / len(hits)

    every = {0, 1, 2}
    by_hand = {
        "held-out": share(forms / "photos", {"bird": ({0}, every), "cat": ({1}, every), "dog": ({2}, every)}),
        "test": share(shifted / "web", {"pigeon": ({0}, every), "pets": ({1, 2}, every)}),
        "pets": share(shifted / "pets", {"cat": ({1}, {1, 2}), "dog": ({2}, {1, 2})}),
        "unrestricted": share(shifted / "pets", {"cat": ({1}, every), "dog": ({2}, every)}),
    }
    assert {name: outcome.accuracy for name, outcome in scores.items()} == pytest.approx(by_hand)
    assert by_hand["pets"] != by_hand["unrestricted"], "otherwise this would not tell them apart"


# damaged images


def damage(folder: Path, form: str, tenth: bytes = b"no image") -> str | dict[str, Any]:
    """Twenty images, the fourth cut off in the middle, the tenth no image at all."""
    import datasets

    images = [encoded(np.full((8, 8, 3), 10 * k, np.uint8), "JPEG") for k in range(20)]
    images[3], images[9] = images[3][: len(images[3]) // 2], tenth
    for number, image in enumerate(images):
        write(folder / f"set/{'ab'[number % 2]}/{number:02}.jpg", image)
    if form == "folder":
        return str(folder / "set")
    if form == "csv":
        rows = [f"set/{'ab'[k % 2]}/{k:02}.jpg,{'ab'[k % 2]}" for k in range(20)]
        (folder / "set.csv").write_text("\n".join(["path,label", *rows]))
        return str(folder / "set.csv")
    if form == "tar":
        write_tar(
            folder / "set.tar",
            [m for k, x in enumerate(images) for m in ((f"{k:02}.jpg", x), (f"{k:02}.cls", b"ab"[k % 2 : k % 2 + 1]))],
        )
        return str(folder / "set.tar")
    if form == "saved":
        columns = {"image": [{"bytes": x, "path": None} for x in images], "label": [k % 2 for k in range(20)]}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder / "saved")
        return str(folder / "saved")
    offsets = np.cumsum([0, *map(len, images)])
    jpeg = np.frombuffer(b"".join(images), np.uint8)
    np.savez(folder / "set.npz", x_jpeg=jpeg, x_offsets=offsets, x_labels=[k % 2 for k in range(20)])
    return str(folder / "set.npz:x")


NAMES = {
    "folder": ("b/03.jpg", "b/09.jpg"),
    "csv": ("set/b/03.jpg", "set/b/09.jpg"),
    "tar": ("set.tar/03", "set.tar/09"),
    "saved": ("row 3", "row 9"),
    "npz": ("image 3", "image 9"),
}


@pytest.mark.parametrize("form", list(NAMES))
def test_damaged_images_are_left_out_at_every_run(tmp_path: Path, form: str) -> None:
    spec = damage(tmp_path, form)
    with pytest.raises(TaskError, match=r"2 of 20 images: more than corrupt = 0.01 allows"):
        load_data(spec)
    splits, lines = [], []
    for _ in range(2):
        news = Heard()
        splits.append(load_data({"path": spec, "corrupt": 0.1}, progress=news))
        lines.append(news.said)
    (line,) = lines[0]
    assert lines[1] == lines[0], "the cache keeps which ones"
    assert line.startswith("warning: ")
    assert all(name in line for name in NAMES[form])
    rest = [k for k in range(20) if k not in (3, 9)]
    order = sorted(rest, key=lambda k: k % 2) if form == "folder" else rest
    assert splits[0].labels.tolist() == [k % 2 for k in order]
    assert splits[0].inputs[:, 0, 0, 0].tolist() == [10 * k for k in order]
    assert splits[1].inputs.equal(splits[0].inputs)
    assert splits[1].fingerprint == splits[0].fingerprint == Split.of(splits[0].inputs, splits[0].labels).fingerprint
    with pytest.raises(TaskError, match=r"more than corrupt = 0.05 allows"):  # also from the cache
        load_data({"path": spec, "corrupt": 0.05})


def resized(width: int, height: int) -> bytes:
    """A PNG whose header says another size than it has."""
    image = encoded(np.zeros((8, 8, 3), np.uint8))
    header = b"IHDR" + struct.pack(">II", width, height) + image[24:29]
    return image[:12] + header + struct.pack(">I", zlib.crc32(header)) + image[33:]


@pytest.mark.parametrize("form", list(NAMES))
@pytest.mark.parametrize("tenth", [resized(60_000, 60_000), b""], ids=["bomb", "empty"])
def test_an_image_is_damaged_in_every_form_whatever_the_decoder_raises(tmp_path: Path, form: str, tenth: bytes) -> None:
    news = Heard()
    assert len(load_data({"path": damage(tmp_path, form, tenth), "corrupt": 0.1}, progress=news)) == 18
    assert all(name in news.said[-1] for name in NAMES[form]), news.said


def test_damaged_images_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGING_CACHE", "/proc/none")
    for form in ("folder", "npz"):
        assert len(load_data({"path": damage(tmp_path, form), "corrupt": 0.1})) == 18


def suite(folder: Path, name: str) -> str:
    """A suite's data, two of each twenty images damaged."""
    spec = damage(folder, "npz")
    with np.load(spec.rpartition(":")[0]) as arrays:  # type: ignore[union-attr]
        parts = {key[1:]: arrays[key] for key in arrays.files}
    if name == "pacs":
        domains = ("photo", "art_painting", "cartoon", "sketch")
        np.savez(folder / "pacs.npz", **{f"{d}{part}": array for d in domains for part, array in parts.items()})
        return str(folder / "pacs.npz")
    if name == "cifar10-shifts":
        for file, keys in (("cifar10", ("train", "test")), ("cifar10_shifts", SHIFTS)):
            np.savez(folder / f"{file}.npz", **{f"{key}{part}": a for key in keys for part, a in parts.items()})
        return str(folder)
    for place in ("train", "val"):
        (folder / "imagenet" / place).mkdir(parents=True)
        (folder / "set/a").rename(folder / "imagenet" / place / "n01440764")
        (folder / "set/b").rename(folder / "imagenet" / place / "n01443537")
        damage(folder, "folder")
    return str(folder)


@pytest.mark.parametrize("name", ["pacs", "cifar10-shifts", "imagenet-shifts"])
def test_suites_take_a_share_too(tmp_path: Path, name: str) -> None:
    table = {"name": name, "data": suite(tmp_path, name), "model": "timm:resnet18"}
    with pytest.raises(TaskError, match=r"2 of [24]0 images: more than corrupt = 0\.01 allows"):
        described_task(table)
    news = Heard()
    task = described_task(table | {"corrupt": 0.2}, news)
    assert len(task.tests[task.shifts[0] if task.shifts else "test"]) == 18
    assert len(news.said) >= len(task.tests), "each set says so"


def test_share_is_a_share(forms: Path) -> None:
    with pytest.raises(TaskError, match="corrupt is 1; it is the share"):
        load_data({"path": str(forms / "photos"), "corrupt": 1})


# unlabelled


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return logits


def test_statistics_are_measured_on_unlabelled_data(forms: Path, tmp_path: Path) -> None:
    for number in range(2):
        torch.manual_seed(number)
        torch.save(Normed().state_dict(), tmp_path / f"m{number}.pt")
    write(tmp_path / "heap/x.png", encoded(PIXELS[0]))
    write(tmp_path / "heap/deeper/y.png", encoded(PIXELS[5]))
    table = {
        "model": "python:my_data:model",
        "held_out": str(forms / "photos"),
        "unlabelled": str(tmp_path / "heap"),
    }
    read = described_task(table)
    assert read.unlabelled is not None
    task = Task(
        name="t", build=lambda pool: Normed(), held_out=read.held_out, prepare=read.prepare, unlabelled=read.unlabelled
    )
    pool = ModelPool.open([tmp_path / "*.pt"])
    result = merging.merge(pool, Uniform(), task=task, baselines=False)
    assert isinstance(result.merge, Recipe)
    module = Normed().eval()
    module.load_state_dict(
        {
            n: (pool.checkpoints[0].read(n).double() + pool.checkpoints[1].read(n).double()).div(2).to(t.dtype)
            for n, t in module.state_dict().items()
        }
    )
    inputs = torch.from_numpy(np.stack([PIXELS[5], PIXELS[0]]))
    recalibrate(module, [task.prepare(inputs)])
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.allclose(result.merge.overrides[name], module.state_dict()[name], atol=1e-5)
    assert any("measured again on 2 unlabelled samples" in note for note in result.report.notes)
    without = Task(name="t", build=lambda pool: Normed(), held_out=read.held_out, prepare=read.prepare)
    with pytest.raises(MergingError, match=r"give the task some \(train, or unlabelled"):
        merging.merge(pool, Uniform(), task=without, recalibrate=True)


@dataclass(frozen=True)
class NeedsUnlabelled(Uniform):
    """The uniform average; reads the unlabelled samples on the way."""

    name = "needs-unlabelled"
    needs = frozenset({"unlabelled", "objective", "model", "gradients"})
    seen: ClassVar[list[int]] = []

    def mix(self, problem: Problem) -> Recipe:
        assert problem.scores.splits == ("held-out", "unlabelled")
        for _, labels in problem.slopes.batches("unlabelled", problem.generator):
            self.seen.extend(labels.tolist())
        return super().mix(problem)


def test_strategies_may_ask_for_unlabelled_data(forms: Path, tmp_path: Path) -> None:
    for number in range(2):
        torch.manual_seed(number)
        torch.save(Normed().state_dict(), tmp_path / f"m{number}.pt")
    pool = ModelPool.open([tmp_path / "*.pt"])
    table = {"model": "python:my_data:model", "held_out": str(forms / "photos")}
    read = described_task(table | {"unlabelled": str(forms / "photos.csv")})
    task = Task(
        name="t", build=lambda pool: Normed(), held_out=read.held_out, prepare=read.prepare, unlabelled=read.unlabelled
    )
    NeedsUnlabelled.seen.clear()
    merging.merge(pool, NeedsUnlabelled(), task=task, baselines=False, recalibrate=False)
    assert NeedsUnlabelled.seen == [-1] * 12
    with pytest.raises(MergingError, match="needs unlabelled; give a task with unlabelled data"):
        merging.merge(pool, NeedsUnlabelled(), task=replace(task, unlabelled=None), baselines=False)
    for name in ("unlabelled", "average of shifts", "test (accuracy)"):  # what tables have columns of
        with pytest.raises(TaskError, match=f"cannot be called '{re.escape(name)}'"):
            replace(task, tests={name: read.held_out})


# other kinds of samples


def test_samples_that_are_no_images_go_in_as_they_are(forms: Path) -> None:
    task = described_task({"model": "python:my_data:model", "held_out": "python:my_data:floats"})
    assert task.prepare(task.held_out.inputs).equal(task.held_out.inputs)
    for wrong, said in (
        ({"mean": [0.5] * 3}, "mean is for images"),
        ({"test": str(forms / "photos"), "classes": list(CLASSES)}, "all sets of a task are of one kind"),
    ):
        with pytest.raises(TaskError, match=said):
            described_task({"model": "python:my_data:model", "held_out": "python:my_data:floats", **wrong})


# mistakes: one clear line each


def in_folder(name: str, content: bytes | str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        write(folder / name, content.encode() if isinstance(content, str) else content)
        return str(folder / name)

    return make


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: f"{f}/nowhere", "no such data: .*nowhere'; write a folder"),
    "empty folder": (lambda f: str(Path(in_folder("e/.hidden", "x")(f)).parent), "holds nothing, and no class folders"),
    "no class folders": (lambda f: str(Path(in_folder("s/x.png", encoded(PIXELS[0]))(f)).parent), "holds only images"),
    "no images": (lambda f: str(Path(in_folder("s/a/x.txt", "text")(f)).parent.parent), "no images in folders"),
    "unknown key": (
        lambda f: {"path": "x", "clases": []},
        "unknown key in a data set: 'clases'; did you mean 'classes'",
    ),
    "no path": (lambda f: {"classes": "own"}, "needs a path"),
    "meaningless key": (lambda f: {"path": in_folder("t.csv", "path,label\n")(f), "text": "a"}, "'text' means nothing"),
    "no rows": (in_folder("t.csv", "path,label\n"), "has no rows"),
    "empty table": (in_folder("t.csv", ""), "is empty; its first line names the columns"),
    "wrong column": (in_folder("t.csv", "paht,label\nx.png,a\n"), "unknown column .*: 'path'; did you mean 'paht'"),
    "short row": (in_folder("t.csv", "path,label\nx.png\n"), "line 2 has not the 2 columns"),
    "empty cell": (in_folder("t.csv", "path,label\nx.png,\n"), "row 1 has no 'label'"),
    "bad quotes": (in_folder("t.csv", 'path,label\n"x"y,a\n'), "no CSV after line 1"),
    "not text": (in_folder("t.csv", b"\xff\xfe\x00"), "is not UTF-8 text"),
    "no such image": (in_folder("t.csv", "path,label\nx.png,a\n"), r"row 1 names .*x\.png, and there is no such image"),
    "bad JSON": (in_folder("t.jsonl", '{"path": "x", "label": 0}\n{"path": \n'), "line 2 is no JSON"),
    "no object": (in_folder("t.jsonl", "[1, 2]\n"), "line 1 is no JSON object"),
    "odd label": (in_folder("t.jsonl", '{"path": "x", "label": 0.5}\n'), "row 1 has the label 0.5"),
    "missing tar": (lambda f: f"{f}/s-{{0..1}}.tar", r"no such tar file: .*s-0\.tar"),
    "no tar": (in_folder("s.tar", b"no tar file" * 100), r"s\.tar cannot be read as a tar file"),
    "no key": (in_folder("s.npz", b"x"), "write it as file.npz:KEY"),
    "not saved": (lambda f: str(Path(in_folder("d/state.json", "{}")(f)).parent), "not a data set on disk"),
    "no function": (lambda f: "python:my_data:hold_out", "did you mean 'held_out'"),
    "wrong function": (lambda f: "python:my_data:wrong", r"gives no data; return a Split or \(inputs, labels\)"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_one_line(tmp_path: Path, mistake: str) -> None:
    make, said = MISTAKES[mistake]
    with pytest.raises(TaskError, match=said) as raised:
        load_data(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_tar_samples_need_labels(tmp_path: Path) -> None:
    image = encoded(PIXELS[0])
    for members, said in (
        ([("a.png", image)], "sample 'a' has no label"),
        ([("a.png", image), ("a.json", b"{}")], "its .json has no 'label'"),
        ([("a.txt", b"x"), ("a.cls", b"1")], "holds no samples"),
        ([("a.png", image), ("a.png", image)], "duplicate"),
    ):
        write_tar(tmp_path / "s.tar", members)
        with pytest.raises(TaskError, match=said):
            load_data(str(tmp_path / "s.tar"))
    write_tar(tmp_path / "s.tar", [(f"{k}.png", image) for k in range(40)])
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(TaskError, match="its end is missing: was it cut off"):
        load_data(str(tmp_path / "s.tar"), labelled=False)
    packed = gzip.compress(whole)
    (tmp_path / "s.tar.gz").write_bytes(packed)
    assert len(load_data(str(tmp_path / "s.tar.gz"), labelled=False)) == 40
    (tmp_path / "s.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TaskError, match="cannot be read as a tar file"):
        load_data(str(tmp_path / "s.tar.gz"), labelled=False)


def test_saved_data_sets_ask_for_what_is_not_clear(forms: Path, tmp_path: Path) -> None:
    import datasets

    for spec, said in (
        (f"{forms}/photos-saved", r"several splits \(train, validation\)"),
        (f"{forms}/photos-saved:validaton", "did you mean 'validation'"),
        (f"{forms}/photos-saved/train:train", "without splits"),
        ({"path": f"{forms}/photos-saved:train", "label": "knd"}, "did you mean 'kind'"),
    ):
        with pytest.raises(TaskError, match=said):
            load_data(spec)
    datasets.Dataset.from_dict({"a": [1], "b": [2]}).save_to_disk(tmp_path / "plain")
    with pytest.raises(TaskError, match=r"which column holds the label.*none among a, b"):
        load_data(str(tmp_path / "plain"))
    with pytest.raises(TaskError, match=r"which column holds the image.*none among a, b"):
        load_data({"path": str(tmp_path / "plain"), "label": "a"})


@pytest.mark.parametrize("content", ["", "[]", '{"splits": 3}', "{}", "[" * 100_000 + "]" * 100_000])
def test_damaged_splits_are_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(TaskError, match=r"dataset_dict\.json is damaged"):
        load_data(f"{tmp_path}:train")


@pytest.mark.parametrize(("package", "spec"), [("webdataset", "shards-000.tar"), ("datasets", "photos-saved:train")])
def test_a_missing_package_is_named(forms: Path, package: str, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TaskError, match=rf"{package}.*pip install 'merging\[data\]'"):
        load_data(f"{forms}/{spec}")


@pytest.mark.parametrize("name", ["held-out", "train", "unlabelled", "test"])
def test_shifted_sets_have_names_of_their_own(forms: Path, name: str) -> None:
    photos = str(forms / "photos")
    with pytest.raises(TaskError, match=f"a shifted set is called '{name}'"):
        described_task({"model": "python:my_data:model", "held_out": photos, "test": photos, "shifts": {name: photos}})


def test_training_data_have_one_class_each(forms: Path) -> None:
    table = {"model": "python:my_data:model", "held_out": str(forms / "photos"), "classes": list(CLASSES)}
    mapped = {"path": str(forms / "photos"), "map": {"cat": ["cat", "dog"]}}
    with pytest.raises(TaskError, match="a sample to learn from has one class"):
        described_task(table | {"train": mapped})
    with pytest.raises(TaskError, match=r"say \[task\] classes"):
        described_task({**table, "classes": None, "train": mapped})
    with pytest.raises(TaskError, match="names 'a' twice"):
        described_task(table | {"classes": ["a", "b", "a"]})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("held_out = 3", "task.held_out: Input should be a valid string"),
        ('held_out = { path = "x", border = "1" }', "task.held_out.border: Input should be a valid integer"),
        ("shifts = { a = { classes = [] } }", "task.shifts.a.path: Field required"),
        ('unlabeled = "x"', r"did you mean 'unlabelled'"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "t.toml").write_text(f"[task]\n{line}\n")
    with pytest.raises(MergingError, match=said):
        read_toml(tmp_path / "t.toml")


@pytest.mark.parametrize("part", ["held_out", "test", "train", "unlabelled", "shifts.far"])
def test_an_unknown_key_of_a_set_is_said_before_anything_is_read(part: str, tmp_path: Path) -> None:
    """It may be one of a plug-in's form of data, so that it is looked at when these are there."""
    wrong = 'held_out = { path = "x", clases = [] }'.replace("held_out", part)
    rest = "" if part == "held_out" else 'held_out = "x"\n'
    (tmp_path / "t.toml").write_text(f'[task]\nmodel = "none:such"\n{rest}{wrong}\n')
    table = read_toml(tmp_path / "t.toml").task.model_dump(exclude_defaults=True, exclude_none=True)
    with pytest.raises(TaskError, match=rf"unknown key in \[task.{part}\]: 'clases'; did you mean 'classes'"):
        described_task(table)


def test_code_in_a_table_needs_trust(forms: Path, merge: Merge) -> None:
    for line in ('shifts = { a = "python:my_data:held_out" }', 'test = { path = "python:my_data:held_out" }'):
        Path("t.toml").write_text(f"[task]\nmodel = 'timm:resnet18'\nheld_out = '{forms}/photos'\n{line}\n")
        ran = merge("run", "--task", "t.toml")
        assert ran.code == 2
        assert "wants to run code (python:my_data:held_out)" in ran.err


def test_a_wrong_class_ends_a_run_with_one_line(forms: Path, merge: Merge) -> None:
    write(Path("web/brid/0.png"), encoded(PIXELS[0]))
    Path("t.toml").write_text(
        f"[task]\nmodel = 'timm:resnet18'\nheld_out = '{forms}/photos'\ntest = 'web'\n[pool]\nmodels = ['pool']\n"
    )
    ran = merge("run", "--task", "t.toml", "--output", "out")
    assert ran.code == 2
    assert "unknown class 'brid'; did you mean 'bird'?" in ran.err
    assert not Path("out").exists()


# docs/data.md


@pytest.fixture
def documented(tmp_path: Path, shifted: Path) -> Path:
    """Everything the page speaks of, in one folder."""
    write_forms(tmp_path)
    write(tmp_path / "heap/one.png", encoded(PIXELS[0]))
    for number in range(5):
        framed = np.full((10, 12, 3), number, np.uint8)
        write(tmp_path / f"scans/cat/{number}.png", b"damaged" if number == 4 else encoded(framed))
    return tmp_path


FORM = re.compile(r"<!-- form -->\n```toml\n(.*?)```", re.DOTALL)


def test_every_form_on_the_page(documented: Path, merge: Merge) -> None:
    found = FORM.findall(page("data.md"))
    assert len(found) >= 10
    for number, text in enumerate(found):
        classes = "" if re.search("^classes|scans", text, re.MULTILINE) else f"classes = {list(CLASSES)}\n"
        path = documented / f"form{number}.toml"
        path.write_text(f"[task]\nmodel = 'python:my_data:model'\n{classes}{text}")
        request = combine({}, read_toml(path), documented)
        task = described_task(request["task"])
        assert restore(request, documented)["task"] == request["task"], "as a resumed run reads it back"
        assert len(task.held_out) == (4 if "scans" in text else 12), text
    assert task.unlabelled is not None


def test_the_task_file_on_the_page(documented: Path, merge: Merge) -> None:
    """From another folder than its own, too: a task file alone is enough."""
    (documented / "pets.toml").write_text(blocks("data.md", "file")["pets.toml"])
    (documented / "pool").mkdir()
    for number in range(2):
        torch.manual_seed(number)
        module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        torch.save(module.state_dict(), documented / f"pool/m{number}.pt")
    (command,) = blocks("data.md", "run").values()
    ran = merge(*command.split()[1:])
    assert ran.code == 0, ran.err
    report = json.loads((documented / "merged/report.json").read_text())
    assert set(report["tests"]) == {"test", "sketch"}
    away = documented / "elsewhere"
    away.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(away)
        again = merge(*command.replace("pets.toml", "../pets.toml").split()[1:])
    assert again.code == 0, again.err
    first, second = (load_file(place / "merged/model.safetensors") for place in (documented, away))
    assert all(first[name].equal(second[name]) for name in first)


def test_the_text_form_on_the_page(tmp_path: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "good", "bad", "very"]
    own = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "bert"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        model_max_length=8,
    ).save_pretrained(folder)
    transformers.BertConfig(
        vocab_size=5,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=0,
        architectures=["BertForSequenceClassification"],
        id2label={0: "down", 1: "up"},
        max_position_embeddings=8,
    ).save_pretrained(folder)
    rows = [("very good", "up"), ("bad", "down"), ("good", "up")]
    (tmp_path / "reviews.jsonl").write_text("\n".join(json.dumps({"review": r, "verdict": v}) for r, v in rows))
    (text,) = re.findall(r"<!-- text-form -->\n```toml\n(.*?)```", page("data.md"), re.DOTALL)
    (tmp_path / "t.toml").write_text(f"[task]\nmodel = 'transformers:bert'\n{text}")
    task = described_task(combine({}, read_toml(tmp_path / "t.toml"), tmp_path)["task"])
    assert task.held_out.inputs.tolist() == [[4, 2], [3, 0], [2, 0]]
    assert task.held_out.labels.tolist() == [1, 0, 1]
    assert task.classes == ("down", "up")
    more = {"path": f"{tmp_path}/reviews.jsonl", "text": "review"}
    task = described_task({**combine({}, read_toml(tmp_path / "t.toml"), tmp_path)["task"], "unlabelled": more})
    assert task.unlabelled is not None
    assert torch.equal(task.unlabelled.inputs, task.held_out.inputs)
    with pytest.raises(TaskError, match=r"a text model takes \.jsonl"):
        described_task({"model": f"transformers:{folder}", "held_out": str(tmp_path)})
