"""Digits drawn from the fonts that matplotlib ships, reduced the way the UCI handwritten digits were.

The UCI images are 32x32 bitmaps, size-normalised, in which the inked pixels of each 4x4 cell are counted
(Alpaydin & Kaynak 1998). Doing the same to type makes features learned on it transfer to handwriting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms import v2

from merging.tasks.digits_data import CLASSES, Images, upsample

_CANVAS = 96
_FONT_SIZE = 64
_BITMAP = 32
_CELL = 4

SEEN_FONTS = tuple(
    f"DejaVu{name}"
    for name in (
        *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
        *("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique"),
        *("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic"),
    )
)
"""The one family of pretraining."""

UNSEEN_FONTS = (
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
"""The families of the shifted set ``printed``."""


@dataclass(frozen=True)
class Jitter:
    """How far a drawn digit strays from its font.

    Attributes:
        degrees: largest rotation and shear, in degrees.
        stretch: largest relative change of the width.
        perspective: how far a corner moves, as a fraction of half the canvas.
        stroke: largest thickening of the strokes on either side, in pixels of the canvas.
        offset: largest move to a side, in pixels of the 32x32 bitmap.
    """

    degrees: float
    stretch: float
    perspective: float
    stroke: int
    offset: int


PRETRAINING = Jitter(degrees=15.0, stretch=0.25, perspective=0.3, stroke=3, offset=3)
PRINTED = Jitter(degrees=5.0, stretch=0.1, perspective=0.0, stroke=1, offset=2)


def render(
    fonts: Sequence[str],
    count: int,
    jitter: Jitter,
    seed: int,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[Images, NDArray[np.int64]]:
    """Draws digits, cycling through every pair of font and label.

    Args:
        fonts: names of files in matplotlib's font folder, without ``.ttf``.
        count: number of images.
        jitter: random deformation.
        seed: of all random choices.
        advance: told the number of images drawn since its last call.

    Returns:
        uint8 images ``(count, 16, 16)`` and their labels ``(count,)``.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = [ImageFont.truetype(folder / f"{font}.ttf", _FONT_SIZE) for font in fonts]
    generator = np.random.default_rng(seed)
    deform = _deformation(jitter)
    levels: list[Images] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index in range(count):
            face = faces[index // CLASSES % len(faces)]
            levels.append(_count_ink(_draw(str(index % CLASSES), face, jitter, deform, generator)))
            advance(1)
    return upsample(np.stack(levels)), np.arange(count, dtype=np.int64) % CLASSES


def _deformation(jitter: Jitter) -> v2.Transform:
    degrees = jitter.degrees
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomAffine(degrees, shear=(-degrees, degrees), interpolation=bilinear),
            v2.RandomPerspective(jitter.perspective, p=1.0, interpolation=bilinear),
        ]
    )


def _draw(
    text: str,
    face: ImageFont.FreeTypeFont,
    jitter: Jitter,
    deform: v2.Transform,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """A deformed, size-normalised bitmap ``(32, 32)`` of one digit."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    stroke = int(generator.integers(jitter.stroke + 1))
    ImageDraw.Draw(canvas).text((_CANVAS / 2, _CANVAS / 2), text, fill=255, font=face, anchor="mm", stroke_width=stroke)
    canvas = deform(canvas)
    digit = canvas.crop(canvas.getbbox())
    stretch = 1 + generator.uniform(-jitter.stretch, jitter.stretch)
    width = int(np.clip(round(_BITMAP * stretch * digit.width / digit.height), 4, _BITMAP))
    digit = digit.resize((width, _BITMAP), Image.Resampling.BILINEAR)
    room = (_BITMAP - width) // 2
    left = room + int(np.clip(generator.integers(-jitter.offset, jitter.offset + 1), -room, room))
    bitmap = Image.new("L", (_BITMAP, _BITMAP))
    bitmap.paste(digit, (left, 0))
    return np.asarray(bitmap) > 127


def _count_ink(bitmap: NDArray[np.bool_]) -> Images:
    """Inked pixels of each 4x4 cell: ``(32, 32)`` to ``(8, 8)``, 0..16."""
    cells = _BITMAP // _CELL
    levels: Images = bitmap.reshape(cells, _CELL, cells, _CELL).sum(axis=(1, 3)).astype(np.uint8)
    return levels
