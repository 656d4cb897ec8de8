"""Augmentations of stored images, by name: torchvision's transforms, and timm's policies (``rand-m9-mstd0.5``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from merging.errors import OptionError, unknown

NAMES = ("none", "flip", "crop", "affine", "wide-affine")
POLICIES = ("rand", "augmix", "original", "originalr", "v0", "3a")
AREA = (0.7, 1.0)
"""Share of an image that a crop takes."""


@dataclass(frozen=True)
class Affine:
    """Bounds of how images are turned, moved, scaled and sheared.

    Attributes:
        degrees: largest turn, either way.
        translate: largest move as a share of a side, either way.
        scale: least and largest factor.
        shear: largest shear along x in degrees, either way.
    """

    degrees: float
    translate: float
    scale: tuple[float, float]
    shear: float = 0.0


AFFINE = {"affine": Affine(6, 0.04, (0.9, 1.1)), "wide-affine": Affine(10, 0.06, (0.85, 1.15), 5)}


def augmentation(name: str) -> Callable[[Tensor], Tensor] | None:
    """Finds what changes a batch of stored images, each on its own; None where nothing does.

    Args:
        name: ``flip`` mirrors; ``crop`` takes 70 to 100 % of the area and mirrors; ``affine`` and ``wide-affine`` turn,
            move and scale a little, ``wide-affine`` also shears; others are timm's policies, after a crop.

    Returns:
        uint8 ``(N, H, W)`` or ``(N, H, W, 3)`` → the same shape.

    Raises:
        OptionError: no such augmentation, or one that cannot change such images.
    """
    if name == "none":
        return None
    change = _change(name)

    def apply(images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim not in (3, 4):
            raise OptionError(f"augmentation '{name}' is for stored images (uint8), not {images.dtype}; use none")
        try:
            return torch.stack([torch.from_numpy(np.array(change(Image.fromarray(x.numpy())))) for x in images.cpu()])
        except ValueError as error:  # augmix of timm before 1.0.31 mixes up the sides of what is not square
            height, width = images.shape[1:3]
            raise OptionError(f"augmentation '{name}' fails on images of {width} × {height} pixels: {error}") from None

    return apply


def _change(name: str) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip()
    if name == "flip":
        return flip  # type: ignore[no-any-return]
    if name in AFFINE:
        own = AFFINE[name]
        both = (own.translate, own.translate)
        return v2.RandomAffine(own.degrees, both, own.scale, own.shear or None)  # type: ignore[no-any-return]
    if name == "crop":
        return lambda image: flip(_crop(image))
    if name.partition("-")[0] not in POLICIES:
        raise unknown("augmentation", name, (*NAMES, *POLICIES), error=OptionError)
    from timm.data.auto_augment import augment_and_mix_transform as augmix_transform
    from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

    settings: dict[str, Any] = {"translate_const": 10, "img_mean": (124, 116, 104)}
    makers = {"rand": rand_augment_transform, "augmix": augmix_transform}
    try:
        policy: Any = makers.get(name.partition("-")[0], auto_augment_transform)(name, settings)
    except Exception as error:  # timm asserts what a policy's text may say
        raise OptionError(f"augmentation '{name}' is none of timm's policies ({error})") from None
    # timm's policies are for colour images; grey ones are given back grey
    return lambda image: policy(flip(_crop(image.convert("RGB")))).convert(image.mode)


def _crop(image: Image.Image) -> Image.Image:
    from torchvision.transforms import v2

    cut: Image.Image = v2.RandomResizedCrop((image.height, image.width), scale=AREA, antialias=True)(image)
    return cut
