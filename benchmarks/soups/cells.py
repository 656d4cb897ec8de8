"""Figures and tables in Markdown: points, intervals, means over pools."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from benchmarks.soups.statistics import OverPools
from merging.values.markdown import plain
from merging.values.statistics import Interval

NOTHING = "–"


def rounded(value: float, digits: int = 2) -> str:
    """A number with so many decimals; what its last bit would decide is decided alike on every machine."""
    text = f"{round(value, 9):.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def percent(fraction: float) -> str:
    """An accuracy in per cent."""
    return rounded(100 * fraction)


def points(difference: float) -> str:
    """A difference of accuracies in points, with its sign."""
    text = rounded(100 * difference)
    return text if text.startswith("-") else f"+{text}"


def between(interval: Interval) -> str:
    """An interval of a difference, in points."""
    low, high = interval
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """A p value with two significant digits."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def spread(found: OverPools, factor: float = 100, digits: int = 2) -> str:
    """Mean ± standard deviation over pools."""
    if not found.values:
        return NOTHING
    half = f" ±{rounded(factor * found.deviation, digits)}" if len(found.values) > 1 else ""
    return f"{rounded(factor * found.mean, digits)}{half}"


def exploratory(found: OverPools, least: int) -> str:
    """A mean difference with its 95 % t interval where there are ``least`` pools, which nothing corrects."""
    if not found.values:
        return NOTHING
    told = f" ({between(found.interval())})" if len(found.values) >= least else ""
    return points(found.mean) + told


def amount(values: Iterable[object]) -> str:
    """The mean of a cost over the pools that know it: whole, or with one decimal below 10."""
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not known:
        return NOTHING
    mean = math.fsum(known) / len(known)
    return f"{mean:,.0f}" if mean >= 10 or mean == round(mean) else rounded(mean, 1)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def code(name: str) -> str:
    """A method's or pool's name."""
    return f"`{name}`" if re.fullmatch(r"[\w.+-]+", name) else plain(name)


def named(names: Iterable[str]) -> str:
    """Names of pools or methods in one line."""
    return ", ".join(map(code, names)) or NOTHING
