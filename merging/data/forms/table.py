"""A table of image paths and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import PICTURES, DataForm
from merging.errors import TaskError, near_path
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader
    from merging.values.labels import Written


@forms.register("table")
@dataclass(frozen=True)
class Table(DataForm):
    """A table with a row a sample: a column of paths (``path``, relative to the table), one of labels (``label``)."""

    summary: ClassVar[str] = "a .csv, .tsv or .jsonl with a column of image paths and one of labels"
    formula: ClassVar[str] = "sample i: the image that row i names, and its label; other columns may name groups"
    limits: ClassVar[str] = "An image that is missing is an error; numbers as labels may be names or count."
    paper: ClassVar[str] = "https://datatracker.ietf.org/doc/html/rfc4180, https://jsonlines.org"
    written: ClassVar[str] = "a .csv, .tsv or .jsonl of paths and labels"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
    keys: ClassVar[tuple[str, ...]] = (*PICTURES, "image", "label", "group")
    rank: ClassVar[int] = 2

    def open(self, reader: Reader) -> Opened:
        """Reads the table's labels and paths, and leaves the images for later."""
        from merging.data import tables
        from merging.data.folders import states
        from merging.data.pictures import paths

        file = Path(reader.path).expanduser()
        rows, root = tables.rows(file), file.parent
        files = [_file(root, str(entry)) for entry in tables.column(file, rows, reader.options.get("image", "path"))]
        labels: list[Written] = []
        if reader.labelled:
            column = tables.column(file, rows, reader.options.get("label", "label"))
            labels = tables.labels(file, column, reader.progress.say)
        try:
            decided = states(files)
        except TaskError:
            row = next((number for number, image in enumerate(files, 1) if not image.exists()), 1)
            gone = files[row - 1]
            raise TaskError(f"{file}: row {row} names {gone}, and there is no such image{near_path(gone)}") from None
        groups = reader.groups(file, rows)
        return reader.images(labels, lambda: paths(files, root), decided, len(files), spelled=True, groups=groups)

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        from merging.data.examples import CLASSES, pixels, write_pictures
        from merging.storage import atomic

        names = write_pictures(folder / "pictures", pixels(9))
        rows = [f"pictures/{name},{CLASSES[number % 3]}" for number, name in enumerate(names)]
        atomic.write(folder / "set.csv", "\n".join(["path,label", *rows]) + "\n")
        return str(folder / "set.csv")


def _file(root: Path, entry: str) -> Path:
    """The file that a row of a table names; with Windows' separators, where it was written there."""
    file = root / entry
    return root / entry.replace("\\", "/") if "\\" in entry and not file.exists() else file
