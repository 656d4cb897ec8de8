"""Image folders: a folder for each class, as torchvision's ``ImageFolder`` reads them; decoded once, kept on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from merging.data.damage import CORRUPT
from merging.data.images import Preparation
from merging.data.pictures import load_pictures, paths
from merging.errors import TaskError, near_path, refused
from merging.models.transform import Transform
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split
from merging.values.wording import some

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes that images have: torchvision's ``IMG_EXTENSIONS``."""
NAMED = 5
"""Suffixes and classes that a message names."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The contents of a folder of class folders.

    Attributes:
        folder: the folder of class folders.
        classes: names of the folders in it, sorted: hidden ones too.
        images: (file, label) pairs, sorted by class, folder and name.
        empty: classes without an image.
        others: files in the class folders that are no images by their suffix → how many.
        beside: images that are in no class folder.
        loops: links that lead back to a folder above them, and are not followed.
    """

    folder: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]
    empty: tuple[str, ...]
    others: Mapping[str, int]
    beside: int
    loops: tuple[Path, ...]

    def check_empty(self) -> None:
        """Refuses classes without an image, as ``ImageFolder`` does.

        Raises:
            TaskError: there are some.
        """
        if self.empty:
            raise TaskError(
                f"{self.folder}: no images of {some(self.empty, NAMED)} ({', '.join(SUFFIXES)}), which ImageFolder "
                "refuses; convert their files, remove the folders, or say in the set's table which classes count: "
                "classes = 'own', or a list"
            )

    def remarks(self) -> list[str]:
        """A line for each thing that is left out, or is a class and may not be meant as one."""
        said = left_out(str(self.folder), self.others, self.loops)
        if self.beside:
            images = "1 image that lies" if self.beside == 1 else f"{self.beside:,} images that lie"
            said.append(f"{self.folder}: {images} in no class folder left out")
        odd = [name for name in self.classes if name.startswith(".") or name == "__MACOSX"]
        if odd:
            count = "counts as a class" if len(odd) == 1 else "count as classes"
            said.append(
                f"warning: {self.folder}: {some(odd, NAMED)} {count}, as ImageFolder has it, which moves the labels "
                "after it; remove it where that is not meant"
            )
        return said


def tree(folder: Path, labels: Mapping[str, int] | None = None) -> Tree:
    """Lists a folder of class folders as torchvision's ``ImageFolder`` does: links are followed, suffixes decide.

    Args:
        folder: holds a folder for each class.
        labels: class folder → label; others are left out. None: their rank by name.

    Raises:
        TaskError: no such folder.
    """
    classes = class_folders(folder)
    known = labels if labels is not None else {name: rank for rank, name in enumerate(classes)}
    images: list[tuple[Path, int]] = []
    empty: list[str] = []
    others, loops = Counter[str](), list[Path]()
    for name in classes:
        if name in known:
            own = walked(folder / name, others, loops)
            images += [(file, known[name]) for file in own]
            empty += [] if own else [name]
    beside = sum(entry.is_file() and entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(folder))
    return Tree(
        folder=folder,
        classes=tuple(classes),
        images=tuple(images),
        empty=tuple(empty),
        others=others,
        beside=beside,
        loops=tuple(loops),
    )


def listed(folder: Path, labels: Mapping[str, int] | None = None) -> list[tuple[Path, int]]:
    """The images of a folder of class folders, sorted by class and name (arguments as for :func:`tree`).

    Raises:
        TaskError: no such folder, or no images in it; without ``labels`` also a class without an image.
    """
    found = tree(folder, labels)
    if not found.images:
        wanted = f", such as {next(iter(labels))}" if labels else ""
        raise TaskError(f"{folder} holds no images in folders of known classes{wanted}")
    if labels is None:
        found.check_empty()
    return list(found.images)


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones too, as ``ImageFolder`` has it.

    Raises:
        TaskError: no such folder.
    """
    if not folder.is_dir():
        raise TaskError(f"no such folder of images: {folder}{near_path(folder)}")
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def walked(folder: Path, others: Counter[str] | None = None, loops: list[Path] | None = None) -> list[Path]:
    """Every image file in a folder and the folders in it, sorted by folder, then by name; links are followed.

    Args:
        folder: the folder to begin in.
        others: counts the files of other kinds by their suffix; filled.
        loops: links that lead back to a folder above them; filled.

    Raises:
        TaskError: a folder that cannot be read.
    """
    places: list[tuple[str, list[str]]] = []
    above = {os.fspath(folder): frozenset[str]()}  # folder → what it lies in, whichever links led there
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        here = above.pop(place) | {os.path.realpath(place)}
        for name in sorted(folders):
            path = os.path.join(place, name)
            if _leads_back(path, here):
                folders.remove(name)
                if loops is not None:
                    loops.append(Path(path))
            else:
                above[path] = here
        places.append((place, files))
    found: list[Path] = []
    for place, files in sorted(places):
        for file in sorted(files):
            if file.lower().endswith(SUFFIXES):
                found.append(Path(place, file))
            elif others is not None:
                others[Path(file).suffix.lower() or (file if file.startswith(".") else "no suffix")] += 1
    return found


def left_out(where: str, others: Mapping[str, int], loops: Sequence[Path] = ()) -> list[str]:
    """Says which files are no images by their suffix, and which links are not followed.

    >>> left_out("photos", {".jfif": 250})
    ['photos: 250 files of other kinds (.jfif) left out']
    """
    said = []
    if others:
        total, common = sum(others.values()), sorted(others.items(), key=lambda each: (-each[1], each[0]))
        kinds = [suffix if len(common) == 1 else f"{count:,} {suffix}" for suffix, count in common[:NAMED]]
        kinds += ["…"] if len(common) > NAMED else []
        files = "1 file of another kind" if total == 1 else f"{total:,} files of other kinds"
        said.append(f"{where}: {files} ({', '.join(kinds)}) left out")
    return said + [f"{where}: the link {link} leads back to a folder above it and is not followed" for link in loops]


def _refuse(error: OSError) -> None:
    """Ends the walk at a folder that cannot be read, which would be left out without a word."""
    raise TaskError(f"{error.filename}: {refused(error)}")


def _leads_back(path: str, above: Set[str]) -> bool:
    """Whether a folder is a link to one that was passed on the way to it, or that holds such a one."""
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return any(each == target or each.startswith(target.rstrip(os.sep) + os.sep) for each in above)


def states(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Gives place, size and time of change of many files, whose content would take too long to read.

    Raises:
        TaskError: one is not there.
    """
    try:
        return [(str(path.resolve()), (found := path.stat()).st_size, found.st_mtime_ns) for path in files]
    except OSError as error:
        raise TaskError(f"no such image: {error.filename} ({refused(error)})") from None


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
        transform: what prepares each image.
        border: pixels that are cut off on each side first.
        classes: classes of the split, see :class:`merging.plugins.task.Split`.
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
