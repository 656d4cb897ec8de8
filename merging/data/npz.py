"""Image data from ``.npz`` files: raw images or JPEG bytes, with labels. No pickles are read.

Layout: ``KEY_images`` uint8 ``(N, H, W, 3)``, or ``KEY_jpeg`` (all JPEG bytes in a row) with ``KEY_offsets`` (N + 1);
``KEY_labels`` class indices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from merging.data.cache import cached
from merging.data.damage import Losses, Tolerance, undamaged
from merging.data.decoding import VERSION
from merging.data.images import Preparation, prepared, say_size
from merging.data.pictures import Picture, decode, differ, sizes_of
from merging.errors import TaskError, near_path, raised, unknown
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split
from merging.values.labels import indices


def load_npz(
    source: str, how: Preparation | None = None, *, progress: Progress | None = None, upright: bool = False
) -> Split:
    """A split from ``file.npz:KEY``: uint8 images ``(N, H, W, 3)`` (or floats, as the model takes them), int64 labels.

    JPEGs are decoded, and images prepared, on all cores and once: the result stays on disk (:mod:`merging.data.cache`).

    Args:
        source: file and key.
        how: images are prepared; those of one size stay as they are unless ``how.arrays``. Damaged ones are named by
            their numbers and left out. Default: as they are stored.
        progress: told how far decoding is, and what was left out or changed.
        upright: encoded images are turned as their EXIF orientation says.

    Raises:
        TaskError: no such file or key, images of different sizes and no transform that gives one, or too many damaged
            images.
    """
    how, progress = how or Preparation(), progress or Silent()
    with _opened(source) as (path, key, arrays):
        keys = [entry.removesuffix("_labels") for entry in arrays.files if entry.endswith("_labels")]
        if key not in keys:
            raise unknown(f"data set in {path}:", key, keys, error=TaskError)
        labels = indices(arrays[f"{key}_labels"], source, progress.say)
        pixels: NDArray[np.uint8] | None = None
        if f"{key}_images" in arrays:
            pixels = _checked(arrays[f"{key}_images"], source)
            transform = how.of_arrays((pixels.shape[1], pixels.shape[2]))
            if transform is None:
                return Split.of(torch.from_numpy(pixels), torch.from_numpy(labels))

        def make() -> tuple[NDArray[Any], NDArray[np.int64], Losses]:
            if pixels is not None and transform is not None:
                return prepared(pixels, transform, source, progress), labels, Losses()
            jpegs = _Jpegs(arrays[f"{key}_jpeg"], arrays[f"{key}_offsets"], source)
            images, damaged = jpegs.decode(how, progress, upright=upright)
            if damaged and len(images) == len(labels):
                rest = undamaged(len(images), damaged)
                return images[rest], labels[rest], damaged
            return images, labels, damaged

        decided = {"key": key, "transform": how.transform.key, "arrays": how.arrays}
        decided |= {"decoding": VERSION, "upright": upright}
        return cached(path, decided, make, Tolerance(source, how.corrupt, progress))


def divided(source: str) -> tuple[Path, str]:
    """Divides ``file.npz:KEY`` into file and key.

    Raises:
        TaskError: there is no such file.
    """
    name, _, key = source.rpartition(":")
    path = Path(name).expanduser()
    if not name or not path.is_file():
        raise TaskError(f"no such data: '{source}'" + (near_path(path) or "; write it as file.npz:KEY"))
    return path, key


@contextlib.contextmanager
def _opened(source: str) -> Iterator[tuple[Path, str, Any]]:
    """File and key of ``file.npz:KEY``, and the arrays in the file while it is open.

    Raises:
        TaskError: no such file, or what is read from it is damaged or has another layout.
    """
    path, key = divided(source)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield path, key, arrays
    except TaskError:
        raise
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = raised(error, whole=True)
        raise TaskError(f"{source}: not image data in the documented layout ({reason})") from None


def names_and_labels(source: str) -> tuple[tuple[str, ...] | None, tuple[int, ...]]:
    """Reads names of the classes of ``file.npz:KEY``, where the file has ``classes``, and the labels that occur.

    Raises:
        TaskError: no such file, or another layout.
    """
    with _opened(source) as (_, key, arrays):
        names = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
        if f"{key}_labels" not in arrays:
            return names, ()  # loading says what is wrong
        return names, tuple(np.unique(indices(arrays[f"{key}_labels"], source)).tolist())


def groups_of(source: str, name: str, samples: int) -> list[str]:
    """The groups of the samples of ``file.npz:KEY``, which the array ``KEY_name`` holds: one name or number each.

    Raises:
        TaskError: there is no such array, or it does not go with the samples that were loaded.
    """
    with _opened(source) as (path, key, arrays):
        if f"{key}_{name}" not in arrays:
            raise unknown(f"array in {path}:", f"{key}_{name}", arrays.files, error=TaskError)
        found = arrays[f"{key}_{name}"]
    if found.shape != (samples,):
        raise TaskError(f"{source}: '{key}_{name}' has shape {list(found.shape)}, for {samples} samples")
    return [str(value) for value in found.tolist()]


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

    def decode(self, how: Preparation, progress: Progress, *, upright: bool) -> tuple[NDArray[Any], Losses]:
        """All images, prepared, also those that are damaged, whose rows hold anything (:func:`pictures.decode`)."""
        count = len(self.offsets) - 1
        if count < 1:
            return np.zeros((0, 1, 1, 3), np.uint8), Losses()
        sizes = sizes_of(self._pictures(), upright=upright)
        width, height = next(iter(sizes), (8, 8))
        transform = how.transform if len(sizes) > 1 else how.of_arrays((height, width))
        if len(sizes) > 1 and how.transform.sides is None:
            raise differ(self.source)
        example = Image.new("RGB", (width, height))
        first = np.array(example) if transform is None else transform(example)
        say_size(self.source, count, first.shape, how.transform, progress)
        images = np.empty((count, *first.shape), first.dtype)
        progress.stage(f"decoding {self.source}", count)
        one = np.array if transform is None else transform
        return images, decode(self.source, self._pictures(), one, images, progress, upright=upright)

    def _pictures(self) -> Iterator[Picture]:
        for number, (begin, end) in enumerate(pairwise(self.offsets)):
            yield Picture(f"image {number}", self.data[begin:end].tobytes())
