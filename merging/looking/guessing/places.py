"""Where sets of samples lie in a folder: class folders, tables, tar files, archives, saved data sets."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from merging.data.kinds import COLUMNS, kind_of
from merging.data.saved import SEVERAL, is_saved
from merging.data.tables import SUFFIXES as TABLES
from merging.data.tables import rows
from merging.errors import DAMAGED, MergingError, TaskError
from merging.looking.guessing.checkpoints import is_pictures
from merging.plugins.discovery import load_installed
from merging.plugins.registry import forms
from merging.storage.model_folder import COMPANIONS, is_model_folder
from merging.storage.sources import natural_key

Kind: TypeAlias = Literal["images", "texts", "language"]
"""Kinds of samples that models take."""
DEPTH = 5
IMAGE = ("path", "image", "image_path", "file", "filename", "file_name", "filepath", "file_path", "img", "img_path")
LABEL = ("label", "class", "target", "category", "class_name", "label_name", "y", "labels")
TEXT = (("text",), ("sentence",), ("review",), ("content",), ("premise", "hypothesis"), ("sentence1", "sentence2"))
"""Names of columns of images' paths, of labels, and of texts or pairs of them, the usual ones first."""


@dataclass(frozen=True)
class Place:
    """A set of samples, as merge.toml names it.

    Attributes:
        path: the path as a user writes it, ``file.npz:KEY`` for one.
        words: what it is called: parts of its path below the folder, the last one first.
        keys: what else its table says, such as ``label``.
    """

    path: str
    words: tuple[str, ...]
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str | dict[str, Any]:
        """Gives the path, or a table with it, as merge.toml has it."""
        return {"path": self.path, **self.keys} if self.keys else self.path


def places(folder: Path, *, texts: bool = False, language: bool = False) -> tuple[list[Place], dict[str, str]]:
    """Every set in a folder and the folders in it, in natural order.

    Args:
        folder: a folder, or one file or path that is a set by itself.
        texts: whether the model takes texts.
        language: whether it is a causal language model, which takes texts without labels.

    Returns:
        The sets, and path → why something that looks like one is none.
    """
    load_installed()
    refused: dict[str, str] = {}
    kind: Kind = "language" if language else "texts" if texts else "images"
    if not folder.is_dir():
        found = list(_in_file(folder, folder.parent, refused, kind)) if folder.is_file() else []
        return found or [Place(str(folder), (folder.name,))], refused
    return list(_below(folder, folder, refused, DEPTH, kind)), refused


def _below(folder: Path, root: Path, refused: dict[str, str], depth: int, kind: Kind) -> Iterator[Place]:
    words = tuple(reversed(folder.relative_to(root).parts)) or (folder.resolve().name,)
    if is_saved(folder):
        yield from _saved(folder, words)
        return
    if _own_form(str(folder)):
        yield Place(str(folder), words)
        return
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError:
        return
    below = [path for path in entries if path.is_dir() and not path.name.startswith((".", "__"))]
    classes = [] if kind != "images" else [path for path in below if is_pictures(path)]
    if len(classes) > 1 and 2 * len(classes) >= len(below):
        yield Place(str(folder), words)
        return
    files = [path for path in entries if path.is_file() and not path.name.startswith(".")]
    yield from _tars(files, root)
    for file in files:
        yield from _in_file(file, root, refused, kind)
    for path in below if depth else []:
        if not is_model_folder(path) and path not in classes:
            yield from _below(path, root, refused, depth - 1, kind)


def _in_file(file: Path, root: Path, refused: dict[str, str], kind: Kind) -> Iterator[Place]:
    """The sets in one file."""
    suffix = file.suffix.lower()
    around = tuple(reversed(file.parent.relative_to(root).parts))
    if suffix == ".npz" and kind == "images":
        for key in _keys(file):
            yield Place(f"{file}:{key}", (key, file.stem, *around))
    elif suffix in TABLES and file.name not in COMPANIONS and file.name != "summary.csv":
        yield from _table(file, (file.stem, *around), refused, kind)
    elif suffix in (".parquet", ".arrow"):
        if not _own_form(str(file)):
            refused[str(file)] = "no table that is read; datasets loads it, and save_to_disk writes a folder that is"
    elif _own_form(str(file)):
        yield Place(str(file), (file.stem, *around))


