"""A benchmark's pictures: differences as a forest, the scatter of Figure 2, the searches, coefficients as heat maps."""

from __future__ import annotations

import re
from functools import partial

import altair as alt
import numpy as np

from merging.benchmarking.rendering.scatter import scatter
from merging.benchmarking.rendering.searches import search, searched
from merging.benchmarking.rendering.tables import heading, main, placed
from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.benchmarking.runs import Coefficients
from merging.drawing import Drawing, Size, matrix
from merging.errors import showable
from merging.values.forest import Entry, forest


def drawings(found: Benchmark) -> dict[str, Drawing]:
    """The pictures that there is something to draw for: name → what draws it."""
    made: dict[str, Drawing] = {}
    if entries := differences(found):
        made["forest"] = partial(forest, entries, "methods")
    if placed(found):
        made["scatter"] = partial(scatter, found)
    if searched(found):
        made["search"] = partial(search, found)
    for row in found.rows:
        if row.coefficients is not None and _worth(row.coefficients):
            made[map_name(row)] = partial(heat_map, row)
    return made


def differences(found: Benchmark) -> list[Entry]:
    """The verdicts against the best single model on the sets from which conclusions are drawn, set by set."""
    columns, entries = main(found), []
    for column in columns:
        for row in found.rows:
            verdict = row.verdict("best", column)
            if verdict is not None and verdict.tested:
                group = heading(found, column) if len(columns) > 1 else ""
                entries.append(Entry(showable(row.label), group, showable(row.label), verdict))
    return entries


def map_name(row: BenchmarkRow) -> str:
    """Name of the picture of a row's coefficients."""
    return re.sub(r"[^\w.+-]+", "-", f"coefficients-{row.label}").strip("-")


def _worth(drawn: Coefficients) -> bool:
    """A table that differs from model to model or from component to component."""
    return len(drawn.ingredients) > 1 and len(np.unique(drawn.values.round(12))) > 1


def heat_map(row: BenchmarkRow, size: Size) -> alt.LayerChart:
    """Draws a merge's coefficients, ingredients × components; models of which it holds most come first."""
    drawn = row.coefficients
    if drawn is None:
        raise ValueError(f"{row.label} has no coefficients")
    keep = [i for i, values in enumerate(drawn.values) if values.any()]
    order = sorted(keep, key=lambda i: -float(drawn.values[i].sum()))
    return matrix(
        drawn.values[order],
        ([showable(drawn.ingredients[i]) for i in order], [showable(name) for name in drawn.components]),
        size,
        f"{showable(row.label)}: coefficients",
        limit=float(np.abs(drawn.values).max()),
        words=("model", "component", "coefficient"),
    )
