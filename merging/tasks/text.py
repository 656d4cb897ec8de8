"""Texts with labels, from JSON lines or CSV, as token ids of a model's own tokenizer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from merging.errors import TaskError, unknown
from merging.interfaces import Progress
from merging.progress import Silent
from merging.task import Split

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson", ".json")


class TextSource(Protocol):
    """What is asked of a model's source, see :class:`merging.models.transformers.TransformersText`."""

    @property
    def spec(self) -> str:
        """The model's name."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The model's own names of its classes."""

    def tokenize(self, texts: Sequence[str], progress: Progress | None = None) -> Tensor:
        """Texts → padded token ids, int64 ``(N, L)``."""


def load_text(
    path: Path | str,
    source: TextSource,
    *,
    text: str = "text",
    label: str = "label",
    labels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Split:
    """A split from a file of texts: token ids, int64, shape ``(N, L)``, and labels.

    Args:
        path: ``.jsonl`` (an object a line), ``.csv`` or ``.tsv`` (a header line first), UTF-8.
        source: of the model; its tokenizer pads all texts to the longest one's length, and cuts what is longer than
            the model takes.
        text: key or column of the texts.
        label: key or column of the labels: class names, or class indices.
        labels: the classes' names in the order of the model's outputs; default: the model's own names.
        progress: told how far tokenizing is.

    Raises:
        TaskError: no such file or column, a line that is none (its number is named), or a label that is no class.
    """
    path, progress = Path(path).expanduser(), progress or Silent()
    if not path.is_file():
        raise TaskError(f"no such data: {path}")
    known = tuple(labels) if labels is not None else source.classes
    texts: list[str] = []
    numbers: list[int] = []
    for place, row in _rows(path):
        found = _value(row, text, place)
        if not isinstance(found, str):
            raise TaskError(f"{place}: '{text}' is {found!r}, not a text")
        texts.append(found)
        numbers.append(_number(_value(row, label, place), known, place, source.spec))
    if not texts:
        raise TaskError(f"{path} holds no texts")
    progress.stage(f"tokenizing {path}", len(texts))
    return Split.of(source.tokenize(texts, progress), torch.tensor(numbers, dtype=torch.int64))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row stands (file and line), and what it holds."""
    kind = path.suffix.lower()
    if kind not in SEPARATORS and kind not in LINES:
        raise TaskError(f"{path}: texts are read from .jsonl, .csv or .tsv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind in SEPARATORS:
                table = csv.DictReader(file, delimiter=SEPARATORS[kind], strict=True)
                for row in table:
                    yield f"{path}, line {table.line_num}", row
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", _object(line, f"{path}, line {number}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: {error}") from None


def _object(line: str, place: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise TaskError(f"{place}: not a JSON object, {{…}}, but {type(found).__name__}")
    return found


def _value(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise TaskError(f"{place}: {unknown('column', column, [str(key) for key in row if key is not None])}")
    if row[column] is None:
        raise TaskError(f"{place}: '{column}' is empty")
    return row[column]


def _number(value: Any, classes: Sequence[str] | None, place: str, model: str) -> int:
    """The class index of a label: a name first (classes may be called '1', '2'), or an index."""
    if classes is not None and value in classes:
        return list(classes).index(value)
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool):
        if number < 0 or (classes is not None and number >= len(classes)):
            last = "" if classes is None else f" to {len(classes) - 1}"
            raise TaskError(f"{place}: label {number} is no class; they are numbered from 0{last}")
        return number
    if classes is None:
        raise TaskError(
            f'{place}: label {value!r} is a name, but {model} has only numbers; give their order: classes = ["…", "…"]'
        )
    raise TaskError(f"{place}: {unknown('label', str(value), classes)}")
