"""Image data from ``.npz`` files: raw images or JPEG bytes, with labels. No pickles are read.

Layout: ``KEY_images`` uint8 ``(N, H, W, 3)``, or ``KEY_jpeg`` (all JPEG bytes in a row) with ``KEY_offsets`` (N + 1);
``KEY_labels`` class indices.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from merging.errors import TaskError, unknown
from merging.task import Split


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


def load_npz(source: str, resize: Resize | None = None, *, always: bool = True) -> Split:
    """A split from ``file.npz:KEY``: uint8 images ``(N, H, W, 3)``, int64 labels.

    Args:
        source: file and key.
        resize: brings images to one size.
        always: or only those that differ in size.

    Raises:
        TaskError: no such file or key, images of different sizes and no ``resize``, or a damaged image (named by its
            number).
    """
    name, _, key = source.rpartition(":")
    path = Path(name).expanduser()
    if not name or not path.is_file():
        raise TaskError(f"no such data: '{source}'; write it as file.npz:KEY")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys = [entry.removesuffix("_labels") for entry in arrays.files if entry.endswith("_labels")]
            if key not in keys:
                raise TaskError(str(unknown(f"data set in {path}:", key, keys)))
            labels = arrays[f"{key}_labels"]
            if labels.ndim != 1 or labels.dtype.kind not in "iu":
                raise TaskError(
                    f"{source}: labels are {labels.dtype} of shape {list(labels.shape)}; "
                    "they must be class indices, integers of shape (N,)"
                )
            if f"{key}_images" in arrays:
                images = arrays[f"{key}_images"]
            else:
                images = _decode(arrays[f"{key}_jpeg"], arrays[f"{key}_offsets"], source, resize)
    except TaskError:
        raise
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = f"{type(error).__name__}: {error}"
        raise TaskError(f"{source}: not image data in the documented layout ({reason})") from None
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise TaskError(
            f"{source}: images are {images.dtype} of shape {list(images.shape)}; they must be uint8 (N, H, W, 3)"
        )
    pixels = torch.from_numpy(images)
    if resize is not None and always and len(pixels):
        pixels = resize(pixels)
    return Split.of(pixels, torch.from_numpy(labels.astype(np.int64)))


def _decode(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], source: str, resize: Resize | None
) -> NDArray[np.uint8]:
    images: list[NDArray[np.uint8]] = []
    for number, (begin, end) in enumerate(itertools.pairwise(offsets)):
        try:
            images.append(np.asarray(Image.open(io.BytesIO(data[begin:end].tobytes())).convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise TaskError(f"{source}: image {number} is damaged ({error})") from None
    if len({image.shape for image in images}) > 1:
        if resize is None:
            raise TaskError(f"{source}: images differ in size; store them in one size, or give the [task] a size")
        images = [resize(torch.from_numpy(image.copy())[None])[0].numpy() for image in images]
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)


class Normalise:
    """uint8 ``(N, H, W, 3)`` → float32 ``(N, 3, H, W)``, ``(x / 255 − mean) / std`` per channel, on the device."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        deviation = torch.tensor(std, dtype=torch.float64)
        self.scale = (1 / (255 * deviation)).float()
        self.shift = (-torch.tensor(mean, dtype=torch.float64) / deviation).float()
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch, in two passes over it; the result lies in memory as the images do (channels last)."""
        n, height, width, _ = images.shape
        place = (width, images.device)
        if place not in self._rows:  # whole rows, so that the inner loops are long
            self._rows[place] = tuple(t.repeat(width).to(images.device) for t in (self.scale, self.shift))  # type: ignore[assignment]
        scale, shift = self._rows[place]
        rows = images.reshape(n * height, width * 3).to(torch.float32)
        return rows.mul_(scale).add_(shift).view(n, height, width, 3).permute(0, 3, 1, 2)