def _keys(file: Path) -> list[str]:
    """The sets of an ``.npz`` file: KEY of ``KEY_labels`` beside ``KEY_images`` or ``KEY_jpeg``."""
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = set(arrays.files)
    except Exception:  # NumPy raises whatever damaged bytes provoke
        return []
    keys = [name.removesuffix("_labels") for name in names if name.endswith("_labels")]
    return sorted((key for key in keys if {f"{key}_images", f"{key}_jpeg"} & names), key=natural_key)


def _table(file: Path, words: tuple[str, ...], refused: dict[str, str], kind: Kind) -> Iterator[Place]:
    try:
        found = rows(file)
    except (MergingError, *DAMAGED):  # some other JSON or CSV
        return
    columns = {str(name).lower(): str(name) for name in found[0]}
    if kind == "language":
        yield from _read_by_models(file, words, list(found[0]), refused)
        return
    label = next((columns[name] for name in LABEL if name in columns), None)
    if kind == "texts":
        text = next((names for names in TEXT if all(name in columns for name in names)), None)
        if text is not None and label is not None:
            own = [columns[name] for name in text]
            yield Place(str(file), words, _said(label=label) | ({} if own == ["text"] else {"text": own}))
        return
    image = next((columns[name] for name in IMAGE if name in columns), None)
    if image is None or label is None:
        return
    first = str(found[0][image])
    if not (file.parent / first).is_file() and not (file.parent / first.replace("\\", "/")).is_file():
        refused[str(file)] = f"its first row names {first}, and there is no such file beside the table"
        return
    yield Place(str(file), words, _said(label=label, image=image))


def _read_by_models(
    file: Path, words: tuple[str, ...], columns: Sequence[str], refused: dict[str, str]
) -> Iterator[Place]:
    """A table whose columns say what a language model is scored on, or one of texts under a usual name."""
    lists = {column: column for columns in COLUMNS.values() for column in columns}
    if any(name in columns for name in ("text", "prompt", "completion", "messages", "question")):
        try:
            kind_of(str(file), lists, columns)
        except TaskError as error:
            refused[str(file)] = str(error).removeprefix(f"{file} ").removeprefix(f"{file}: ")
        else:
            yield Place(str(file), words)
        return
    text = next((names[0] for names in TEXT if len(names) == 1 and names[0] in columns), None)
    if text is not None:
        yield Place(str(file), words, {"text": text})


def _said(*, label: str, image: str = "path") -> dict[str, Any]:
    """The columns that have another name than a table's own."""
    return ({"image": image} if image != "path" else {}) | ({"label": label} if label != "label" else {})


def _saved(folder: Path, words: tuple[str, ...]) -> Iterator[Place]:
    """The splits of a data set that ``save_to_disk`` has written."""
    if (folder / SEVERAL).is_file():
        splits = sorted(path.name for path in folder.iterdir() if is_saved(path))
        for split in splits:
            yield Place(f"{folder}:{split}", (split, *words))
    else:
        yield Place(str(folder), words)


def _tars(files: Sequence[Path], root: Path) -> Iterator[Place]:
    """Shards that are numbered in a row, as one pattern; other tar files alone."""
    series: dict[tuple[str, str, int], list[Path]] = defaultdict(list)
    for file in files:
        if file.name.lower().endswith((".tar", ".tar.gz", ".tgz")) and not file.name.endswith((".pth.tar", ".pt.tar")):
            found = re.fullmatch(r"(.*?)(\d+)(\D*)", file.name)
            key = (found[1], found[3], len(found[2])) if found else (file.name, "", 0)
            series[key].append(file)
    for (start, end, width), members in series.items():
        around = tuple(reversed(members[0].parent.relative_to(root).parts))
        name = members[0].name
        if len(members) > 1:
            numbers = sorted(int(file.name[len(start) : len(file.name) - len(end)]) for file in members)
            name = f"{start}{{{numbers[0]:0{width}}..{numbers[-1]:0{width}}}}{end}"
        yield Place(os.path.join(members[0].parent, name), (start.strip("-_.") or name, *around))


def _own_form(path: str) -> bool:
    """Whether a form of data that somebody has added reads a path."""
    built_in = ("folder", "language", "npz", "python", "saved", "table", "tar", "texts")
    return any(name not in built_in and forms[name]().reads(path) for name in forms)
