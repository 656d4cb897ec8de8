"""Folders written by Hugging Face's ``Dataset.save_to_disk``: image and label columns are found by their types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from merging.errors import TaskError, unknown
from merging.tasks.cache import content_of
from merging.tasks.classes import Written
from merging.tasks.pictures import Picture

ONE, SEVERAL = "state.json", "dataset_dict.json"
"""The file that marks a data set's folder, and a folder of splits."""


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (path / ONE).is_file() or (path / SEVERAL).is_file()


class Saved:
    """A data set on disk.

    Args:
        spec: its folder, or ``folder:split`` where there are several.
        image, label: names of columns; None: found by their types.
        labelled: whether a label is needed.

    Attributes:
        names: of the classes, where the data set says them.
        labels: of the samples, as they are written; empty where none is needed.
        decided: what decides the content.

    Raises:
        TaskError: ``datasets`` is not installed, no such split or column, or a damaged folder.
    """

    def __init__(self, spec: str, image: str | None, label: str | None, *, labelled: bool) -> None:
        self.where = spec
        folder = _folder(spec)
        try:
            import datasets
        except ImportError:
            raise TaskError(
                f"{spec} needs the package datasets; install it with: pip install 'merging[data]'"
            ) from None
        try:
            data = datasets.load_from_disk(str(folder))
        except Exception as error:  # whatever a damaged folder provokes
            raise TaskError(f"{folder}: not a data set on disk ({type(error).__name__}: {error})") from None
        image = self._column(data, image, "image", lambda kind: isinstance(kind, datasets.Image))
        self.names: tuple[str, ...] | None = None
        self.labels: list[Written] = []
        if labelled:
            label = self._column(data, label, "label", lambda kind: isinstance(kind, datasets.ClassLabel))
            kind = data.features[label]
            if isinstance(kind, datasets.ClassLabel):
                self.names = tuple(kind.names)
            self.labels = list(data[label])
            for number, value in enumerate(self.labels):
                if not isinstance(value, int | str) or isinstance(value, bool):
                    raise TaskError(
                        f"{spec}: row {number} has the label {value!r} in '{label}'; names or whole numbers"
                    )
        self._data = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._image = image
        self.decided = [[content_of(file) for file in sorted(folder.glob("*.arrow"))], image]

    def __len__(self) -> int:
        return len(self._data)

    def pictures(self) -> Iterator[Picture]:
        """Its images, in order."""
        for number, row in enumerate(self._data):
            value = row[self._image] or {}
            content = value.get("bytes") or Path(value.get("path") or "")
            yield Picture(f"row {number}", content)

    def _column(self, data: Any, wanted: str | None, kind: str, fits: Callable[[Any], bool]) -> str:
        if wanted is not None:
            if wanted not in data.features:
                raise TaskError(str(unknown(f"column in {self.where}:", wanted, data.features)))
            return wanted
        found = [name for name, feature in data.features.items() if fits(feature)]
        found = found or [name for name in (kind, f"{kind}s") if name in data.features]
        if len(found) != 1:
            what = f"several ({', '.join(found)})" if found else f"none among {', '.join(data.features)}"
            raise TaskError(f"{self.where}: which column holds the {kind}? there is {what}; say {kind} = '…'")
        return str(found[0])


def _folder(spec: str) -> Path:
    """The folder of one data set.

    Raises:
        TaskError: there are several splits, and none or an unknown one is named.
    """
    path, split = Path(spec), ""
    if not path.is_dir():
        before, _, split = spec.rpartition(":")
        path = Path(before)
    if not (path / SEVERAL).is_file():
        if split:
            raise TaskError(f"{path} holds one data set, without splits; leave ':{split}' out")
        return path
    try:
        splits = list(json.loads((path / SEVERAL).read_text())["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        raise TaskError(f"{path / SEVERAL} is damaged") from None
    if not split:
        raise TaskError(f"{path} holds several splits ({', '.join(splits)}); name one: {path}:{splits[0]}")
    if split not in splits:
        raise TaskError(str(unknown(f"split in {path}:", split, splits)))
    return path / split
