"""What a strategy says beforehand, so that idle workers make it before it asks: ``problem.ahead``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from merging.values.outcome import Outcome
from merging.values.recipe import Merge


@dataclass(frozen=True, eq=False)
class Attempt:
    """A merge that will probably be evaluated, and what is tried where its score is promising.

    Attributes:
        merged: the merge.
        promising: says of its outcome whether ``then`` follows; it is asked beforehand, and must not change anything.
        then: ``partial(function, name=value, …)``, to be run as ``problem.apart(function, name=value, …)``.
        searches: how often ``then`` calls ``problem.search.maximize`` where what it tries is not kept.
    """

    merged: Merge
    promising: Callable[[Outcome], bool]
    then: partial[Any]
    searches: int = 1


Announced: TypeAlias = "Merge | Attempt | partial[Any]"
"""A merge to be evaluated; an attempt; or what ``problem.apart`` will be asked for, as a ``partial``."""
