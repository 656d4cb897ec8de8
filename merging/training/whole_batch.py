"""The augmentations of :mod:`merging.training.augment` on a whole batch at once, where the batch lies.

Every sample has parameters of its own, as torchvision's transforms draw them for one image. They are drawn on the CPU,
all samples' at once, so that what a seed draws is the same on every device; the device only moves pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from merging.errors import OptionError
from merging.forward.device import sent
from merging.training.augment import AFFINE, AREA, Affine

RATIOS = (3 / 4, 4 / 3)
"""Width ÷ height of a crop, as torchvision has it."""
_TRIES = 10


def whole_batch(name: str) -> Callable[[Tensor], Tensor]:
    """Finds what changes a batch of stored images at once, each by parameters of its own.

    Args:
        name: ``flip``, ``crop``, ``affine`` or ``wide-affine``.

    Returns:
        uint8 ``(N, H, W)`` or ``(N, H, W, 3)`` → the same shape, on the same device; draws are from the CPU's
        generator.
    """

    def apply(images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim not in (3, 4):
            raise OptionError(f"augmentation '{name}' is for stored images (uint8), not {images.dtype}; use none")
        count, height, width = images.shape[:3]
        if name == "flip":
            return flipped(images, draw_flips(count))
        if name == "crop":
            boxes = draw_crops(count, height, width)
            return cropped(images, boxes, draw_flips(count))
        return moved(images, draw_affines(AFFINE[name], count, height, width))

    return apply


def draw_flips(count: int) -> Tensor:
    """Draws which samples are mirrored, half of them: bool ``(count,)``."""
    return torch.rand(count) < 0.5


def draw_crops(count: int, height: int, width: int) -> Tensor:
    """Draws boxes as ``RandomResizedCrop`` does.

    Args:
        count: how many.
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Returns:
        int64 ``(count, 4)``: top, left, height, width.
    """
    area = height * width * torch.empty(count, _TRIES).uniform_(*AREA)
    ratio = torch.empty(count, _TRIES).uniform_(*map(math.log, RATIOS)).exp()
    tall, wide = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits
    tall, wide, fits = (x.gather(1, first)[:, 0] for x in (tall, wide, fits))
    place = torch.rand(2, count)
    top, left = (place[0] * (height - tall + 1)).long(), (place[1] * (width - wide + 1)).long()
    # where none fits: the middle, as large as the ratios let it
    most = min(height, round(width / RATIOS[0])), min(width, round(height * RATIOS[1]))
    middle = torch.tensor([(height - most[0]) // 2, (width - most[1]) // 2, *most])
    return torch.where(fits[:, None], torch.stack([top, left, tall, wide], 1), middle)


def draw_affines(ranges: Affine, count: int, height: int, width: int) -> Tensor:
    """Draws maps as ``RandomAffine`` does.

    Args:
        ranges: how far images are turned, moved, scaled and sheared.
        count: how many.
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Returns:
        float32 ``(count, 6)``: from a pixel of the result to one of the image, both from the middle, ``(a, b, c, d, e,
        f)`` for x = a·x' + b·y' + c, y = d·x' + e·y' + f.
    """
    angle, across, down, shear = 2 * torch.rand(4, count, dtype=torch.float64) - 1
    scale = torch.empty(count, dtype=torch.float64).uniform_(*ranges.scale)
    return inverse(
        angle * ranges.degrees,
        (across * ranges.translate * width).round(),
        (down * ranges.translate * height).round(),
        scale,
        shear * ranges.shear,
    )


def inverse(angle: Tensor, across: Tensor, down: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """The maps that undo a shear along x, a turn and a scaling about the middle, and a translation.

    Args:
        angle: degrees, ``(N,)``, clockwise.
        across: pixels to the right.
        down: pixels downwards.
        scale: factors.
        shear: degrees.

    Returns:
        float32 ``(N, 6)``, as :func:`draw_affines` gives them.
    """
    turn, lean = angle.deg2rad(), shear.deg2rad().tan()
    cos, sin = turn.cos(), turn.sin()
    # the matrix is ((cos, -cos·lean - sin), (sin, -sin·lean + cos)) · scale, and its determinant scale²
    a, b = (cos - sin * lean) / scale, (sin + cos * lean) / scale
    d, e = -sin / scale, cos / scale
    return torch.stack([a, b, -a * across - b * down, d, e, -d * across - e * down], 1).float()


def flipped(images: Tensor, which: Tensor) -> Tensor:
    """Mirrors some images, left to right.

    Args:
        images: ``(N, H, W)`` or ``(N, H, W, 3)``.
        which: bool ``(N,)``, on the CPU.
    """
    there = sent(which, images.device).view(-1, *[1] * (images.ndim - 1))
    return torch.where(there, images.flip(2), images)


def cropped(images: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Cuts a box from each image, enlarges it to the image's size (bilinear), and mirrors some.

    Args:
        images: uint8 ``(N, H, W)`` or ``(N, H, W, 3)``.
        boxes: int64 ``(N, 4)``: top, left, height, width, on the CPU.
        mirrored: bool ``(N,)``, on the CPU.
    """
    height, width = images.shape[1:3]
    top, left, tall, wide, mirror = sent(
        torch.cat([boxes, mirrored[:, None]], 1).T.float().contiguous(), images.device
    )[:, :, None]
    x = torch.arange(width, device=images.device)
    x = torch.where(mirror > 0, width - 1 - x, x)
    y = torch.arange(height, device=images.device)
    # what lies outside of the box is never looked at: its edge is repeated instead, as where boxes are cut first
    x = left + torch.minimum(((x + 0.5) * (wide / width) - 0.5).clamp_min(0), wide - 1)
    y = top + torch.minimum(((y + 0.5) * (tall / height) - 0.5).clamp_min(0), tall - 1)
    return _sampled(images, x[:, None, :], y[:, :, None], "bilinear")


def moved(images: Tensor, maps: Tensor) -> Tensor:
    """Takes each pixel from the nearest one that its image's map names; black where that lies outside.

    Args:
        images: uint8 ``(N, H, W)`` or ``(N, H, W, 3)``.
        maps: float32 ``(N, 6)``, as :func:`draw_affines` gives them, on the CPU.
    """
    height, width = images.shape[1:3]
    a, b, c, d, e, f = sent(maps.T.contiguous(), images.device)[:, :, None, None]
    x = torch.arange(width, device=images.device) + (0.5 - width / 2)
    y = (torch.arange(height, device=images.device) + (0.5 - height / 2))[:, None]
    # products and sums one by one: a matrix product may round to TF32, a tenth of a pixel
    column, row = a * x + b * y + (c + (width / 2 - 0.5)), d * x + e * y + (f + (height / 2 - 0.5))
    return _sampled(images, column, row, "nearest")


def _sampled(images: Tensor, column: Tensor, row: Tensor, how: str) -> Tensor:
    """Pixels at places that are counted from the middle of the first one, shapes that broadcast to ``(N, H, W)``."""
    height, width = images.shape[1:3]
    grid = torch.stack(torch.broadcast_tensors((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), 3)
    grey = images.ndim == 3
    pixels = images[:, None] if grey else images.permute(0, 3, 1, 2)
    outside = "zeros" if how == "nearest" else "border"
    found = grid_sample(pixels.float(), grid, how, outside, align_corners=False).round_().to(images.dtype)
    return found[:, 0] if grey else found.permute(0, 2, 3, 1).contiguous()
