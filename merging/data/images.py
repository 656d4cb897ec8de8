"""How images become a model's inputs: by its library's transform, the last step of which the device does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from merging.data.damage import CORRUPT
from merging.errors import TaskError
from merging.machine import cores
from merging.models.source import ModelSource
from merging.models.transform import Normalisation, Transform, as_stored
from merging.plugins.progress import Progress

STORED = "stored"
"""The size that leaves pictures as they are."""


class Normalise:
    """Standardises a batch, ``(x / 255 − mean) / std``: uint8 ``(N, H, W, 3)`` → float32 ``(N, 3, H, W)``.

    Args:
        mean, std: per channel as the model takes them.
        flipped: whether the model takes BGR.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], flipped: bool = False) -> None:
        self.mean, self.std, self.flipped = torch.tensor(mean), torch.tensor(std), flipped
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of each channel, as a model may apply them itself; None where channels change places."""
        return None if self.flipped else (1 / (255 * self.std), -self.mean / self.std)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch, in the order and with the bits of torchvision's own; it stays channels-last in memory."""
        n, height, width, _ = images.shape
        place = (width, images.device)
        if place not in self._rows:  # whole rows, so that the inner loops are long
            self._rows[place] = tuple(t.repeat(width).to(images.device) for t in (self.mean, self.std))  # type: ignore[assignment]
        mean, std = self._rows[place]
        images = images.flip(-1) if self.flipped else images
        rows = images.reshape(n * height, width * 3).to(torch.float32)
        return rows.div_(255).sub_(mean).div_(std).view(n, height, width, 3).permute(0, 3, 1, 2)


def normalise(transform: Transform) -> Normalise:
    """Gives what the device does to the pictures that a transform's geometry has made.

    Raises:
        TaskError: the transform is not divided.
    """
    found = transform.normalisation
    if found is None:
        raise TaskError(
            f"{transform.name}: its preprocessing does not come apart into geometry and normalisation, which pictures "
            "kept as they are stored need; give mean and std"
        )
    return Normalise(found.mean, found.std, found.flipped)


def _plain() -> Transform:
    return as_stored("pictures", Normalisation())


@dataclass(frozen=True)
class Preparation:
    """The way in which the pictures of a task become arrays of one size.

    Attributes:
        transform: what is done to each picture that a file or stream holds.
        arrays: whether it is also done to arrays of pictures of one size, which somebody has decoded before.
        corrupt: share of a set's images that may be damaged.
        border: pixels that are cut off on each side first.
    """

    transform: Transform = field(default_factory=_plain)
    arrays: bool = False
    corrupt: float = CORRUPT
    border: int = 0

    def of_arrays(self, sides: tuple[int, int]) -> Transform | None:
        """Gives what is done to decoded pictures of one size; None: nothing.

        Those that have the sides which the transform gives were prepared before.

        Args:
            sides: height and width.
        """
        if not self.transform.divided:
            return self.transform
        return self.transform if self.arrays and sides != self.transform.sides else None


def preparation(
    source: ModelSource,
    size: int | Literal["stored"] | None = None,
    corrupt: float = CORRUPT,
    mean: Any = None,
    std: Any = None,
) -> Preparation:
    """Prepares pictures for a model as its library does it.

    Arrays of one size, as ``.npz`` files hold them, stay as they are where the model takes images of any size (a
    convolutional network at 96 pixels costs a fifth of what it does at 224), unless ``size`` says otherwise.

    Args:
        source: the model.
        size: side in pixels in place of the library's own; ``stored``: pictures stay in the size they have.
        corrupt: share of a set's images that may be damaged.
        mean: mean of each channel, of images between 0 and 1, in place of the library's own.
        std: standard deviation of each channel, in place of the library's own.

    Raises:
        TaskError: a size that the model does not take.
    """
    if size is None:
        return Preparation(source.transform(None, mean, std), source.fixed_size, corrupt)
    if size == STORED:
        if mean is not None and std is not None:
            return Preparation(as_stored(source.spec, Normalisation(tuple(mean), tuple(std))), corrupt=corrupt)
        own = normalise(source.transform(None, mean, std))
        kept = Normalisation(tuple(own.mean.tolist()), tuple(own.std.tolist()), own.flipped)
        return Preparation(as_stored(source.spec, kept), corrupt=corrupt)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise TaskError(f"size is {size}; it is the images' side in pixels, 1 or more, or '{STORED}'")
    if source.sides is not None and (size, size) != source.sides and source.fixed_size:
        height, width = source.sides
        takes = f"{height}" if height == width else f"{height} × {width}"
        raise TaskError(
            f"size is {size}, but {source.spec} takes images of {takes} pixels only; leave size out, or build the "
            "model for that size (model = { timm = 'NAME', img_size = N })"
        )
    return Preparation(source.transform(size, mean, std), True, corrupt)


def prepared(images: NDArray[np.uint8], transform: Transform, where: str, progress: Progress) -> NDArray[Any]:
    """Decoded pictures ``(N, H, W, 3)`` through a transform, several at a time.

    Args:
        images: uint8, RGB.
        transform: what prepares each picture.
        where: the set, for messages.
        progress: told how far this is.
    """
    if not len(images):
        return images
    progress.stage(f"preparing {where}", len(images))

    def one(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return transform(Image.fromarray(pixels))

    first = one(images[0])
    say_size(where, len(images), first.shape, transform, progress)
    made = np.empty((len(images), *first.shape), first.dtype)
    with ThreadPoolExecutor(cores()) as workers:
        for number, pixels in enumerate(workers.map(one, images)):
            made[number] = pixels
            progress.advance()
    return made


def say_size(where: str, count: int, shape: tuple[int, ...], transform: Transform, progress: Progress) -> None:
    """Says how much memory pictures take that are kept as float32, before they are made."""
    if not transform.divided:
        needed = count * int(np.prod(shape)) * transform.dtype.itemsize
        progress.say(
            f"{where}: the preprocessing of {transform.name} does not come apart into geometry and normalisation; "
            f"its results are kept as float32, {needed / 1e9:.2g} GB for {count:,} pictures"
        )


def is_images(inputs: Tensor) -> bool:
    """Whether samples are kept as images: uint8, ``(N, H, W, 3)``."""
    return inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[-1] == 3
