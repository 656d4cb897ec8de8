"""A set of samples from what the user writes: a path, or a table with a path and what is to be known about it.

The forms: ``file.npz:KEY``, a folder of class folders, ``.tar`` shards, a folder of Hugging Face's ``save_to_disk``, a
table of image paths (``.csv``, ``.tsv``, ``.jsonl``), a table of texts for a text model, ``python:module:function``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from merging.data.forms import Opened, Reader
from merging.data.images import Preparation, preparation
from merging.data.saved import is_saved
from merging.data.tables import SUFFIXES
from merging.data.text import takes_texts
from merging.errors import TaskError, unknown
from merging.models.source import ModelSource
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split

Spec: TypeAlias = str | Mapping[str, Any]
KEYS = ("path", "classes", "map", "border", "corrupt", "upright", "image", "label", "text", "group")
"""What a table may hold."""


def load_data(
    spec: Spec,
    source: ModelSource | None = None,
    *,
    how: Preparation | None = None,
    classes: Sequence[str] | None = None,
    restrict: bool = False,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Split:
    """A split from what the user writes.

    Args:
        spec: a path in one of the forms above, or a table with ``path`` and perhaps ``classes`` and ``map`` (see
            :class:`merging.data.classes.Choice`), ``border`` (pixels cut off on each side), ``corrupt`` (share of
            images that may be damaged), ``upright`` (whether images are turned as their EXIF orientation says),
            ``image``, ``label``, ``text``, ``group`` (names of columns; two of ``text`` are pairs).
        source: the model; says the size of images, and tokenizes texts.
        how: how images are brought to size; default: as the model's configuration says.
        classes: names of the model's outputs, in order; default: the set's own, where it names some.
        restrict: score a set with fewer classes than the model on these alone.
        labelled: whether labels are wanted; without, all of them are −1.
        progress: told how far decoding is, and what was left out.

    Raises:
        TaskError: no such data, an unknown class, too many damaged images, or a package that is not installed.
    """
    how = how or (preparation(source) if source is not None else Preparation())
    opened = open_data(spec, source, how, labelled=labelled, progress=progress)
    return opened.load(classes if classes is not None else opened.names, restrict=restrict, progress=progress)


def open_data(
    spec: Spec,
    source: ModelSource | None,
    how: Preparation,
    *,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Opened:
    """Finds a set and lists its classes, without decoding it (arguments as for :func:`load_data`)."""
    table: dict[str, Any] = {"path": spec} if isinstance(spec, str) else dict(spec)
    for key in table:
        if key not in KEYS:
            raise unknown("key in a data set:", key, KEYS, error=TaskError)
    path = table.get("path")
    if not path:
        raise TaskError("a data set needs a path, such as { path = 'photos' }")
    how = replace(how, border=table.get("border", 0), corrupt=table.get("corrupt", how.corrupt))
    reader = Reader(path, table, source, how, labelled, progress or Silent())
    if path.startswith("python:"):
        return reader.made()
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    on_disk = is_saved(file) or (":" in path and is_saved(Path(path.rpartition(":")[0]).expanduser()))
    if takes_texts(source):
        if suffix not in SUFFIXES and not on_disk:
            raise TaskError(
                f"no such texts: '{path}'; a text model takes .jsonl, .csv or .tsv, a folder of save_to_disk, or "
                "python:module:function"
            )
        return reader.texts()
    if ".npz:" in path or suffix == ".npz":
        return reader.npz()
    if file.name.endswith((".tar", ".tar.gz", ".tgz")):
        return reader.tar()
    if suffix in SUFFIXES:
        return reader.table(file)
    if on_disk:
        return reader.saved()
    if file.is_dir():
        return reader.folder(file)
    raise TaskError(
        f"no such data: '{path}'; write a folder of class folders, file.npz:KEY, a .csv, .tsv or .jsonl of paths and "
        "labels, a .tar, a folder of save_to_disk, or python:module:function"
    )
