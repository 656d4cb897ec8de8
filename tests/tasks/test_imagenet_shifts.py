"""The suite of the model-soups papers, on small generated trees of exactly its folder layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

import merging
from merging.data.folders import listed, load_images
from merging.errors import TaskError
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.tasks.imagenet import SETS, imagenet_shifts, objectnet_folders
from tests.conftest import Merge
from tests.sized import sized

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = {"n01440764": 0, "n01443537": 1, "n01484850": 2, "n01498041": 6, "n01531178": 11}
"""WordNet id → ImageNet class; 6 and 11 are in ImageNet-A, 1, 2, 6 and 11 in ImageNet-R."""


def picture(path: Path, seed: int, size: tuple[int, int] = (60, 48)) -> None:
    """A smooth random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, seed = tmp_path_factory.mktemp("data"), iter(range(10_000))
    for wordnet in CLASSES:
        for number in range(28):
            picture(root / f"imagenet/train/{wordnet}/{wordnet}_{number}.JPEG", next(seed), (40, 30))
        for number in range(3):
            picture(root / f"imagenet/val/{wordnet}/ILSVRC2012_val_{number}.JPEG", next(seed))
            picture(root / f"sketch/{wordnet}/sketch_{number}.JPEG", next(seed))
            picture(root / f"imagenet-r/{wordnet}/art_{number}.jpg", next(seed))
            picture(root / f"imagenet-a/{wordnet}/{number}.jpg", next(seed))
            picture(root / f"imagenetv2-matched-frequency-format-val/{CLASSES[wordnet]}/{number}.jpeg", next(seed))
    for folder in ("bicycle", "alarm_clock", "a_folder_that_is_no_class"):
        for number in range(3):
            picture(root / f"objectnet-1.0/images/{folder}/{number}.png", next(seed))
    return root


