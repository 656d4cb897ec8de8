"""Image folders: a folder for each class, decoded once on all cores and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from merging.errors import TaskError
from merging.interfaces import Progress
from merging.progress import Silent
from merging.task import Split
from merging.tasks.cache import Images, cached_images
from merging.tasks.npz import Resize

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")


def listed(folder: Path, labels: Mapping[str, int] | None = None) -> list[tuple[Path, int]]:
    """The images of a folder of class folders, sorted by class and name, as torchvision's ``ImageFolder`` sorts them.

    Args:
        folder: holds a folder for each class.
        labels: class folder → label; others are left out. None: their rank by name.

    Raises:
        TaskError: no such folder, or no images in it.
    """
    if not folder.is_dir():
        raise TaskError(f"no such folder of images: {folder}")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    known = labels if labels is not None else {name: rank for rank, name in enumerate(classes)}
    found: list[tuple[Path, int]] = []
    for name in classes:
        if name in known:
            for place, folders, files in os.walk(folder / name):
                folders.sort()
                found += [(Path(place, file), known[name]) for file in sorted(files) if file.lower().endswith(SUFFIXES)]
    if not found:
        wanted = f", such as {next(iter(known))}" if labels else ""
        raise TaskError(f"{folder} holds no images in folders of known classes{wanted}")
    return found


def load_images(
    images: Sequence[tuple[Path, int]],
    resize: Resize,
    *,
    border: int = 0,
    classes: Sequence[Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Split:
    """Decodes images with Pillow: shorter side to ``resize.resize``, the centre ``resize.size`` square, uint8.

    Args:
        images: (file, label) pairs.
        resize: size and interpolation.
        border: pixels that are cut off on each side first.
        classes: of the split, see :class:`merging.task.Split`.
        progress: told how far decoding is.

    Raises:
        TaskError: no images, or a damaged one (named).
    """
    if not images:
        raise TaskError("a set of images is empty")
    progress, side = progress or Silent(), resize.size
    states = [(str(path.resolve()), (found := path.stat()).st_size, found.st_mtime_ns) for path, _ in images]
    labels = np.array([label for _, label in images], dtype=np.int64)

    def fill(array: Images) -> None:
        progress.stage(f"decoding {images[0][0].parent.parent}", len(images))
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            for number, pixels in enumerate(workers.map(lambda pair: _decoded(pair[0], resize, border), images)):
                array[number] = pixels
                progress.advance()

    decided = [states, labels.tolist(), resize.size, resize.resize, resize.interpolation, border]
    return cached_images(decided, (len(images), side, side, 3), labels, fill).with_classes(classes)


def _decoded(path: Path, resize: Resize, border: int) -> Images:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise TaskError(f"{path}: a damaged image ({error}); replace or remove it") from None
    if border:
        image = image.crop((border, border, image.width - border, image.height - border))
    image = transforms.resize(image, [resize.resize], InterpolationMode(resize.interpolation))
    return np.asarray(transforms.center_crop(image, [resize.size, resize.size]))
