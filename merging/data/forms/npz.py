"""Arrays of images or JPEG bytes, with labels: ``file.npz:KEY``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import COMMON, DataForm
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.classes import Labelling
    from merging.data.opened import Opened
    from merging.data.reader import Reader
    from merging.plugins.task import Split


@forms.register("npz")
@dataclass(frozen=True)
class Npz(DataForm):
    """An .npz of images, ``KEY_images`` uint8 (N, H, W, 3) or ``KEY_jpeg`` with ``KEY_offsets``, and ``KEY_labels``.

    It may have ``classes``, the names that labels count, too.

    Images of one size stay as they are stored, unless the task says a size or the model takes that one only.
    """

    summary: ClassVar[str] = "arrays in NumPy's .npz: decoded images, or JPEG bytes in a row"
    formula: ClassVar[str] = "image i: KEY_images[i], or the JPEG KEY_jpeg[KEY_offsets[i] : KEY_offsets[i + 1]]"
    limits: ClassVar[str] = "No pickles are read. A column of groups is an array KEY_NAME."
    paper: ClassVar[str] = "https://numpy.org/doc/stable/reference/generated/numpy.savez.html"
    written: ClassVar[str] = "file.npz:KEY"
    keys: ClassVar[tuple[str, ...]] = (*COMMON, "corrupt", "upright", "group")
    rank: ClassVar[int] = 1

    def reads(self, path: str) -> bool:
        """Whether the path is an .npz, with a key or without: what is missing is said when it is opened."""
        return ".npz:" in path or Path(path).suffix.lower() == ".npz"

    def open(self, reader: Reader) -> Opened:
        """Reads the labels and the classes' names, and leaves the images for later."""
        from merging.data.npz import groups_of, load_npz, names_and_labels

        names, written = names_and_labels(reader.path)
        turned = reader.upright(False)

        def decode(found: Labelling | None) -> Split:
            split = load_npz(reader.path, reader.how, progress=reader.progress, upright=turned)
            if "group" in reader.options:
                split = split.with_groups(groups_of(reader.path, reader.options["group"], len(split)))
            return reader.relabelled(split, found)

        return reader.opened(names, written, decode)

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        from merging.data.examples import CLASSES, numbers, pixels, write_npz

        write_npz(folder / "set.npz", {"x_images": pixels(9), "x_labels": numbers(9), "classes": list(CLASSES)})
        return f"{folder / 'set.npz'}:x"
