"""Groups of samples, as a column names them: they go with the samples through decoding, whatever is left out there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from merging.data.classes import Labelling, nfc
from merging.errors import TaskError
from merging.plugins.task import Split

WHOLE = re.compile(r"[+-]?[0-9]+\.0+")
"""A whole number as tables with gaps write it: 1.0 is the group 1."""
Decode = Callable[[Labelling | None], Split]


def in_groups(
    where: str, labels: list[Any], groups: Sequence[Any] | None, decode: Decode, *, first: int = 1
) -> tuple[list[Any], Decode]:
    """The labels to list and the way to load them, so that each sample that is loaded keeps its group.

    Label and group are one number while samples are decoded, chosen and left out, and two again afterwards.

    Args:
        where: the set, for messages.
        labels: the labels as they are written, one a sample; empty where none are wanted.
        groups: groups of the same samples; None: the set names none.
        decode: loads what is listed.
        first: number of the first row, for messages.

    Returns:
        What stands for the labels in ``decode``, and what loads the set.

    Raises:
        TaskError: a group that is no name or number.
    """
    if groups is None or not labels:
        return labels, decode
    named = [group_name(where, number, value) for number, value in enumerate(groups, first)]
    names = sorted(set(named))
    place = {name: number for number, name in enumerate(names)}
    pairs = list(zip(labels, named, strict=True))

    def load(found: Labelling | None) -> Split:
        if found is None:
            return decode(None)
        both: dict[Any, int] = {
            (label, name): found.labels[label] * len(names) + place[name]
            for label, name in set(pairs)
            if label in found.labels
        }
        split = decode(replace(found, labels=both, groups=None))
        own = [names[number] for number in (split.labels % len(names)).tolist()]
        return replace(split, labels=split.labels // len(names)).with_classes(found.groups).with_groups(own)

    return pairs, load


def group_name(where: str, number: int, value: Any) -> str:
    """A group as a column has it.

    Args:
        where: the set, for messages.
        number: number of the row, for messages.
        value: what stands there.

    Raises:
        TaskError: no name or number.
    """
    text = nfc(str(value)).strip() if isinstance(value, str | int | float) and value == value else ""
    if text:
        return text.partition(".")[0] if WHOLE.fullmatch(text) else text
    raise TaskError(f"{where}: row {number} has the group {value!r}; write a name or a number")
