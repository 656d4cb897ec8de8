"""Image data from ``.npz`` files: raw images or JPEG bytes, with labels. No pickles are read.

Layout: ``KEY_images`` uint8 ``(N, H, W, 3)``, or ``KEY_jpeg`` (all JPEG bytes in a row) with ``KEY_offsets`` (N + 1);
``KEY_labels`` class indices.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from merging.data.cache import cached
from merging.data.damage import Damage, Tolerance
from merging.data.images import Preparation, prepared, say_size
from merging.errors import TaskError, unknown
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split


def load_npz(source: str, how: Preparation | None = None, *, progress: Progress | None = None) -> Split:
    """A split from ``file.npz:KEY``: uint8 images ``(N, H, W, 3)`` (or floats, as the model takes them), int64 labels.

    JPEGs are decoded, and images prepared, on all cores and once: the result stays on disk (:mod:`merging.data.cache`).

    Args:
        source: file and key.
        how: images are prepared; those of one size stay as they are unless ``how.arrays``. Damaged ones are named by
            their numbers and left out. Default: as they are stored.
        progress: told how far decoding is.

    Raises:
        TaskError: no such file or key, images of different sizes and no transform that gives one, or too many damaged
            images.
    """
    how, progress = how or Preparation(), progress or Silent()
    path, key = divided(source)
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
            labels = labels.astype(np.int64)
            pixels: NDArray[np.uint8] | None = None
            if f"{key}_images" in arrays:
                pixels = _checked(arrays[f"{key}_images"], source)
                transform = how.of_arrays((pixels.shape[1], pixels.shape[2]))
                if transform is None:
                    return Split.of(torch.from_numpy(pixels), torch.from_numpy(labels))

            def make() -> tuple[NDArray[Any], NDArray[np.int64], list[Damage]]:
                if pixels is not None and transform is not None:
                    return prepared(pixels, transform, source, progress), labels, []
                jpegs = _Jpegs(arrays[f"{key}_jpeg"], arrays[f"{key}_offsets"], source)
                images, damaged = jpegs.decode(how, progress)
                rest = np.setdiff1d(np.arange(len(images)), [damage.number for damage in damaged])
                if damaged and len(images) == len(labels):
                    return images[rest], labels[rest], damaged
                return images, labels, damaged

            decided = {"key": key, "transform": how.transform.key, "arrays": how.arrays}
            return cached(path, decided, make, Tolerance(source, how.corrupt, progress))
    except TaskError:
        raise
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = f"{type(error).__name__}: {error}"
        raise TaskError(f"{source}: not image data in the documented layout ({reason})") from None


def divided(source: str) -> tuple[Path, str]:
    """File and key of ``file.npz:KEY``.

    Raises:
        TaskError: there is no such file.
    """
    name, _, key = source.rpartition(":")
    path = Path(name).expanduser()
    if not name or not path.is_file():
        raise TaskError(f"no such data: '{source}'; write it as file.npz:KEY")
    return path, key


def names_and_labels(source: str) -> tuple[tuple[str, ...] | None, tuple[int, ...]]:
    """What ``file.npz:KEY`` says of its classes: their names, where the file has ``classes``; labels that occur.

    Raises:
        TaskError: no such file, or another layout.
    """
    path, key = divided(source)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
            occurring = np.unique(arrays[f"{key}_labels"]) if f"{key}_labels" in arrays else np.zeros(0)
            if occurring.dtype.kind not in "iu":
                return names, ()  # loading says what is wrong
            return names, tuple(occurring.tolist())
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = f"{type(error).__name__}: {error}"
        raise TaskError(f"{source}: not image data in the documented layout ({reason})") from None


def _checked(images: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise TaskError(
            f"{source}: images are {images.dtype} of shape {list(images.shape)}; they must be uint8 (N, H, W, 3)"
        )
    return images


@dataclass(frozen=True)
class _Jpegs:
    """JPEG files in a row: image ``i`` is ``data[offsets[i] : offsets[i + 1]]``."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    source: str

    def decode(self, how: Preparation, progress: Progress) -> tuple[NDArray[Any], list[Damage]]:
        """All images, prepared; several at a time, as Pillow and torch let other threads run.

        Also those that are damaged, whose rows hold anything.
        """
        count = len(self.offsets) - 1
        if count < 1:
            return np.zeros((0, 1, 1, 3), np.uint8), []
        sizes = {size for number in range(count) if (size := self._size(number))}  # headers only
        width, height = next(iter(sizes), (8, 8))
        transform = how.transform if len(sizes) > 1 else how.of_arrays((height, width))
        if len(sizes) > 1 and how.transform.sides is None:
            raise TaskError(f"{self.source}: images differ in size; store them in one size, or give the [task] a size")
        example = Image.new("RGB", (width, height))
        first = np.array(example) if transform is None else transform(example)
        say_size(self.source, count, first.shape, how.transform, progress)
        images = np.empty((count, *first.shape), first.dtype)

        def one(number: int) -> Damage | None:
            try:
                with self._open(number) as opened:
                    image = opened.convert("RGB")
            except (OSError, ValueError, SyntaxError) as error:
                return Damage(number, f"image {number}", " ".join(str(error).split()).partition(" <_io")[0])
            images[number] = np.array(image) if transform is None else transform(image)
            return None

        progress.stage(f"decoding {self.source}", count)
        damaged: list[Damage] = []
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            for damage in workers.map(one, range(count)):
                damaged += [damage] if damage is not None else []
                progress.advance()
        return images, damaged

    def _size(self, number: int) -> tuple[int, int] | None:
        try:
            return self._open(number).size
        except (OSError, ValueError, SyntaxError):
            return None  # decoding counts and names it

    def _open(self, number: int) -> Image.Image:
        begin, end = self.offsets[number : number + 2]
        return Image.open(io.BytesIO(self.data[begin:end].tobytes()))