class Means(nn.Module):
    """A thousand outputs from a picture's mean colours: cheap, and different for different pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return logits


@pytest.fixture
def task(data: Path) -> Task:
    made = imagenet_shifts(data)
    return Task(
        name=made.name,
        build=lambda pool: Means(),
        held_out=made.held_out,
        tests=made.tests,
        shifts=made.shifts,
        prepare=made.prepare,
    )


def test_sets_classes_and_labels(data: Path) -> None:
    task = imagenet_shifts(data)
    assert task.shifts == tuple(SETS)
    assert len(task.held_out) == 26 * len(CLASSES)
    assert sorted(set(task.held_out.labels.tolist())) == sorted(CLASSES.values())
    assert np.bincount(task.held_out.labels.numpy())[list(CLASSES.values())].tolist() == [26] * len(CLASSES)
    assert {name: len(split) for name, split in task.tests.items()} == {
        "test": 15,
        "imagenet-v2": 15,
        "imagenet-r": 12,
        "imagenet-sketch": 15,
        "objectnet": 6,
        "imagenet-a": 6,
    }
    assert task.tests["imagenet-v2"].labels.tolist() == [0] * 3 + [1] * 3 + [11] * 3 + [2] * 3 + [6] * 3
    for name, size in (("imagenet-r", 200), ("imagenet-a", 200), ("objectnet", 113)):
        assert task.tests[name].classes is not None
        assert len(task.tests[name].classes) == size
    r = task.tests["imagenet-r"]
    assert [r.classes[label] for label in r.labels[::3].tolist()] == [(1,), (2,), (6,), (11,)]  # type: ignore[index]
    o = task.tests["objectnet"]
    assert [o.classes[label] for label in o.labels[::3].tolist()] == [(409, 530), (671, 444)]  # type: ignore[index]


def test_pixels_are_those_of_the_published_preprocessing(data: Path) -> None:
    """Pillow's bicubic resize of the shorter side to 224 and the centre, after two pixels of ObjectNet's border."""
    split = imagenet_shifts(data).tests["objectnet"]
    image = Image.open(data / "objectnet-1.0/images/alarm_clock/0.png").convert("RGB")
    cut = image.crop((2, 2, image.width - 2, image.height - 2))
    resized = transforms.resize(cut, [224], transforms.InterpolationMode.BICUBIC)
    assert np.array_equal(split.inputs[0].numpy(), np.asarray(transforms.center_crop(resized, [224, 224])))
    assert tuple(split.inputs.shape[1:]) == (224, 224, 3)


def test_accuracies_by_hand(data: Path, task: Task, tmp_path: Path) -> None:
    """Logits restricted to a set's classes, the best of a class's outputs counts."""
    for number in range(2):
        torch.manual_seed(number)
        torch.save(Means().state_dict(), tmp_path / f"m{number}.pt")
    result = merging.merge(ModelPool.open([tmp_path / "*.pt"]), Uniform(), task=task, baselines=False)
    module = Means()
    module.load_state_dict(result.state_dict())
    row = result.report.rows[-1]
    for name, split in task.tests.items():
        right = 0
        for pixels, label in zip(split.inputs, split.labels.tolist(), strict=True):
            with torch.no_grad():
                logits = module(task.prepare(pixels[None]))[0]
            groups = split.classes or [(k,) for k in range(1000)]
            scores = [max(float(logits[k]) for k in group) for group in groups]
            right += max(range(len(groups)), key=scores.__getitem__) == label
        assert row.tests[name] == pytest.approx(right / len(split)), name
    assert row.shifted == pytest.approx(np.mean([row.tests[name] for name in SETS]))


def test_the_published_index_file(data: Path, tmp_path: Path) -> None:
    images = listed(data / "imagenet/train")
    marks = np.zeros(len(images))
    marks[[3, 50, 139]] = 1
    np.save(tmp_path / "index.npy", marks)
    task = imagenet_shifts(data, held_out=str(tmp_path / "index.npy"))
    assert task.held_out.labels.tolist() == [CLASSES[images[k][0].parent.name] for k in (3, 50, 139)]
    np.save(tmp_path / "index.npy", marks[:-1])
    with pytest.raises(TaskError, match="139 training images, but there are 140"):
        imagenet_shifts(data, held_out=str(tmp_path / "index.npy"))
    (tmp_path / "index.npy").write_text("no array")
    with pytest.raises(TaskError, match="no array of marks"):
        imagenet_shifts(data, held_out=str(tmp_path / "index.npy"))


def test_the_draw_is_the_same_every_time(data: Path) -> None:
    assert imagenet_shifts(data).held_out.fingerprint == imagenet_shifts(data).held_out.fingerprint


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"needs data"):
        imagenet_shifts()
    with pytest.raises(TaskError, match=r"no such folder of images: .*imagenet/train"):
        imagenet_shifts(tmp_path)
    picture(tmp_path / "imagenet/train/cats/1.jpg", 0)
    with pytest.raises(TaskError, match="no images in folders of known classes, such as n01440764"):
        imagenet_shifts(tmp_path)
    (tmp_path / "bad/x").mkdir(parents=True)
    (tmp_path / "bad/x/1.jpg").write_bytes(b"no jpeg")
    with pytest.raises(TaskError, match=r"1\.jpg is damaged"):
        load_images(listed(tmp_path / "bad"), sized(8, 8).transform)
    assert not list((tmp_path / "cache/images").glob("*")), "nothing half-made is kept"


def test_folders_are_decoded_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = listed(data / "imagenet/val")
    first = load_images(images, sized(16, 20).transform)
    monkeypatch.setattr("merging.data.pictures.decode", lambda *given: pytest.fail("decoded again"))
    second = load_images(images, sized(16, 20).transform)
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.inputs, second.inputs)


def test_a_cache_that_cannot_be_written_is_no_obstacle(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGING_CACHE", "/proc/none")
    assert len(load_images(listed(data / "imagenet/val"), sized(16, 20).transform)) == 15


def test_classes_are_checked() -> None:
    inputs, labels = torch.zeros(3, 1), torch.tensor([0, 1, 2])
    split = Split.of(inputs, labels, [[5], [1, 2], [0]])
    logits = torch.tensor([[1.0, 2.0, 7.0, 0.0, 0.0, 3.0]])
    assert split.project(logits).tolist() == [[3.0, 7.0, 1.0]]
    assert split.fingerprint != Split.of(inputs, labels).fingerprint
    for classes, said in (([[0], [1]], "label 2 of a set is none of its 2"), ([[0], [], [1]], "at least one output")):
        with pytest.raises(TaskError, match=said):
            Split.of(inputs, labels, classes)
    with pytest.raises(TaskError, match="name output 5 of 4"):
        split.project(logits[:, :4])


def test_every_published_folder_is_there() -> None:
    folders = objectnet_folders()
    assert len(folders) == 113
    assert all(0 <= k < 1000 for classes in folders.values() for k in classes)


def test_the_command_line_takes_it_from_merge_toml(merge: Merge, data: Path) -> None:
    toml = f"[task]\nname = 'imagenet-shifts'\ndata = '{data}'\nmodel = 'timm:test_resnet'\n"
    toml += "[pool]\nmodels = ['pool/*.pt']\n"
    Path("merge.toml").write_text(toml)
    Path("pool").mkdir()
    from merging.models.catalogue import model_source

    for number in range(2):
        torch.manual_seed(number)
        state = model_source("timm:test_resnet").module(1000).state_dict()
        torch.save(
            {n: t + 0.01 * torch.randn(t.shape) if t.is_floating_point() else t for n, t in state.items()},
            f"pool/m{number}.pt",
        )
    ran = merge("run", "--strategy", "uniform", "--no-baselines", "--output", "out")
    assert ran.code == 0, ran.err
    assert "imagenet-sketch" in ran.out
    Path("merge.toml").write_text(toml.replace("data =", "dat ="))
    ran = merge("run", "--strategy", "uniform", "--output", "no")
    assert ran.code == 2
    assert "did you mean 'data'" in ran.err
    Path("merge.toml").write_text(toml.replace("model =", "size = 3\nmodel ="))
    ran = merge("run", "--strategy", "uniform", "--output", "no")
    assert ran.code == 2
    assert "'size' means nothing to the task 'imagenet-shifts'" in ran.err
