"""Formats of the files that later versions promise to read: a name and a number, which stand in the file.

A number grows when a field goes, or means something else. Fields are added without that, and a reader passes over
those that it does not know. docs/formats.md says what is promised of each file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from merging.errors import FormatError
from merging.values.wording import beginning

RECIPE = "merging-recipe/1"
ENSEMBLE = "merging-ensemble/1"
REPORT = "merging-report/1"
JOURNAL = "merging-journal/1"
BENCHMARK = "merging-benchmark/2"


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
    name, _, number = known.partition("/")
    newer = re.fullmatch(rf"{name}/(\d{{1,9}})", found) if isinstance(found, str) else None
    if newer and int(newer[1]) > int(number):
        raise FormatError(
            f"its format {found} is newer than {known}, which this version of merging reads; pip install -U merging"
        )
    raise ValueError(f"format {beginning(repr(found), 60)} is not {known!r}")


def known_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file that a dataclass has a field for; what later versions have added is left out.

    Args:
        kind: the dataclass.
        data: the values by name.
    """
    return {each.name: data[each.name] for each in fields(kind) if each.name in data}
