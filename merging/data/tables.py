"""Tables of samples: CSV, TSV or JSON lines with a column of image paths or texts, and one of labels."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merging.data.columns import present, texts_in
from merging.errors import TaskError, near_path, refused
from merging.values.labels import Written, read

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl", ".ndjson", ".json")


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, column → value; text where it is CSV.

    Raises:
        TaskError: no such file, no header, a row of another width, or a line that is no JSON object (with its number).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: {refused(error)}{near_path(path)}") from None
    try:
        text = content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError:
        raise TaskError(f"{path} is not UTF-8 text") from None
    separator = SEPARATORS.get(path.suffix.lower())
    if separator == "," and "," not in (header := text.lstrip("\r\n").partition("\n")[0]) and ";" in header:
        separator = ";"  # what spreadsheets write where the comma is for decimals
    found = _json_lines(path, text) if separator is None else _separated(path, text, separator)
    if not found:
        raise TaskError(f"{path} has no rows")
    return found


def column(path: Path, table: list[dict[str, Any]], name: str, empty: object = "") -> list[Any]:
    """Takes one column of a table; a value that is missing, or ``empty``, is an error.

    Raises:
        TaskError: there is none of that name (the nearest is named), or a row without it.
    """
    present(str(path), name, table[0])
    for number, row in enumerate(table, 1):
        if row.get(name) in (None, empty):
            raise TaskError(f"{path}: row {number} has no '{name}'")
    return [row[name] for row in table]


def texts(path: Path, table: list[dict[str, Any]], name: str) -> list[str]:
    """A column of texts, which may be empty ones.

    Raises:
        TaskError: as :func:`column`, or a value that is no text.
    """
    return texts_in(str(path), name, column(path, table, name, None), first=1)


def labels(path: Path, values: list[Any], say: Callable[[str], None]) -> list[Written]:
    """Reads a column of labels, as :func:`merging.values.labels.read` takes them."""
    return read(values, lambda number: f"{path}: row {number + 1}", lambda text: say(f"{path}: {text}"))


def _separated(path: Path, text: str, separator: str) -> list[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 by default, and a cell may hold a book
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    found: list[dict[str, Any]] = []
    try:
        if not reader.fieldnames:
            raise TaskError(f"{path} is empty; its first line names the columns")
        reader.fieldnames = [name.strip() for name in reader.fieldnames]
        for row in reader:
            if None in row or None in row.values():
                raise TaskError(
                    f"{path}: line {reader.line_num} has not the {len(reader.fieldnames)} columns of the header"
                )
            found.append(row)
    except csv.Error as error:
        raise TaskError(f"{path}: no CSV after line {reader.line_num} ({error})") from None
    return found


def _json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    """An object a line; a ``.json`` may also be one list of them."""
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        return [_object(value, f"{path}: row {number}") for number, value in enumerate(_json(text, str(path)), 1)]
    lines = ((f"{path}: line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return [_object(_json(line, place), place) for place, line in lines]


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place} is no JSON ({error})") from None


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TaskError(f'{place} is no JSON object such as {{"path": …, "label": …}}')
    return value
