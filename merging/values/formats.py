"""Formats of the files that later versions promise to read: a name and a number, which stand in the file.

A number grows when a field goes, or means something else. Fields are added without that, and a reader passes over
those that it does not know. docs/formats.md says what is promised of each file.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from merging.errors import FormatError
from merging.values.outcome import WORST
from merging.values.wording import beginning

RECIPE = "merging-recipe/1"
ENSEMBLE = "merging-ensemble/1"
REPORT = "merging-report/1"
JOURNAL = "merging-journal/1"
BENCHMARK = "merging-benchmark/2"
LARGEST = -10 * WORST
"""Numbers of reports are smaller, the worst score and its differences from others, too: sums of them are finite."""


def check_format(found: Any, known: str, earlier: Iterable[str] = ()) -> None:
    """Checks that a file is in a format that this version reads.

    Args:
        found: what the file says.
        known: the format that this version writes.
        earlier: formats that it reads, too.

    Raises:
        FormatError: a newer version has written it.
        ValueError: it is no such format.
    """
    if found == known or found in tuple(earlier):
        return
    if is_newer(found, known):
        raise FormatError(
            f"its format {found} is newer than {known}, which this version of merging reads; pip install -U merging"
        )
    raise ValueError(f"format {beginning(repr(found), 60)} is not {known!r}")


def is_newer(found: Any, known: str) -> bool:
    """Whether a format is a later one of the same files.

    >>> is_newer("merging-recipe/2", RECIPE), is_newer("merging-recipe/1", RECIPE), is_newer(2, RECIPE)
    (True, False, False)

    Args:
        found: what a file says.
        known: the format that this version writes.
    """
    name, _, number = known.partition("/")
    later = re.fullmatch(rf"{name}/([0-9]{{1,9}})", found) if isinstance(found, str) else None
    return later is not None and int(later[1]) > int(number)


def parsed(content: bytes) -> Any:
    """The values of a file of JSON that this program has written.

    >>> parsed(b'{"seed": 1, "seed": 2}')
    Traceback (most recent call last):
    ValueError: 'seed' stands twice in one object

    Args:
        content: the file's bytes, as UTF-8; with a byte order mark or in UTF-16 they are read, too.

    Raises:
        ValueError: it is empty, no JSON, nested too deep, or says one thing twice, which readers may take differently.
    """
    if not content.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(content, object_pairs_hook=each_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON of its names and values, for ``object_pairs_hook``.

    Raises:
        ValueError: a name stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{beginning(repr(twice), 60)} stands twice in one object")
    return found


def known_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file that a dataclass has a field for; what later versions have added is left out.

    Args:
        kind: the dataclass.
        data: the values by name.

    Raises:
        TypeError: a value is not of its field's type.
    """
    known = {each.name: data[each.name] for each in fields(kind) if each.name in data}
    check_types(kind, known)
    return known


def check_types(kind: type, values: Mapping[str, Any]) -> None:
    """Checks that values are of the types of a dataclass's fields, as JSON has them.

    >>> from merging.values.report import Certificate
    >>> check_types(Certificate, {"samples": 100, "best_single": 1})
    >>> check_types(Certificate, {"samples": "many"})
    Traceback (most recent call last):
    TypeError: samples is 'many'

    Args:
        kind: the dataclass.
        values: some of its fields' values, read from JSON or made of that.

    Raises:
        TypeError: a value is of another type.
    """
    for name, value in values.items():
        if not _fits(value, _types(kind)[name]):
            raise TypeError(f"{name} is {beginning(repr(value), 60)}")


_types = cache(get_type_hints)


def _fits(value: Any, hint: Any) -> bool:
    """Whether JSON may have this where Python has a value of that type; lists stand for tuples, texts for choices."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        within = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        return (not isinstance(value, float) or math.isfinite(value)) and all(_fits(each, Any) for each in within)
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if kind in (int, float):
        return type(value) in {int, kind} and abs(value) < LARGEST
    if kind in (bool, types.NoneType):
        return type(value) is kind
    if kind is str:
        return isinstance(value, str)
    if kind is tuple:
        if not isinstance(value, list | tuple) or (Ellipsis not in inner and len(value) != len(inner)):
            return False
        return all(_fits(each, inner[0 if Ellipsis in inner else at]) for at, each in enumerate(value))
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(_fits(each, inner[1]) for each in value.values())
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, str)
    return not is_dataclass(kind) or isinstance(value, Mapping | kind)
