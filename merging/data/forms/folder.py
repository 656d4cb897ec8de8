"""A folder of class folders."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import PICTURES, DataForm
from merging.errors import TaskError
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader
    from merging.values.labels import Written


@forms.register("folder")
@dataclass(frozen=True)
class Folder(DataForm):
    """A folder for each class, with its images, at any depth; without labels, any folder of images."""

    summary: ClassVar[str] = "a folder of class folders with images"
    formula: ClassVar[str] = "label of FOLDER/cat/1.jpg: cat; classes are counted in the order of their folders' names"
    limits: ClassVar[str] = "Files that are no images are counted and left out; an empty class folder is an error."
    paper: ClassVar[str] = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"
    written: ClassVar[str] = "a folder of class folders"
    keys: ClassVar[tuple[str, ...]] = PICTURES
    rank: ClassVar[int] = 0

    def reads(self, path: str) -> bool:
        """Whether the path is a folder; other forms, which rank higher, have looked before."""
        return Path(path).expanduser().is_dir()

    def open(self, reader: Reader) -> Opened:
        """Lists the folder's images, and their class folders as labels; nothing is decoded yet.

        Raises:
            TaskError: the folder holds no images, or, where all its classes count, one of them has none.
        """
        from merging.data.classes import ALL
        from merging.data.folders import left_out, states, tree, walked
        from merging.data.pictures import paths

        folder = Path(reader.path).expanduser()
        if not reader.labelled:
            others, loops = Counter[str](), list[Path]()
            files = walked(folder, others, loops)
            if not files:
                raise TaskError(f"{folder} holds no images")
            reader.say(left_out(str(folder), others, loops))
            return reader.images([], lambda: paths(files, folder), states(files), len(files))
        found = tree(folder)
        if not found.classes:
            there = "only images" if found.beside else "nothing"
            raise TaskError(f"{folder} holds {there}, and no class folders with images; make a folder for each class")
        reader.say(found.remarks())
        if not found.images:
            raise TaskError(f"{folder} holds no images in folders of known classes")
        if reader.options.get("classes") in (None, ALL):
            found.check_empty()
        files = [file for file, _ in found.images]
        labels: list[Written] = [found.classes[label] for _, label in found.images]
        return reader.images(labels, lambda: paths(files, folder), states(files), len(files), names=found.classes)

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        from merging.data.examples import CLASSES, pixels, write_pictures

        for seed, name in enumerate(CLASSES):
            write_pictures(folder / "set" / name, pixels(3, seed=seed))
        return str(folder / "set")
