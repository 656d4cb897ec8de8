"""An evaluation against one done the published way: images decoded every time, state dicts cloned and loaded.

``python -m benchmarks.reference_loop --json``. The opponent is the loop of the published code, done well: a DataLoader
with two workers that decodes JPEGs with Pillow, resizes, crops and normalises them (torchvision's v2 transforms), both
models' tensors cloned and mixed key by key, ``load_state_dict``, one forward pass in inference mode with our batch
size. ``same layout`` gives it channels-last weights and inputs too. Bars on PACS at 96 pixels: ratio ≥ 1.2 at the same
layout, ≥ 2 as published; 500 × 375 JPEGs: ≥ 5.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from benchmarks.common import data_folder, evaluator, json_option, noisy, pairs, pairs_option, show, trials
from merging.data.images import Preparation, normalise
from merging.data.npz import load_npz
from merging.models.catalogue import model_source
from merging.models.source import preset
from merging.models.transform import IMAGENET, Normalisation
from merging.partitioners.block import Block
from merging.plugins.task import Split, Task


class Jpegs(Dataset[tuple[Tensor, int]]):
    """JPEG bytes and labels, decoded at every access."""

    def __init__(self, files: list[bytes], labels: list[int], transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB")), self.labels[index]


def pacs(images: int) -> tuple[list[bytes], list[int], int]:
    """PACS's paintings, stored at 96 pixels."""
    with np.load(data_folder() / "pacs96.npz") as arrays:
        data, offsets, labels = (arrays[f"art_painting_{name}"] for name in ("jpeg", "offsets", "labels"))
    files = [data[offsets[i] : offsets[i + 1]].tobytes() for i in range(images)]
    return files, labels[:images].tolist(), 96


def large(images: int) -> tuple[list[bytes], list[int], int]:
    """The same paintings as 500 × 375 JPEGs, for a model that takes 96 pixels."""
    small, labels, size = pacs(images)
    files = []
    for file in small:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(file)).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC).save(
            buffer, "jpeg", quality=90
        )
        files.append(buffer.getvalue())
    return files, labels, size


def measure(kind: str, folder: Path, images: int, *, same_layout: bool, count: int) -> dict[str, Any]:
    """One row."""
    files, labels, size = (pacs if kind == "pacs 96 px" else large)(images)
    source = model_source("torchvision:squeezenet1_1")
    own = preset(source.spec, {"crop_size": size, "resize_size": size}, Normalisation())
    module = source.module(7)
    module.load_state_dict(load_file(data_folder() / "squeezenet1_1_imagenet_backbone.safetensors"), strict=False)
    pool = noisy(module, folder / "pool", 2)
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(folder / "data.npz", a_jpeg=np.frombuffer(b"".join(files), np.uint8), a_offsets=offsets, a_labels=labels)
    held_out: Split = load_npz(f"{folder / 'data.npz'}:a", Preparation(own, arrays=True))
    made = evaluator(pool, Task("loop", source.build, held_out, prepare=normalise(own)), Block(), cache_memory=0)

    layout = torch.channels_last if same_layout else torch.contiguous_format
    opponent = source.module(7).eval().to(memory_format=layout)
    ends = [load_file(checkpoint.path) for checkpoint in pool.checkpoints]
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(size, interpolation=InterpolationMode.BILINEAR, antialias=True),
            v2.CenterCrop(size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*IMAGENET),
        ]
    )
    loader = DataLoader(Jpegs(files, labels, transform), batch_size=made.numerics.batch, num_workers=2)
    generator = np.random.default_rng(0)

    def published() -> float:
        weight = generator.random()
        one, two = ({name: tensor.clone() for name, tensor in end.items()} for end in ends)
        opponent.load_state_dict({name: weight * one[name] + (1 - weight) * two[name] for name in one})
        right = 0
        with torch.inference_mode():
            for batch, wanted in loader:
                logits = opponent(batch.to(memory_format=layout))
                right += int((logits.argmax(dim=1) == wanted).sum())
        return right / len(labels)

    found = pairs(published, trials(made), count)
    return {
        "images": kind,
        "layout": "same" if same_layout else "as published",
        "samples": images,
        "ratio": found.pop("quotient"),
        **found,
    }


@click.command()
@click.option("--images", type=int, default=512, show_default=True)
@pairs_option
@json_option
def main(images: int, count: int, as_json: bool) -> None:
    """The published way ÷ the evaluator."""
    rows = []
    for kind, same in (("pacs 96 px", True), ("pacs 96 px", False), ("500 × 375", True), ("500 × 375", False)):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MERGING_CACHE"] = folder
            rows.append(measure(kind, Path(folder), images, same_layout=same, count=count))
    show("reference_loop", rows, as_json=as_json)


if __name__ == "__main__":
    main()
