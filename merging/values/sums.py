"""Sums whose bits do not depend on the version of Python."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable


def in_order(values: Iterable[float]) -> float:
    """Adds up numbers one after the other.

    Python's own ``sum`` does that up to 3.11, and from 3.12 on it makes good for what is lost in rounding: scores,
    and weights that sums have divided, would have other bits.
    """
    return functools.reduce(operator.add, values, 0.0)
