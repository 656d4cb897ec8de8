"""Image folders: a folder for each class, decoded once on all cores and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from merging.data.damage import CORRUPT
from merging.data.images import Preparation
from merging.data.pictures import load_pictures, paths
from merging.errors import TaskError
from merging.models.transform import Transform
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def listed(folder: Path, labels: Mapping[str, int] | None = None) -> list[tuple[Path, int]]:
    """The images of a folder of class folders, sorted by class and name, as torchvision's ``ImageFolder`` sorts them.

    Args:
        folder: holds a folder for each class.
        labels: class folder → label; others are left out. None: their rank by name.

    Raises:
        TaskError: no such folder, or no images in it.
    """
    classes = class_folders(folder)
    known = labels if labels is not None else {name: rank for rank, name in enumerate(classes)}
    found: list[tuple[Path, int]] = []
    for name in classes:
        if name in known:
            found += [(file, known[name]) for file in images_under(folder / name)]
    if not found:
        wanted = f", such as {next(iter(known))}" if labels else ""
        raise TaskError(f"{folder} holds no images in folders of known classes{wanted}")
    return found


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones are none.

    Raises:
        TaskError: no such folder.
    """
    if not folder.is_dir():
        raise TaskError(f"no such folder of images: {folder}")
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def images_under(folder: Path) -> list[Path]:
    """Every image file in a folder and the folders in it, sorted."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        found += [Path(place, file) for file in sorted(files) if file.lower().endswith(SUFFIXES)]
    return found


def states(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What decides the content of many files: place, size and time of change; reading them all would take too long.

    Raises:
        TaskError: one is not there.
    """
    try:
        return [(str(path.resolve()), (found := path.stat()).st_size, found.st_mtime_ns) for path in files]
    except OSError as error:
        raise TaskError(f"no such image: {error.filename} ({error.strerror})") from None


def load_images(
    images: Sequence[tuple[Path, int]],
    transform: Transform,
    *,
    border: int = 0,
    classes: Sequence[Sequence[int]] | None = None,
    corrupt: float = CORRUPT,
    progress: Progress | None = None,
) -> Split:
    """Decodes images and prepares them as a model's library does, see :func:`merging.data.pictures.load_pictures`.

    Args:
        images: (file, label) pairs.
        transform: of each image.
        border: pixels that are cut off on each side first.
        classes: of the split, see :class:`merging.plugins.task.Split`.
        corrupt: share of the images that may be damaged; they are named and left out.
        progress: told how far decoding is.

    Raises:
        TaskError: no images, or too many damaged ones (named).
    """
    if not images:
        raise TaskError("a set of images is empty")
    files, root = [path for path, _ in images], images[0][0].parent.parent
    labels = np.array([label for _, label in images], dtype=np.int64)
    how = Preparation(transform, corrupt=corrupt, border=border)
    split = load_pictures(str(root), lambda: paths(files, root), labels, states(files), how, progress or Silent())
    return split.with_classes(classes)
