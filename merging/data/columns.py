"""Columns of samples, whatever holds them: found by their names, and read as texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from merging.errors import TaskError, unknown


def present(where: str, name: str, there: Iterable[str]) -> str:
    """The name of a column, which is there.

    Args:
        where: what holds it, for messages.
        name: as the user writes it.
        there: the names of the columns.

    Raises:
        TaskError: it is not; the nearest name is said.
    """
    known = list(there)
    if name not in known:
        raise unknown(f"column in {where}:", name, known, error=TaskError)
    return name


def texts_in(where: str, name: str, values: Sequence[Any], *, first: int) -> list[str]:
    """A column of texts, which may be empty ones.

    Args:
        where: what holds it, for messages.
        name: of the column.
        values: in it, a row each.
        first: number of the first row, as that kind of data counts them.

    Raises:
        TaskError: a value that is no text.
    """
    for number, value in enumerate(values, first):
        if not isinstance(value, str):
            raise TaskError(f"{where}: row {number} has {value!r} in '{name}', which is not a text")
    return list(values)
