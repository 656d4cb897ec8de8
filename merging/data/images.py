"""How images are brought to size and normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.data.damage import CORRUPT
from merging.errors import TaskError
from merging.models.source import ModelSource


@dataclass(frozen=True)
class Resize:
    """The usual preparation for evaluation: shorter side to ``resize``, then a crop of ``size`` from the centre.

    Done once, when images are loaded, on uint8 with antialiasing, as Pillow does it. Images that already have the
    side ``size`` are left as they are: they have been prepared before.
    """

    size: int
    resize: int
    interpolation: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """``(N, H, W, 3)`` uint8 → ``(N, size, size, 3)`` uint8."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as transforms

        if tuple(images.shape[1:3]) == (self.size, self.size):
            return images
        mode = InterpolationMode(self.interpolation)
        parts = []
        for part in images.permute(0, 3, 1, 2).split(256):  # bounds the memory of the float copies inside
            resized = transforms.resize(part.contiguous(), [self.resize], interpolation=mode, antialias=True)
            parts.append(transforms.center_crop(resized, [self.size, self.size]))
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous()


class Normalise:
    """uint8 ``(N, H, W, 3)`` → float32 ``(N, 3, H, W)``, ``(x / 255 − mean) / std`` per channel, on the device."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch, in the order and with the bits of torchvision's own; it stays channels-last in memory."""
        n, height, width, _ = images.shape
        place = (width, images.device)
        if place not in self._rows:  # whole rows, so that the inner loops are long
            self._rows[place] = tuple(t.repeat(width).to(images.device) for t in (self.mean, self.std))  # type: ignore[assignment]
        mean, std = self._rows[place]
        rows = images.reshape(n * height, width * 3).to(torch.float32)
        return rows.div_(255).sub_(mean).div_(std).view(n, height, width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Preparation:
    """How the images of a task become arrays of one size.

    Attributes:
        resize: brings them to the model's size.
        always: or only where they differ in size.
        corrupt: share of a set's images that may be damaged.
        border: pixels that are cut off on each side first.
    """

    resize: Resize | None = None
    always: bool = True
    corrupt: float = CORRUPT
    border: int = 0


def preparation(source: ModelSource, size: int | None, corrupt: float = CORRUPT) -> Preparation:
    """How images are brought to size for a model.

    A model that takes one size only gets it. Others take the images as they are stored (a convolutional network at
    96 pixels costs a fifth of what it does at 224), unless they differ in size, or ``size`` says otherwise.

    Raises:
        TaskError: a size that the model does not take.
    """
    own = source.preprocessing
    if size is None:
        if own.size is None or own.resize is None:
            return Preparation(None, always=False, corrupt=corrupt)
        return Preparation(Resize(own.size, own.resize, own.interpolation), source.fixed_size, corrupt)
    if size < 1:
        raise TaskError(f"size is {size}; it is the images' side in pixels, 1 or more")
    if own.size is not None and size != own.size and source.fixed_size:
        raise TaskError(f"size is {size}, but {source.spec} takes images of {own.size} pixels only; leave size out")
    margin = (own.resize or 1) / (own.size or 1) if own.size else 1.0
    return Preparation(Resize(size, round(size * margin), own.interpolation), True, corrupt)
