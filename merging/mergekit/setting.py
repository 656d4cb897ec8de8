"""A parameter's value as mergekit's files say it: a number, a gradient over depth, or several by filters on names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from merging.mergekit.document import Document
from merging.mergekit.methods import Parameter

Value: TypeAlias = float | int | bool
KINDS = {"number": "a number", "count": "a whole number", "boolean": "true or false"}


@dataclass(frozen=True)
class Branch:
    """The part of a setting for tensors whose names hold a text.

    Attributes:
        filter: the text; none: all tensors.
        values: one, or several from the first layer to the last.
    """

    filter: str | None
    values: tuple[Value, ...]

    def at(self, depth: float) -> Value:
        """The value at a place between the first layer, 0, and the last, 1: in between, on straight lines."""
        scaled = depth * (len(self.values) - 1)
        if isinstance(self.values[0], bool):
            return self.values[int(scaled)]
        lower = int(scaled)
        share = scaled - lower
        return (1 - share) * self.values[lower] + share * self.values[min(len(self.values) - 1, lower + 1)]


@dataclass(frozen=True)
class Setting:
    """A parameter as one place of the file sets it.

    Attributes:
        said: the place in the file.
        branches: the first whose filter a tensor's name holds decides; none does: it is as if nothing stood there.
    """

    said: Document
    branches: tuple[Branch, ...]

    def of(self, tensor: str, depth: float) -> Value | None:
        """The value for a tensor, or None where no filter takes it."""
        found = next((b for b in self.branches if b.filter is None or b.filter in tensor), None)
        return None if found is None else found.at(depth)

    @property
    def filters(self) -> frozenset[str]:
        """The texts that names are searched for."""
        return frozenset(branch.filter for branch in self.branches if branch.filter is not None)

    @property
    def deep(self) -> bool:
        """Whether it varies with depth."""
        return any(len(set(branch.values)) > 1 for branch in self.branches)


def setting(said: Document, parameter: Parameter) -> Setting:
    """Reads a setting: a value, a gradient, or several by filters.

    Args:
        said: what stands there.
        parameter: what it is to be.

    Raises:
        MergingError: a value of another kind, an unknown key, or an empty list.
    """
    return Setting(said, tuple(_branches(said, parameter)))


def _branches(said: Document, parameter: Parameter) -> Iterator[Branch]:
    value = said.value
    if isinstance(value, dict):
        yield _conditional(said, parameter)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for each in said:
            yield _conditional(each.mapping("{filter: …, value: …} as the others of this list are"), parameter)
    else:
        yield Branch(None, _values(said, parameter))


def _conditional(said: Document, parameter: Parameter) -> Branch:
    said.check_keys(("filter", "value"))
    if (value := said.get("value")) is None:
        raise said.wrong("has no value")
    text = said.get("filter")
    wanted = None if text is None else text.text("a text that names of tensors hold")
    return Branch(None if wanted == "*" else wanted, _values(value, parameter))


def _values(said: Document, parameter: Parameter) -> tuple[Value, ...]:
    if isinstance(said.value, list):
        return tuple(_value(each, parameter) for each in said.listed(KINDS[parameter.kind]))
    return (_value(said, parameter),)


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _value(said: Document, parameter: Parameter) -> Value:
    """One value; numbers may be texts, as YAML has it that 1e-5 is one, and booleans 0 and 1."""
    found = _understood(said.value, parameter.kind)
    if found is None:
        from merging.mergekit.document import kind

        raise said.wrong(f"is {kind(said.value)}, not {KINDS[parameter.kind]}")
    return found


def _understood(value: Any, kind: str) -> Value | None:
    if kind == "boolean":
        text = str(int(value)) if isinstance(value, float) and value in (0, 1) else str(value)
        return _WORDS.get(text.lower()) if isinstance(value, bool | int | float | str) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind == "count" and (number != int(number) or number < 1)):
        return None
    return int(number) if kind == "count" else number
