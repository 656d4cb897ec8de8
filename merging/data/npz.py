"""Image data from ``.npz`` files: raw images or JPEG bytes, with labels. No pickles are read.

Layout: ``KEY_images`` uint8 ``(N, H, W, 3)``, or ``KEY_jpeg`` (all JPEG bytes in a row) with ``KEY_offsets`` (N + 1);
``KEY_labels`` class indices.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from merging.data.cache import cached
from merging.data.damage import Damage, Losses, Tolerance
from merging.data.decoding import VERSION, UnfitPicture, counted, rgb, size_of
from merging.data.images import Preparation, prepared, say_size
from merging.data.labels import indices
from merging.errors import TaskError, raised, unknown
from merging.machine import cores
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split


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
    path, key = divided(source)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys = [entry.removesuffix("_labels") for entry in arrays.files if entry.endswith("_labels")]
            if key not in keys:
                raise TaskError(str(unknown(f"data set in {path}:", key, keys)))
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
                rest = np.setdiff1d(np.arange(len(images)), [damage.number for damage in damaged])
                if damaged and len(images) == len(labels):
                    return images[rest], labels[rest], damaged
                return images, labels, damaged

            decided = {"key": key, "transform": how.transform.key, "arrays": how.arrays}
            decided |= {"decoding": VERSION, "upright": upright}
            return cached(path, decided, make, Tolerance(source, how.corrupt, progress))
    except TaskError:
        raise
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = raised(error, whole=True)
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
            if f"{key}_labels" not in arrays:
                return names, ()  # loading says what is wrong
            return names, tuple(np.unique(indices(arrays[f"{key}_labels"], source)).tolist())
    except TaskError:
        raise
    except Exception as error:  # damaged archives raise whatever their bytes provoke
        reason = raised(error, whole=True)
        raise TaskError(f"{source}: not image data in the documented layout ({reason})") from None


def groups_of(source: str, name: str, samples: int) -> list[str]:
    """The groups of the samples of ``file.npz:KEY``, which the array ``KEY_name`` holds: one name or number each.

    Raises:
        TaskError: there is no such array, or it does not go with the samples that were loaded.
    """
    path, key = divided(source)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if f"{key}_{name}" not in arrays:
            raise TaskError(str(unknown(f"array in {path}:", f"{key}_{name}", arrays.files)))
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
        """All images, prepared; several at a time, as Pillow and torch let other threads run.

        Also those that are damaged, whose rows hold anything.
        """
        count = len(self.offsets) - 1
        if count < 1:
            return np.zeros((0, 1, 1, 3), np.uint8), Losses()
        sizes = {size for number in range(count) if (size := self._size(number, upright))}  # headers only
        width, height = next(iter(sizes), (8, 8))
        transform = how.transform if len(sizes) > 1 else how.of_arrays((height, width))
        if len(sizes) > 1 and how.transform.sides is None:
            raise TaskError(f"{self.source}: images differ in size; store them in one size, or give the [task] a size")
        example = Image.new("RGB", (width, height))
        first = np.array(example) if transform is None else transform(example)
        say_size(self.source, count, first.shape, how.transform, progress)
        images = np.empty((count, *first.shape), first.dtype)

        def one(number: int) -> Damage | frozenset[str]:
            try:
                image, changes = rgb(self._bytes(number), upright=upright)
            except UnfitPicture as error:
                raise TaskError(f"{self.source}: image {number}: {error}") from None
            except (OSError, ValueError, SyntaxError) as error:
                return Damage(number, f"image {number}", " ".join(str(error).split()).partition(" <_io")[0])
            images[number] = np.array(image) if transform is None else transform(image)
            return changes

        progress.stage(f"decoding {self.source}", count)
        found: list[Damage | frozenset[str]] = []
        with ThreadPoolExecutor(cores()) as workers:
            for each in workers.map(one, range(count)):
                found.append(each)
                progress.advance()
        changes = counted(each for each in found if not isinstance(each, Damage))
        return images, Losses((each for each in found if isinstance(each, Damage)), changes)

    def _size(self, number: int, upright: bool) -> tuple[int, int] | None:
        try:
            return size_of(self._bytes(number), upright=upright)
        except (OSError, ValueError, SyntaxError):
            return None  # decoding counts and names it

    def _bytes(self, number: int) -> bytes:
        begin, end = self.offsets[number : number + 2]
        return self.data[begin:end].tobytes()
