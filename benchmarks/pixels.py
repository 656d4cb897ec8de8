"""Pictures from files, as they reach a model, against each library's own transform called apart.

For each library: every distinct setting among all its models (timm: all with a published configuration; torchvision and
open_clip: all weights of all classifiers; transformers: processors with settings like those on the Hub, typed in here),
on one model that has it. Photographs are
written to disk, go through the kept pictures and the device's normalisation, and are compared with what the library's
transform, called straight, makes of the same files. ``python -m benchmarks.pixels`` writes ``docs/pixels.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from merging.data.folders import load_images
from merging.data.images import normalise
from merging.models.catalogue import model_source

FIGURES = Path(__file__).parents[1] / "docs" / "pixels.json"
SIZES = ((227, 160), (111, 173), (48, 31))
"""Widths and heights of the photographs: landscape, portrait, small."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
TOP = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163]}
USUAL = {"do_resize": True, "do_normalize": True}
SCALED = USUAL | {"do_rescale": True, "rescale_factor": 1 / 255}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "google/vit-base-patch16-224": (
        "ViT",
        SCALED
        | HALF
        | {"size": {"height": 224, "width": 224}, "resample": 2, "image_processor_type": "ViTImageProcessor"},
    ),
    "google/vit-base-patch16-224-in21k": (
        "ViT",
        USUAL | HALF | {"size": 224, "resample": 2, "feature_extractor_type": "ViTFeatureExtractor"},
    ),
    "microsoft/resnet-50": (
        "ResNet",
        USUAL
        | IMAGENET
        | {"crop_pct": 0.875, "size": 224, "resample": 3, "feature_extractor_type": "ConvNextFeatureExtractor"},
    ),
    "facebook/convnext-tiny-224": (
        "ConvNext",
        USUAL
        | IMAGENET
        | {"crop_pct": 0.875, "size": 224, "resample": 3, "feature_extractor_type": "ConvNextFeatureExtractor"},
    ),
    "facebook/convnext-base-384": (
        "ConvNext",
        SCALED
        | IMAGENET
        | {"size": {"shortest_edge": 384}, "resample": 3, "image_processor_type": "ConvNextImageProcessor"},
    ),
    "apple/mobilevit-small": (
        "MobileViT",
        {
            "crop_size": {"height": 256, "width": 256}, "do_center_crop": True, "do_flip_channel_order": True,
            "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2,
            "size": {"shortest_edge": 288}, "image_processor_type": "MobileViTImageProcessor",
        },
    ),
    "apple/mobilevit-small, of 2022": (
        "MobileViT",
        {
            "crop_size": 256, "do_center_crop": True, "do_flip_channels": True, "do_resize": True, "resample": 2,
            "size": 288, "feature_extractor_type": "MobileViTFeatureExtractor",
        },
    ),
    "facebook/levit-128S": (
        "Levit",
        USUAL
        | IMAGENET
        | {"do_center_crop": True, "size": 224, "resample": 3, "feature_extractor_type": "LevitFeatureExtractor"},
    ),
    "google/efficientnet-b0": (
        "EfficientNet",
        SCALED
        | TOP
        | {
            "crop_size": {"height": 289, "width": 289}, "do_center_crop": False, "include_top": True, "resample": 0,
            "rescale_offset": False, "size": {"height": 224, "width": 224},
            "image_processor_type": "EfficientNetImageProcessor",
        },
    ),
    "google/efficientnet-b0, scaled to −1…1": (
        "EfficientNet",
        USUAL
        | TOP
        | {
            "do_rescale": True, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_center_crop": False,
            "include_top": True, "resample": 0, "size": {"height": 224, "width": 224},
            "image_processor_type": "EfficientNetImageProcessor",
        },
    ),
    "sail/poolformer_s12": (
        "PoolFormer",
        IMAGENET
        | {
            "crop_pct": 0.9, "do_normalize": True, "do_resize_and_center_crop": True, "size": 224, "resample": 3,
            "feature_extractor_type": "PoolFormerFeatureExtractor",
        },
    ),
    "google/siglip-base-patch16-224": (
        "Siglip",
        SCALED
        | HALF
        | {"size": {"height": 224, "width": 224}, "resample": 3, "image_processor_type": "SiglipImageProcessor"},
    ),
    "openai/clip-vit-base-patch32": (
        "CLIP",
        USUAL
        | CLIP
        | {
            "crop_size": 224, "do_center_crop": True, "size": 224, "resample": 3,
            "feature_extractor_type": "CLIPFeatureExtractor",
        },
    ),
}  # fmt: skip
"""Settings like those of the Hub, typed in and not fetched from there; and the family that reads them."""
Whole = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Case:
    """A distinct setting: a model that has it, and the library's own transform.

    Attributes:
        library: its name.
        spec: of the model, as merge.toml has it.
        whole: from the library, without our help.
        models: names of all that have this setting; one of them is compared.
    """

    library: str
    spec: str
    whole: Whole
    models: frozenset[str]


