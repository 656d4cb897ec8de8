"""Values of options that vary: a number, numbers by component or model, a ramp over depth, or ``search``.

As a user writes them, such a value is a number or a list of entries ``[PLACE=]VALUE``. A place is a component, or
``MODEL@COMPONENT`` and ``MODEL@`` where the option belongs to models; names may be patterns, and later entries win.
A value is a number, ``ramp:0.2..0.8`` (two or more anchors), ``search`` or ``search:LO..HI``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from merging.errors import OptionError
from merging.values.wording import shown

Varying: TypeAlias = float | tuple[str, ...]
"""The type of an option that varies: one number, or entries."""
By: TypeAlias = Literal["components", "models", "whole"]
"""Places between which the numbers of an option may differ: components, models too, or none (one number alone)."""

Told: TypeAlias = tuple[str, str, Callable[[float, str], Any]]
"""An option's name and range in messages, and the check of one of its numbers, which is given that name."""

SEARCH, RAMP = "search", "ramp"
WAYS: Mapping[By, str] = {
    "models": "by component or model, ramp:A..B, search",
    "components": "by component, ramp:A..B, search",
    "whole": "search",
}
"""Ways in which an option may vary, in words, beside its range."""
FORMS = (
    "Numbers that vary: one for all; COMPONENT=0.7, and MODEL@COMPONENT=0.7 or MODEL@=0.7 where models may differ; "
    "ramp:0.2..0.8 from stem to head; search or search:0.2..0.8, on the held-out data (*=search: one a component). "
    "Names may be patterns; give several, and later ones win."
)
"""The forms of all of them, in words."""


@dataclass(frozen=True)
class Ramp:
    """Numbers that follow the network's depth, piecewise linear between anchors at equal distances."""

    anchors: tuple[float, ...]

    def at(self, depth: float) -> float:
        """The number at a depth between 0 (the stem) and 1 (the head)."""
        return float(np.interp(depth, np.linspace(0.0, 1.0, len(self.anchors)), self.anchors))


@dataclass(frozen=True)
class Search:
    """A number that is searched for between two bounds."""

    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """One entry of a value: for which models and components, and what.

    Attributes:
        model: Name or pattern; empty: all models, which share the number.
        component: Name or pattern; empty: all.
    """

    model: str
    component: str
    value: float | Ramp | Search

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers that it states: its own, a ramp's anchors, the bounds of a search."""
        if isinstance(self.value, Ramp):
            return self.value.anchors
        return (self.value.low, self.value.high) if isinstance(self.value, Search) else (self.value,)


def place_of(text: str, bare: By) -> tuple[str, str, str]:
    """Takes ``[PLACE=]VALUE`` apart: model, component and value, empty where nothing is said.

    Args:
        text: the entry.
        bare: what a name without ``@`` is one of.
    """
    place, _, value = text.rpartition("=")
    first, at, second = place.partition("@")
    return (first, second, value) if at or bare == "models" else ("", first, value)


def number_in(text: str) -> float:
    """The number that a text is; NaN where it is none, or infinite."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


@functools.lru_cache(maxsize=1024)
def entries_of(value: Any, low: float | None = None, high: float | None = None) -> tuple[Entry, ...]:
    """The entries of a value that was checked; of a number one, and none of what is no value of this kind.

    Args:
        value: a number, or entries.
        low: the option's smallest number, where a search says no bounds.
        high: its largest.
    """
    if isinstance(value, Real):
        return (Entry("", "", float(value)),)
    return tuple(_entry(text, low, high) for text in value) if isinstance(value, tuple) else ()


def _entry(text: str, low: float | None, high: float | None) -> Entry:
    model, component, value = place_of(text, "components")
    kind, _, rest = value.partition(":")
    numbers = tuple(number_in(each) for each in rest.split("..")) if rest else ()
    if kind == RAMP:
        return Entry(model, component, Ramp(numbers))
    if kind == SEARCH:
        first, last = (low, high) if not numbers else (numbers[0], numbers[-1])
        return Entry(model, component, Search(math.nan if first is None else first, math.nan if last is None else last))
    return Entry(model, component, number_in(value))


def texts_of(value: Any) -> tuple[str, ...] | None:
    """The entries of whatever was given, as texts; None where it is a number, or nothing of this kind."""
    if isinstance(value, str):
        return None if not math.isnan(number_in(value)) else (value.strip(),)
    if isinstance(value, Mapping):
        return tuple(f"{place}={_text(number)}" for place, number in value.items())
    return tuple(_text(each) for each in value) if isinstance(value, list | tuple) else None


def _text(value: Any) -> str:
    """A number with all its digits, a text without spaces around it."""
    return repr(float(value)) if isinstance(value, Real) and str(value) not in ("True", "False") else str(value).strip()


def checked(texts: Sequence[str], by: By, low: float | None, high: float | None, told: Told) -> tuple[str, ...]:
    """Checks entries before any model is known.

    Args:
        texts: the entries.
        by: what the option may vary by.
        low: its smallest number.
        high: its largest number.
        told: its name and range in messages, and the check of one number.

    Raises:
        OptionError: an entry is none, a number is outside of the range, or a place stands twice.
    """
    where, ranges, check = told
    places = set[tuple[str, str]]()
    for text in texts:
        entry = _entry(text, low, high)
        place, _, value = text.rpartition("=")
        kind, colon, rest = value.partition(":")
        if by == "whole" and (kind == RAMP or place or len(texts) > 1):
            raise OptionError(f"{where} is {shown(text)}, but must be one number{ranges}, search or search:LO..HI")
        if "@" in place and by != "models":
            raise OptionError(
                f"{where}: '{text}' names a model, but this option varies by component alone: COMPONENT={value}"
            )
        if "=" in text and place in ("", "@"):
            raise OptionError(f"{where}: '{text}' names nothing before '='; write {value} alone")
        if kind == RAMP and (len(entry.numbers) < 2 or any(map(math.isnan, entry.numbers))):
            raise OptionError(f"{where}: '{value}' is no ramp: write two or more numbers, such as ramp:0.2..0.8")
        if kind == SEARCH and colon and (len(rest.split("..")) != 2 or not entry.numbers[0] < entry.numbers[1]):
            raise OptionError(f"{where}: '{value}' must have two bounds, the smaller first, as in search:0.2..0.8")
        if kind == SEARCH and any(map(math.isnan, entry.numbers)):
            raise OptionError(f"{where} has no bounds of its own; write search:LO..HI")
        if kind not in (RAMP, SEARCH) and math.isnan(entry.numbers[0]):
            forms = {"models": ", COMPONENT=NUMBER, MODEL@COMPONENT=NUMBER", "components": ", COMPONENT=NUMBER"}
            more = f"{forms[by]}, ramp:A..B or search" if by in forms else " or search"
            raise OptionError(f"{where} is {shown(text)}, but must be a valid number{ranges}{more}")
        for number in entry.numbers:
            check(number, where)
        if (entry.model, entry.component) in places:
            raise OptionError(f"{where}: '{place or 'all'}' stands twice; leave one out: {text}")
        places.add((entry.model, entry.component))
    return tuple(texts)


def searches(entries: Iterable[Entry]) -> bool:
    """Whether any number is searched for."""
    return any(isinstance(entry.value, Search) for entry in entries)


def placed(entries: Iterable[Entry]) -> bool:
    """Whether numbers are to differ between components: one is named, or a ramp or a search of each runs over them."""
    return any(
        isinstance(entry.value, Ramp) or entry.component not in ("", *(["*"] * isinstance(entry.value, float)))
        for entry in entries
    )
