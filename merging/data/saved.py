"""Folders written by Hugging Face's ``Dataset.save_to_disk``: columns of images, texts and labels, found by type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from merging.data.cache import content_of
from merging.data.columns import present, texts_in
from merging.data.pictures import Picture
from merging.errors import DAMAGED, TaskError, raised, unknown
from merging.models.extras import needed
from merging.models.offline import offline
from merging.values.labels import Written, read

ONE, SEVERAL = "state.json", "dataset_dict.json"
"""The file that marks a data set's folder, and a folder of splits."""


def is_saved(path: Path) -> bool:
    """Tells whether ``save_to_disk`` wrote this folder."""
    return (path / ONE).is_file() or (path / SEVERAL).is_file()


def names_saved(path: str) -> bool:
    """Whether a user's path is such a folder, or ``folder:split``."""
    return is_saved(Path(path).expanduser()) or (":" in path and is_saved(Path(path.rpartition(":")[0]).expanduser()))


class Saved:
    """A data set that the library ``datasets`` has saved on disk.

    Args:
        spec: its folder, or ``folder:split`` where there are several.
        kind: kind of its samples, ``image`` or ``text``.
        columns: columns that hold them, one, or two for pairs of texts; none: the one is found by its type.
        label: name of a column; None: found by its type.
        labelled: whether a label is needed.
        group: name of the column of groups; None: there is none.
        say: told what is to be known of the labels.

    Attributes:
        names: names of the classes, where the data set says them.
        labels: labels of the samples, as they are written; empty where none is needed.
        groups: groups of the samples, where a column was named.

    Raises:
        TaskError: ``datasets`` is not installed, no such split or column, or a damaged folder.
    """

    def __init__(
        self,
        spec: str,
        kind: Literal["image", "text"],
        columns: Sequence[str],
        label: str | None,
        *,
        labelled: bool,
        group: str | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.where, self.kind = spec, kind
        self._folder = _folder(spec)
        datasets = needed("datasets", f"{spec} needs the package datasets", "data")
        try:
            with offline():
                data = datasets.load_from_disk(str(self._folder))
        except Exception as error:  # whatever a damaged folder provokes
            raise TaskError(f"{self._folder}: not a data set on disk ({raised(error, whole=True)})") from None
        self.names: tuple[str, ...] | None = None
        self.labels: list[Written] = []
        found = _columns(data, "label", lambda feature: isinstance(feature, datasets.ClassLabel))
        if labelled:
            label = self._one(data, "label", label, found)
            feature = data.features[label]
            if isinstance(feature, datasets.ClassLabel):
                self.names = tuple(feature.names)
            self.labels = read(
                list(data[label]),
                lambda number: f"{spec}: row {number} of '{label}'",
                lambda text: say(f"{spec}: {text}"),
            )
        self.groups = list(data[self._one(data, "group", group, ())]) if group is not None else None
        fits = _is_text if kind == "text" else lambda feature: isinstance(feature, datasets.Image)
        found = [name for name in _columns(data, kind, fits) if name not in {label, *found}]
        self._columns = [self._one(data, kind, name, found) for name in columns or (None,)]
        for name in self._columns if kind == "image" else ():
            mode = getattr(data.features[name], "mode", None)
            if mode not in (None, "RGB"):
                say(f"{spec}: the images are declared as {mode}; they are read in RGB, as they are stored")
        data = data.select_columns(self._columns)
        self._data = data if kind == "text" else data.cast_column(self._columns[0], datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._data)

    @property
    def decided(self) -> Any:
        """Gives what decides the content: a digest of each file, and the columns; JSON-ready."""
        return [[content_of(file) for file in sorted(self._folder.glob("*.arrow"))], *self._columns]

    def pictures(self) -> Iterator[Picture]:
        """Gives the images of the data set, in order."""
        for number, row in enumerate(self._data):
            value = row[self._columns[0]] or {}
            content = value.get("bytes") or Path(value.get("path") or "")
            yield Picture(f"row {number}", content)

    def texts(self) -> list[list[str]]:
        """Gives the columns of texts, each with a text for every sample.

        Raises:
            TaskError: a row without a text.
        """
        return [texts_in(self.where, name, list(self._data[name]), first=0) for name in self._columns]

    def _one(self, data: Any, kind: str, wanted: str | None, found: Sequence[str]) -> str:
        if wanted is not None:
            return present(self.where, wanted, data.features)
        if len(found) != 1:
            what = (
                f"there are several ({', '.join(found)})"
                if found
                else f"there is none among {', '.join(data.features)}"
            )
            pairs = ", or ['…', '…'] for pairs" if kind == "text" else ""
            raise TaskError(f"{self.where}: which column holds the {kind}? {what}; say {kind} = '…'{pairs}")
        return found[0]


def plain_rows(spec: str) -> tuple[list[dict[str, Any]], list[Path]]:
    """The rows of a saved data set, column → value, and the files that hold them.

    Args:
        spec: its folder, or ``folder:split`` where there are several.

    Raises:
        TaskError: ``datasets`` is not installed, no such split, no rows, or a damaged folder.
    """
    folder = _folder(spec)
    datasets = needed("datasets", f"{spec} needs the package datasets", "data")
    try:
        with offline():
            # As they are stored: decoded, a picture whose path is an address would be fetched.
            rows = datasets.load_from_disk(str(folder)).with_format("arrow")[:].to_pylist()
    except Exception as error:  # whatever a damaged folder provokes
        raise TaskError(f"{folder}: not a data set on disk ({raised(error, whole=True)})") from None
    if not rows:
        raise TaskError(f"{spec} has no rows")
    return rows, sorted(folder.glob("*.arrow"))


def _columns(data: Any, kind: str, fits: Callable[[Any], bool]) -> list[str]:
    """The columns that may be meant: of the right type, and if that is not one, called so."""
    found = [name for name, feature in data.features.items() if fits(feature)]
    called = [name for name in found or data.features if name in (kind, f"{kind}s")]
    return found if len(found) == 1 or not called else called


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


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
        splits = list(json.loads((path / SEVERAL).read_text("utf-8-sig"))["splits"])
    except DAMAGED:
        raise TaskError(f"{path / SEVERAL} is damaged") from None
    if not split:
        raise TaskError(f"{path} holds several splits ({', '.join(splits)}); name one: {path}:{splits[0]}")
    if split not in splits:
        raise unknown(f"split in {path}:", split, splits, error=TaskError)
    return path / split