def photographs(folder: Path) -> list[Path]:
    """scikit-learn's two photographs, cut and scaled, as JPEG and PNG."""
    import sklearn.datasets

    place = Path(sklearn.datasets.__file__).parent / "images"
    (folder / "photo").mkdir(parents=True, exist_ok=True)
    files = []
    for number, (width, height) in enumerate(SIZES):
        image = Image.open(place / ("china.jpg", "flower.jpg")[number % 2])
        file = folder / "photo" / f"{number}.{('jpg', 'png')[number % 2]}"
        image.crop((10, 10, 10 + 2 * width, 10 + 2 * height)).resize((width, height)).save(file)
        files.append(file)
    return files


def difference(case: Case, files: Sequence[Path]) -> float:
    """Largest difference of what a model gets, in 255ths of the pixels' range.

    Raises:
        ValueError: the shapes differ.
    """
    transform = model_source(case.spec).transform()
    split = load_images([(file, 0) for file in files], transform)
    ours = normalise(transform)(split.inputs) if transform.divided else split.inputs
    largest = 0.0
    std = torch.tensor(transform.normalisation.std if transform.normalisation else (1.0,) * 3)[:, None, None]
    for file, found in zip(files, ours, strict=True):
        with Image.open(file) as image:
            expected = case.whole(image.convert("RGB"))
        if found.shape != expected.shape:
            raise ValueError(f"{case.spec}: {list(found.shape)} is not {list(expected.shape)}")
        largest = max(largest, float(((found - expected) * std * 255).abs().max()))
    return largest


def timm_cases() -> Iterator[Case]:
    """Every distinct configuration of timm's models with published weights."""
    import timm
    from timm import data

    library: Any = data
    found: dict[str, list[str]] = {}
    for name in timm.list_models():
        config: Any = timm.get_pretrained_cfg(name)
        if config is not None and config.input_size:
            settings = library.resolve_data_config({}, pretrained_cfg=config.to_dict())
            found.setdefault(json.dumps(settings), []).append(name)
    for text, names in found.items():
        yield Case("timm", f"timm:{names[0]}", library.create_transform(**json.loads(text)), frozenset(names))


def torchvision_cases() -> Iterator[Case]:
    """Every distinct transform of all weights, and what each model gets where nobody chooses weights."""
    from torchvision import models

    names = models.list_models(module=models)
    found: dict[str, list[tuple[str, Any]]] = {}
    for name in names:
        for entry in models.get_model_weights(name):
            found.setdefault(repr(entry.transforms()), []).append((name, entry))
    for each in found.values():
        name, entry = each[0]
        models_with = frozenset(other for other, _ in each)
        yield Case("torchvision", f"torchvision:{name}(weights='{entry.name}')", entry.transforms(), models_with)


def open_clip_cases() -> Iterator[Case]:
    """Every distinct preprocessing of all published weights, and of architectures without any."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    found: dict[str, list[tuple[str, str | None]]] = {}
    for name in open_clip.list_models():
        for tag in open_clip.list_pretrained_tags_by_model(name) or [None]:
            published = open_clip.get_pretrained_cfg(name, tag) if tag else {}
            settings = merge_preprocess_dict(PreprocessCfg(), published)
            settings["size"] = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
            found.setdefault(json.dumps(settings), []).append((name, tag))
    for text, each in found.items():
        name, tag = each[0]
        chosen = f"(pretrained='{tag}')" if tag else ""
        whole = image_transform_v2(PreprocessCfg(**json.loads(text)), is_train=False)
        yield Case("open_clip", f"open_clip:{name}{chosen}", whole, frozenset(other for other, _ in each))


def transformers_cases(folder: Path) -> Iterator[Case]:
    """Image processors of :data:`PUBLISHED`."""
    for number, (family, settings) in enumerate(PUBLISHED.values()):
        yield processor_case(folder / f"{number}", family, settings)


def processor_case(place: Path, family: str, settings: dict[str, Any]) -> Case:
    """A folder of transformers with these settings."""
    import transformers

    config = getattr(transformers, f"{family}Config")()
    config.architectures = [f"{family}ForImageClassification"]
    config.save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps(settings), "utf-8")
    library: Any = transformers
    processor = library.AutoImageProcessor.from_pretrained(place)

    def whole(image: Image.Image) -> Tensor:
        found: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return found

    return Case("transformers", f"transformers:{place}", whole, frozenset({str(place)}))


def main() -> None:
    """Compares everything and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FIGURES)
    output = parser.parse_args().output
    rows = []
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["MERGING_CACHE"] = f"{name}/cache"
        files = photographs(Path(name))
        groups = (timm_cases(), torchvision_cases(), open_clip_cases(), transformers_cases(Path(name) / "folders"))
        for group in groups:
            cases = list(group)
            found = [difference(case, files) for case in cases]
            row = {
                "library": cases[0].library,
                "models": len(frozenset[str]().union(*(case.models for case in cases))),
                "settings": len(cases),
                "pictures": len(files) * len(cases),
                "different": sum(value > 0.01 for value in found),
                "largest": float(f"{max(found):.2g}"),
            }
            rows.append(row)
            print(row, flush=True)
    output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
