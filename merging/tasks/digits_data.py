"""Images of the built-in task: small grey digits, and the same ten labels under five shifts.

Handwritten digits are scikit-learn's copy of the UCI set (Alpaydin & Kaynak 1998,
https://doi.org/10.24432/C50P49): 1,797 images of 8x8 cells with 0..16 inked pixels each. The train part is kept
small, so that fine-tuned models differ and there is room for their mixes to improve.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

Images = NDArray[np.uint8]
Split = Literal["train", "held_out", "test"]

CLASSES = 10
SIZE = 16
"""Height and width of an image in pixels."""

POOL = Path(__file__).parent / "digits_pool"
"""The shipped checkpoints with their records, ``sweep.toml`` and ``printed.npz``; ``make pool`` rebuilds them."""

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIZE, "patch_size": 4, "width": 48, "head_width": 12, "layers": 4},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}
"""Keyword arguments of open_clip's ``CLIP``; about 120,000 parameters with the text tower's leftovers."""

_SPLIT_SIZES: dict[Split, int] = {"held_out": 800, "test": 800}
_SPLIT_SEED = 0
_SHIFT_SEED = 1
_ROTATION_DEGREES = 30
_SHIFT_PIXELS = 2


def upsample(levels: Images) -> Images:
    """Doubles the resolution of ink counts, bilinearly, in integers.

    Args:
        levels: ``(N, 8, 8)`` ink counts 0..16.

    Returns:
        ``(N, 16, 16)`` grey levels 0..255, ink bright.
    """
    doubled = levels.astype(np.int64)
    for axis in (1, 2):
        padding = [(1, 1) if each == axis else (0, 0) for each in range(3)]
        padded = np.moveaxis(np.pad(doubled, padding, mode="edge"), axis, -1)
        before, here, after = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
        # A new pixel's centre lies a quarter of a cell from its own cell's: weights 3/4 and 1/4.
        pairs = np.stack([3 * here + before, 3 * here + after], axis=-1)
        doubled = np.moveaxis(pairs.reshape(*here.shape[:-1], -1), -1, axis)
    return (doubled * 255 // 256).astype(np.uint8)


def handwritten(split: Split) -> tuple[Tensor, Tensor]:
    """Gives one part of the handwritten digits, the same stratified split every time.

    Args:
        split: ``train`` (197 images), ``held_out`` (800) or ``test`` (800).

    Returns:
        uint8 images ``(N, 16, 16)`` and int64 labels ``(N,)``.
    """
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    parts: dict[Split, NDArray[np.int64]] = {}
    rest = np.arange(len(labels))
    for name, size in _SPLIT_SIZES.items():
        rest, parts[name] = train_test_split(rest, test_size=size, random_state=_SPLIT_SEED, stratify=labels[rest])
    parts["train"] = rest
    chosen = np.sort(parts[split])
    images = upsample(digits.images[chosen].astype(np.uint8))
    return torch.from_numpy(images), torch.from_numpy(labels[chosen])


def printed() -> tuple[Tensor, Tensor]:
    """Digits set in STIX and Computer Modern, families never seen in pretraining (shapes as `handwritten`).

    They are shipped as images because another FreeType would rasterise them differently.
    """
    with np.load(POOL / "printed.npz") as arrays:
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])


def inverted(images: Images) -> Images:
    """Turns digits into dark ink on bright paper."""
    return 255 - images


def rotated(images: Images) -> Images:
    """Turned about the centre by 30 degrees, to a side drawn per image."""
    sides = np.random.default_rng(_SHIFT_SEED).choice((-1, 1), size=len(images))
    turned = [
        Image.fromarray(image).rotate(int(side) * _ROTATION_DEGREES, Image.Resampling.BILINEAR)
        for image, side in zip(images, sides, strict=True)
    ]
    return np.stack([np.asarray(image) for image in turned])


def shifted(images: Images) -> Images:
    """Moved by 2 pixels up or down and 2 left or right, drawn per image; what leaves the frame is lost."""
    moves = np.random.default_rng(_SHIFT_SEED).choice((-_SHIFT_PIXELS, _SHIFT_PIXELS), size=(len(images), 2))
    padded = np.pad(images, ((0, 0), (_SHIFT_PIXELS, _SHIFT_PIXELS), (_SHIFT_PIXELS, _SHIFT_PIXELS)))
    corners = _SHIFT_PIXELS - moves
    return np.stack(
        [image[top : top + SIZE, left : left + SIZE] for image, (top, left) in zip(padded, corners, strict=True)]
    )


def outlined(images: Images) -> Images:
    """Only the edges of the strokes: the brightest minus the darkest of each 3x3 neighbourhood."""
    window = (1, 3, 3)
    edges: Images = ndimage.maximum_filter(images, window) - ndimage.minimum_filter(images, window)
    return edges


_SHIFTS: dict[str, Callable[[Images], Images]] = {
    "inverted": inverted,
    "rotated": rotated,
    "shifted": shifted,
    "outlined": outlined,
}

SHIFTED_SETS = ("printed", *_SHIFTS)
"""Names of the shifted sets, in the order in which they are reported."""


def shifted_set(name: str) -> tuple[Tensor, Tensor]:
    """A shifted set by its name in `SHIFTED_SETS`; all but ``printed`` derive from the handwritten test part.

    Returns:
        uint8 images ``(N, 16, 16)`` and int64 labels ``(N,)``.

    Raises:
        KeyError: there is no such set.
    """
    if name == "printed":
        return printed()
    images, labels = handwritten("test")
    return torch.from_numpy(_SHIFTS[name](images.numpy())), labels


def prepare(images: Tensor) -> Tensor:
    """Normalises for the classifier: uint8 ``(N, 16, 16)`` to float32 ``(N, 3, 16, 16)`` in [-1, 1]."""
    scaled = images.to(torch.float32).div(127.5).sub(1.0)
    return scaled.unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
