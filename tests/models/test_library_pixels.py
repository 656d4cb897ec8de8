"""What goes into a model is what its library makes of the same files: published settings, and settings that are drawn.

What is right is made by the libraries alone, see :mod:`benchmarks.pixels`, which compares every setting of each;
nothing here knows how a task prepares images.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.models import register_model
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

import merging
from benchmarks.library_transforms import (
    LIBRARIES,
    PROCESSORS,
    Subject,
    open_clip_models,
    open_clip_others,
    open_clip_setting,
    open_clip_transform,
    timm_models,
    timm_setting,
    timm_transform,
    timm_weights,
    torchvision_models,
    torchvision_others,
    transformers_folder,
    transformers_transform,
)
from benchmarks.pixels import EQUAL, Compared, compare, of_library, of_task, photographs, quiet
from merging.errors import TaskError

pytestmark = pytest.mark.slow

NUMBER = itertools.count()
FIGURES = Path(__file__).parents[2] / "docs" / "pixels.json"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
    with quiet():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"), (64, 64))


def assert_same(subject: Subject, folder: Path) -> Compared:
    """Also where both refuse it, we in one line."""
    found = compare(subject, folder)
    expected = found.refused and not found.alone and "\n" not in found.refused
    assert found.same or expected, f"{subject.names[:3]}: {found}"
    return found


def traits(setting: Mapping[str, Any]) -> set[tuple[str, Any]]:
    """What makes one of timm's transforms unlike another, apart from numbers."""
    height, width = setting["input_size"][1:]
    part = setting["crop_pct"]
    return {
        ("mode", setting["crop_mode"]),
        ("interpolation", setting["interpolation"]),
        ("square", height == width),
        ("odd", height % 2 + width % 2 > 0),
        ("large", height > 800),
        ("dark", max(setting["mean"]) == 0),
        ("part", next((bound for bound in (0.87, 0.88, 0.99, 1.0) if part <= bound), 2.0)),
    }


# published


@pytest.mark.slow
@pytest.mark.parametrize("models", [timm_models, timm_weights])
def test_timm(models: Callable[[], Iterator[Subject]], tmp_path: Path) -> None:
    """One with each trait, and some of the others; the benchmark takes all of them."""
    every = list(models())
    drawn = random.Random(models.__name__).sample(every, len(every))  # noqa: S311 (the same ones every time)
    met: set[tuple[str, Any]] = set()
    chosen = drawn[:1]
    for subject in sorted(drawn, key=lambda s: timm_setting(s.names[0])["input_size"]):
        new = traits(timm_setting(subject.names[0]))
        if not new <= met:
            met |= new
            chosen.append(subject)
    assert len(met) > len({trait for trait, _ in met}), "several values of some trait"
    for subject in {*chosen}:
        assert_same(subject, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("models", [torchvision_models, torchvision_others, open_clip_models, open_clip_others])
def test_other_libraries_of_models(models: Callable[[], Iterator[Subject]], tmp_path: Path) -> None:
    """Some of them, and those that are one of their kind: ``vit_h_14`` does not take its default weights' images."""
    every = [subject for subject in models() if subject.classifier]
    drawn = random.Random(models.__name__).sample(every, 3)  # noqa: S311 (the same ones every time)
    for subject in {*drawn, *(s for s in every if {"vit_h_14", "ViT-B-16-SigLIP", "PE-Core-B-16"} & {*s.names})}:
        assert compare(subject, tmp_path).same, subject.model


def test_the_figures_are_those_of_every_model() -> None:
    """What the documentation quotes: nothing differs, and what is refused although its library takes it is BEiT."""
    figures = json.loads(FIGURES.read_text("utf-8"))
    rows = {row["library"]: row for row in figures["libraries"]}
    assert tuple(rows) == LIBRARIES
    assert rows["timm"]["models"] > 1000
    assert all(row["differ"] == row["wrong"] == 0 and row["largest"] < 1e-4 for row in rows.values())
    assert all(row["equal"] + row["refused"] == row["settings"] for row in rows.values())
    assert all("beit" in each["model"] for each in figures["not equal"] if each.get("alone"))


REFUSED = pytest.mark.xfail(reason="BEiT's layers have parameters of their own beside modules", strict=True)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=REFUSED) if "beit" in name else name
        for name in json.loads(PROCESSORS.read_text("utf-8"))
    ],
)
def test_processors_of_the_hub(name: str, tmp_path: Path) -> None:
    """Their geometry is kept and their normalisation left to the device, except timm's own transform inside another."""
    files = json.loads(PROCESSORS.read_text("utf-8"))[name]
    folder = transformers_folder(tmp_path / "model", files["model"], files["processor"])
    subject = Subject("transformers", (name,), f"transformers:{folder}", lambda: transformers_transform(folder))
    found = assert_same(subject, tmp_path)
    if found.same:
        assert merging.model_source(subject.model).transform().divided == (not name.startswith("timm/"))


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "microsoft/swin-tiny-patch4-window7-224"])
def test_a_folder_without_processor_has_the_one_of_its_type(name: str, photos: Path, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "model", json.loads(PROCESSORS.read_text("utf-8"))[name]["model"], None)
    processor = transformers.ViTImageProcessor()
    right = of_library(lambda image: processor(image, return_tensors="pt")["pixel_values"][0], photos)
    assert_close(of_task(f"transformers:{folder}", photos), right)


