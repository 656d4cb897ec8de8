"""Samples of a task's sets to look at: a picture with a strip for each set, and small pictures for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import TaskError
from merging.plugins.task import Split
from merging.storage.atomic import replacing
from merging.storage.folder import check_parent

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")


def chosen(split: Split, count: int) -> list[int]:
    """Samples that show a set: the first of each class, then the second of each, until there are enough."""
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


def strips(
    sets: Mapping[str, Split],
    path: Path,
    *,
    count: int = 12,
    names: Sequence[str] | None = None,
    decode: Callable[[Tensor], str] | None = None,
) -> None:
    """Writes a picture: a row of samples for each set, their labels above them.

    Args:
        sets: name → split; images, or texts where ``decode`` is given.
        path: of the picture; its suffix says the format.
        count: samples a set.
        names: of the classes; default: their numbers.
        decode: a stored sample → its text.

    Raises:
        TaskError: an unknown suffix, or nothing that could be shown.
        FolderError: the folder is not there.
    """
    check_place(path)
    shown = {name: split for name, split in sets.items() if decode is not None or pixels(split, 0) is not None}
    if not shown:
        raise TaskError("no set holds images or texts that could be shown; leave --pictures out")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 * count + 0.5, 1.35 * len(shown) + 0.2), dpi=120)
    grid: Any = figure.subplots(len(shown), count, squeeze=False)
    for row, (name, split) in zip(grid, shown.items(), strict=True):
        for axis in row:
            axis.axis("off")
        samples = chosen(split, count)
        row[0].text(0, 1.32, f"{name}, {len(split):,} samples", transform=row[0].transAxes, fontsize=8, weight="bold")
        if decode is not None:
            lines = [f"{label(split, i, names)}:  {decode(split.inputs[i])[: 14 * count]}" for i in samples[:5]]
            row[0].text(0, 1.1, "\n".join(lines), transform=row[0].transAxes, fontsize=7, va="top")
            continue
        for axis, index in zip(row, samples, strict=False):
            axis.imshow(pixels(split, index), interpolation="nearest")
            axis.set_title(label(split, index, names)[:16], fontsize=6, pad=2)
    with replacing(path) as aside:
        figure.savefig(aside, bbox_inches="tight")


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
