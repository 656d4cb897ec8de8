"""Figures and tables in Markdown: points, intervals, means over pools."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import OverPools, within
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
    return "< 0.0001" if p < 1e-4 else f"{p:#.2g}"


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


def own(record: Record, one: Scored | None, other: Scored | None, *sets: str) -> str:
    """One pool's difference over some of its sets, with the interval over its samples."""
    if one is None or other is None or one is other:
        return NOTHING
    found = within(record, one, other, *sets)
    return f"{points(found.difference)} ({between(found.interval)})"


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


def runs(names: Iterable[str]) -> str:
    """Names of pools in one line, three and more that are counted on as the first and the last number.

    >>> runs(["pacs-a-1", "pacs-a-2", "pacs-a-3", "cifar10-1", "cifar10-3"])
    '`pacs-a-1` … `3`, `cifar10-1`, `cifar10-3`'
    """
    series: list[list[str]] = []
    for name in names:
        if series and _follows(series[-1][-1], name):
            series[-1].append(name)
        else:
            series.append([name])
    told = [
        [f"{code(each[0])} … {code(each[-1].rpartition('-')[2])}"] if len(each) > 2 else [named(each)]
        for each in series
    ]
    return ", ".join(text for texts in told for text in texts) or NOTHING


def _follows(name: str, after: str) -> bool:
    (kind, _, number), (other, _, counted) = name.rpartition("-"), after.rpartition("-")
    return kind == other and number.isdecimal() and counted.isdecimal() and int(counted) == int(number) + 1


def folded(title: str, *parts: str) -> str:
    """Parts that are shown on demand."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])
