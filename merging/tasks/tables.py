"""Tables of samples: CSV, TSV or JSON lines with a column of image paths and one of labels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.errors import TaskError, unknown
from merging.tasks.classes import Written

SUFFIXES = (".csv", ".tsv", ".jsonl")


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, column → value; text where it is CSV.

    Raises:
        TaskError: no such file, no header, a row of another width, or a line that is no JSON object (with its number).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TaskError(f"{path} is not UTF-8 text") from None
    found = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _separated(path, text)
    if not found:
        raise TaskError(f"{path} has no rows")
    return found


def column(path: Path, table: list[dict[str, Any]], name: str) -> list[Any]:
    """One column.

    Raises:
        TaskError: there is none of that name (the nearest is named), or a row without it.
    """
    if name not in table[0]:
        raise TaskError(str(unknown(f"column in {path}:", name, table[0])))
    for number, row in enumerate(table, 1):
        if row.get(name) in (None, ""):
            raise TaskError(f"{path}: row {number} has no '{name}'")
    return [row[name] for row in table]


def labels(path: Path, values: list[Any]) -> list[Written]:
    """A column of labels: numbers where all are whole numbers, else names.

    Raises:
        TaskError: a value that is neither.
    """
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return values
    for number, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise TaskError(f"{path}: row {number} has the label {value!r}; write a name, or whole numbers throughout")
    stripped = [value.strip() for value in values]
    if all(value.removeprefix("-").isdecimal() for value in stripped):
        return [int(value) for value in stripped]
    return list(stripped)


def _separated(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
    )
    found: list[dict[str, Any]] = []
    try:
        if not reader.fieldnames:
            raise TaskError(f"{path} is empty; its first line names the columns")
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
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}: line {number} is no JSON ({error})") from None
        if not isinstance(row, Mapping):
            raise TaskError(f'{path}: line {number} is no JSON object such as {{"path": …, "label": …}}')
        found.append(dict(row))
    return found