# drawn


class Tiny(nn.Module):
    """A network of any size, as small as can be."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fc(images.mean((2, 3)))
        return found


def registered(cfg: Mapping[str, Any], name: str = "tiny_of_a_user") -> str:
    """A model with its published settings, as a user's package adds it to timm."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        del pretrained
        return Tiny(kwargs.get("num_classes", 2))

    place = types.ModuleType("package_of_a_user")
    place.default_cfgs = {name: {"url": "", "num_classes": 2, "classifier": "fc", **cfg}}  # type: ignore[attr-defined]
    sys.modules[place.__name__] = place
    build.__name__, build.__module__ = name, place.__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it replaces the one before
        register_model(build)
    return f"timm:{name}"


CHANNELS = st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=3, max_size=3)
DEVIATIONS = st.lists(st.floats(0.05, 1).map(lambda x: round(x, 3)), min_size=3, max_size=3)
CFGS = st.fixed_dictionaries(
    {
        "input_size": st.tuples(st.just(3), st.integers(17, 131), st.integers(17, 131))
        | st.integers(17, 131).map(lambda side: (3, side, side)),
        "crop_pct": st.floats(0.3, 1.3),
        "crop_mode": st.sampled_from(["center", "squash", "border"]),
        "interpolation": st.sampled_from(["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]),
        "mean": CHANNELS.filter(any),
        "std": DEVIATIONS,
    }
)


@settings(max_examples=15)
@given(cfg=CFGS)
def test_any_settings_of_timm(cfg: dict[str, Any], photos: Path) -> None:
    model = registered(cfg)
    own = timm.get_pretrained_cfg("tiny_of_a_user")
    assert own is not None
    assert own.crop_pct == cfg["crop_pct"]
    right = of_library(timm_transform(timm_setting("tiny_of_a_user")), photos)
    assert_close(of_task(model, photos), right)
    assert merging.model_source(model).transform().divided


SIDE = st.integers(16, 90)
SIZES = SIDE | st.fixed_dictionaries({"shortest_edge": SIDE}) | st.fixed_dictionaries({"height": SIDE, "width": SIDE})
SETTINGS = st.fixed_dictionaries(
    {
        "image_processor_type": st.sampled_from(
            [
                f"{name}ImageProcessor"
                for name in (
                    "ViT",
                    "DeiT",
                    "Beit",
                    "ConvNext",
                    "Bit",
                    "MobileViT",
                    "MobileNetV2",
                    "Levit",
                    "EfficientNet",
                    "PoolFormer",
                    "Siglip",
                    "CLIP",
                    "Pvt",
                )
            ]
        )
    },
    optional={
        "size": SIZES,
        "crop_size": SIDE | st.fixed_dictionaries({"height": SIDE, "width": SIDE}),
        "crop_pct": st.floats(0.4, 1.0),
        "resample": st.integers(0, 5),
        "do_resize": st.just(True) | st.booleans(),
        "do_center_crop": st.booleans(),
        "do_rescale": st.booleans(),
        "do_normalize": st.booleans(),
        "do_flip_channel_order": st.booleans(),
        "do_convert_rgb": st.booleans() | st.none(),
        "include_top": st.booleans(),
        "rescale_offset": st.booleans(),
        "image_mean": CHANNELS | st.just(0.5),
        "image_std": DEVIATIONS | st.just(0.25),
        "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5, 1 / 256, 1.0]),
    },
)
NETWORK = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1},
}
"""Takes images of any size."""


