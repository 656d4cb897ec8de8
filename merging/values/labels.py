"""Labels as data write them: numbers however they are written, rows of zeros with a one, true and false, or names."""

from __future__ import annotations

import functools
import json
import numbers
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.errors import TaskError
from merging.values.wording import beginning

Written: TypeAlias = str | int
"""A label as it stands in the data: text, or a whole number."""
NO_LABEL = (
    "",
    "nan",
    "-nan",
    "na",
    "n/a",
    "none",
    "null",
    "<na>",
    "nat",
    "#n/a",
    "#n/a n/a",
    "#na",
    "1.#ind",
    "-1.#ind",
    "1.#qnan",
    "-1.#qnan",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "-infinity",
)
"""Words that tables write where there is no label, in lower case."""
LARGE = 1 << 63
"""Labels beyond are none: they are kept as 64-bit integers."""
TRUTH = "labels are true and false: taken as 1 and 0"
_WAY = "write a name, or whole numbers throughout (a python: set may return other targets)"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_COMMA = re.compile(r"[+-]?\d+,\d+")


def whole(label: object) -> int | None:
    """The whole number that a label is, however it is written; None where it is none.

    >>> [whole(label) for label in (3, "3", "03", "3.0", "3.000e+00", " +3 ", 3.0, "3.5", "cat", float("nan"))]
    [3, 3, 3, 3, 3, 3, 3, None, None, None]
    """
    if isinstance(label, str):
        value = _decimal(label)
        found = int(value) if value is not None and value == value.to_integral_value() else None
    elif isinstance(label, int | np.integer) or (isinstance(label, float | np.floating) and float(label).is_integer()):
        found = int(label)
    else:
        found = None
    return found if found is not None and abs(found) < LARGE else None


def is_number(label: object) -> bool:
    """Whether a label is a whole number, or text that is one."""
    return whole(label) is not None


def is_fraction(label: object) -> bool:
    """Whether text is a number, and no whole one; or one with a comma, which may be for decimals or for thousands."""
    if not isinstance(label, str) or whole(label) is not None:
        return False
    return _decimal(label) is not None or _COMMA.fullmatch(label.strip()) is not None


def read(values: Sequence[Any], place: Callable[[int], str], say: Callable[[str], None]) -> list[Written]:
    """A column of labels: text without the spaces around it, or whole numbers throughout.

    Lists of one are what they hold; lists of zeros with a single one are the place of that, where all are as long; true
    and false are 1 and 0, which is said.

    Args:
        values: values of the column.
        place: number of a value → where it stands, such as "t.csv: row 3".
        say: told what is to be known.

    Raises:
        TaskError: a value that is none of these, or names and numbers in one column (with its place).
    """
    values = _unpacked(_parsed(list(values)), place)
    if values and all(isinstance(value, bool | np.bool_) for value in values):
        say(TRUTH)
        return [int(value) for value in values]
    found: list[Written] = []
    for number, value in enumerate(values):
        if isinstance(value, str):
            found.append(value.strip())
            continue
        index = None if isinstance(value, bool | np.bool_) else whole(value)
        if index is None:
            raise TaskError(f"{place(number)} has the label {_shown(value)}; {_WAY}")
        found.append(index)
    texts = [label for label in found if isinstance(label, str)]
    names = [label for label in texts if not is_number(label)]
    if not names or len(names) == len(found):
        return found
    for number, label in enumerate(found):
        if isinstance(label, str) and not is_number(label) and (len(texts) < len(found) or label.lower() in NO_LABEL):
            raise TaskError(f"{place(number)} has the label {_shown(label)}, others are whole numbers; {_WAY}")
    if not all(is_fraction(name) for name in names):
        odd = next(name for name in names if not is_fraction(name))
        say(f"labels are numbers and names ('{odd}'): all are taken as names, in the order of text")
    return found


def indices(labels: NDArray[Any], where: str, say: Callable[[str], None] = lambda _: None) -> NDArray[np.int64]:
    """An array of labels as class indices ``(N,)``: whole numbers of any dtype, ``(N, 1)``, or one-hot ``(N, k)``.

    Args:
        labels: labels of the samples.
        where: the set, for messages.
        say: told what is to be known.

    Raises:
        TaskError: anything else.
    """
    shape = list(labels.shape)
    if labels.ndim == 2 and shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels):
        return np.asarray(labels.argmax(1), dtype=np.int64)
    wanted = "they must be class indices, integers of shape (N,), or one-hot (N, classes)"
    if labels.ndim != 1 or labels.dtype.kind not in "biufU":
        raise TaskError(f"{where}: labels are {labels.dtype} of shape {shape}; {wanted}")
    if labels.dtype.kind == "b":
        say(f"{where}: {TRUTH}")
    if labels.dtype.kind in "fU":
        found = [whole(label) for label in labels.tolist()]
        if None in found:
            number = found.index(None)
            raise TaskError(
                f"{where}: labels are {labels.dtype} of shape {shape}, and number {number} is "
                f"{_shown(labels[number].item())}; {wanted}"
            )
        return np.array(found, dtype=np.int64)
    return labels.astype(np.int64)


def no_classes(place: str, label: object) -> TaskError:
    """Makes the error for a number that is no whole one, where classes are wanted."""
    return TaskError(f"{place} has the label {_shown(label)}; {_WAY}")


@functools.lru_cache(1 << 16)
def _decimal(text: str) -> Decimal | None:
    text = text.strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _parsed(values: list[Any]) -> list[Any]:
    """Lists that a table holds as text, as these."""
    if not values or not all(isinstance(value, str) and value.strip()[:1] == "[" for value in values):
        return values
    try:
        found = [json.loads(value) for value in values]
    except ValueError:
        return values
    return found


def _unpacked(values: list[Any], place: Callable[[int], str]) -> list[Any]:
    """Lists of one, and one-hot rows, as what they stand for."""
    if not values or not all(isinstance(value, list | tuple | np.ndarray) for value in values):
        return values
    if all(len(value) == 1 for value in values):
        return [value[0] for value in values]
    for number, value in enumerate(values):
        plain = all(isinstance(each, numbers.Real) for each in value)
        if not plain or len(value) != len(values[0]) or not _is_one_hot(np.asarray(value)[None]):
            raise TaskError(
                f"{place(number)} has the label {_shown(value)}; a list is a row of zeros with a single one, as "
                "long as the others"
            )
    return [int(np.argmax(value)) for value in values]


def _is_one_hot(rows: NDArray[Any]) -> bool:
    return rows.shape[1] > 1 and bool(np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all())


def _shown(value: object) -> str:
    return beginning(repr(value.tolist() if isinstance(value, np.ndarray) else value), 60)
