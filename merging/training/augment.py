"""Augmentations of stored images, by name: torchvision's transforms, and timm's policies (``rand-m9-mstd0.5``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from merging.errors import OptionError, unknown

NAMES = ("none", "flip", "crop", "affine", "wide-affine")
POLICIES = ("rand", "augmix", "original", "originalr", "v0", "3a")


def augmentation(name: str) -> Callable[[Tensor], Tensor] | None:
    """What is done to a batch of stored images, each on its own; None where nothing is.

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
    if name == "affine":
        return v2.RandomAffine(6, translate=(0.04, 0.04), scale=(0.9, 1.1))  # type: ignore[no-any-return]
    if name == "wide-affine":
        return v2.RandomAffine(10, translate=(0.06, 0.06), scale=(0.85, 1.15), shear=5)  # type: ignore[no-any-return]
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

    cut: Image.Image = v2.RandomResizedCrop((image.height, image.width), scale=(0.7, 1.0), antialias=True)(image)
    return cut