@settings(max_examples=40)
@given(said=SETTINGS)
def test_any_processor(said: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    """Also one that transformers refuses, or whose pictures differ in size: then in one line."""
    folder = transformers_folder(tmp_path / f"model{next(NUMBER)}", NETWORK, said)
    try:
        right = of_library(transformers_transform(folder), photos)
    except Exception:  # each has its own way
        right = []
    if len({x.shape for x in right}) == 1:
        assert_close(of_task(f"transformers:{folder}", photos), right)
    else:
        with pytest.raises(TaskError) as caught:
            of_task(f"transformers:{folder}", photos)
        assert "\n" not in str(caught.value)


def assert_close(found: Tensor, right: list[Tensor]) -> None:
    assert [x.shape for x in found] == [x.shape for x in right]
    for one, other in zip(found, right, strict=True):
        assert float(((one - other).abs() / other.abs().clamp(min=1)).max()) <= EQUAL


# tables


MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def preset(size: int, resize: int, mean: Any, std: Any) -> Any:
    return ImageClassification(crop_size=size, resize_size=resize, mean=tuple(mean), std=tuple(std))


def clip(tag: str | None, **more: Any) -> Any:
    return open_clip_transform({**open_clip_setting("ViT-B-32", tag), **more})


@pytest.mark.parametrize(
    ("model", "right", "more"),
    [
        (
            "timm:resnet18",
            lambda: timm_transform({**timm_setting("resnet18"), "input_size": (3, 96, 96), "mean": MEAN, "std": STD}),
            {"size": 96, "mean": MEAN, "std": STD},
        ),
        (
            {"timm": "vit_tiny_patch16_224", "img_size": 64},
            lambda: timm_transform({**timm_setting("vit_tiny_patch16_224"), "input_size": (3, 64, 64)}),
            {},
        ),
        (
            "timm:dm_nfnet_f0",
            lambda: timm_transform({**timm_setting("dm_nfnet_f0"), "input_size": (3, 100, 100)}),
            {"size": 100},
        ),
        ("torchvision:resnet18", lambda: preset(112, 128, MEAN, STD), {"size": 112, "mean": MEAN, "std": STD}),
        (
            {"torchvision": "resnet50", "weights": "IMAGENET1K_V1"},
            lambda: preset(224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            {},
        ),
        ("open_clip:ViT-B-32", lambda: clip(None, mean=MEAN, std=STD), {"mean": MEAN, "std": STD}),
        ({"open_clip": "ViT-B-32", "force_image_size": 96}, lambda: clip(None, size=96), {}),
        ({"open_clip": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, lambda: clip("laion2b_s34b_b79k"), {}),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_what_the_table_says_is_handed_to_the_library(model: Any, right: Any, more: Any, photos: Path) -> None:
    assert_close(of_task(model, photos, **more), of_library(right(), photos))


def test_a_size_is_handed_to_the_processor(photos: Path, tmp_path: Path) -> None:
    said = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 128},
        "do_center_crop": True,
        "crop_size": {"height": 112, "width": 112},
        "resample": 3,
    }
    one = transformers_folder(tmp_path / "one", NETWORK, said)
    half = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
    more = {"image_mean": MEAN, "image_std": STD}
    other = transformers_folder(tmp_path / "other", NETWORK, {**said, **half, **more})
    right = of_library(transformers_transform(other), photos)
    assert_close(of_task(f"transformers:{one}", photos, size=56, mean=MEAN, std=STD), right)


def test_pictures_stay_in_their_stored_size_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.effect_noise((40, 24), 80).convert("RGB").save(tmp_path / "set" / name)
    own = timm_setting("resnet18")
    mean, std = (torch.tensor(own[key])[:, None, None] for key in ("mean", "std"))
    from torchvision.transforms.functional import to_tensor

    right = of_library(lambda image: (to_tensor(image) - mean) / std, tmp_path / "set")
    assert_close(of_task("timm:resnet18", tmp_path / "set", size="stored"), right)
    resized = of_library(timm_transform(own), tmp_path / "set")
    assert_close(of_task("timm:resnet18", tmp_path / "set"), resized)
