"""Samples of a task's sets to look at: which ones, their pixels and labels, and small pictures for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from merging.errors import TaskError
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split
from merging.storage.folder import check_parent

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")


def chosen(split: Split, count: int) -> list[int]:
    """Samples that show a set: the first of each class, then the second of each, until there are enough.

    Of numbers, in their order; of documents, which stand by their lengths, some of every length.
    """
    if isinstance(split.inputs, Sequences) and not split.categorical:
        return sorted(set(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int).tolist()))
    if not split.categorical:
        return list(range(min(count, len(split))))
    labels = split.labels.cpu().clamp(min=0)  # unlabelled: in their order
    order = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    starts = torch.cumsum(sizes, 0) - sizes
    turn = torch.empty_like(labels)  # how many of its class come before a sample
    turn[order] = torch.arange(len(labels)) - starts[labels[order]]
    first = torch.argsort(turn * (int(labels.max()) + 1) + labels)
    return [int(index) for index in first[:count]]


def pixels(split: Split, index: int) -> NDArray[np.uint8] | None:
    """A sample as RGB ``(H, W, 3)``; None where inputs are no images.

    One that is kept as the model takes it, float ``(3, H, W)``, is shown from its darkest value to its brightest.
    """
    if isinstance(split.inputs, Sequences):
        return None
    inputs = split.inputs
    if inputs.is_floating_point() and inputs.ndim == 4 and inputs.shape[1] == 3:
        planes = inputs[index].cpu().float().nan_to_num()
        low, high = planes.min(), planes.max()
        shown = (planes - low) / (high - low).clamp(min=1e-12) * 255
        return shown.round().to(torch.uint8).permute(1, 2, 0).numpy()
    if inputs.dtype != torch.uint8 or inputs.ndim not in (3, 4) or (inputs.ndim == 4 and inputs.shape[-1] != 3):
        return None
    image = inputs[index].cpu().numpy()
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def half_blocks(image: NDArray[np.uint8], width: int) -> list[str]:
    """A picture of ``width`` by ``width`` pixels as lines of rich markup.

    A character shows two pixels, one above the other: by its own colour and by that of its background.
    """
    from PIL import Image

    small = np.asarray(Image.fromarray(image).resize((width, width), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = (f"[#{_hex(a)} on #{_hex(b)}]▀[/]" for a, b in zip(upper, lower, strict=True))
        lines.append("".join(cells))
    return lines


def check_place(path: Path) -> None:
    """Raises MergingError where no picture can be written under that name."""
    if path.suffix.lower() not in SUFFIXES:
        raise TaskError(f"{path}: pictures are written as {', '.join(SUFFIXES)}")
    check_parent(path, str(path))


def label(split: Split, index: int, names: Sequence[str] | None) -> str:
    """A sample's class; where a set has classes of its own, the model's outputs that it stands for."""
    if not split.categorical:
        return ", ".join(f"{value:.3g}" for value in split.labels[index].flatten().tolist())
    number = int(split.labels[index])
    if number < 0:
        return "–"
    outputs = split.classes[number] if split.classes is not None else (number,)
    return " / ".join(names[i] if names is not None and i < len(names) else str(i) for i in outputs)


def _hex(colour: NDArray[np.uint8]) -> str:
    return "".join(f"{value:02x}" for value in colour)
