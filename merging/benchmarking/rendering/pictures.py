"""A benchmark's pictures: the scatter of Figure 2, coefficients as heat maps, accuracy along the search."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from merging.benchmarking.rendering.tables import heading, home, placed, single_scores
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.benchmarking.runs import Coefficients
from merging.drawing import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    Drawing,
    matrix,
    name_points,
    with_rail,
)
from merging.errors import showable
from merging.plugins.task import HELD_OUT

_CLEAR = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
"""Keeps the grid's lines out of a text."""


def drawings(found: Benchmark) -> dict[str, Drawing]:
    """The pictures that there is something to draw for: name → what draws it on a figure."""
    made: dict[str, Drawing] = {}
    if placed(found):
        made["scatter"] = lambda figure: scatter(figure, found)
    if any(len(row.trace) > 1 for row in found.rows):
        made["search"] = lambda figure: search(figure, found)
    for row in found.rows:
        if row.coefficients is not None and _worth(row.coefficients):
            made[map_name(row)] = lambda figure, row=row: heat_map(figure, row)  # type: ignore[misc]
    return made


def map_name(row: BenchmarkRow) -> str:
    """Name of the picture of a row's coefficients."""
    return re.sub(r"[^\w.+-]+", "-", f"coefficients-{row.label}").strip("-")


def _worth(drawn: Coefficients) -> bool:
    """A table that differs from model to model or from component to component."""
    return len(drawn.ingredients) > 1 and len(np.unique(drawn.values.round(12))) > 1


def _looks(rows: Sequence[BenchmarkRow]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each row, by its label; rows of one strategy share the colour."""
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    seen: dict[str, int] = {}
    looks = {}
    for row in rows:
        kind = strategies.index(row.strategy)
        variant = seen[row.strategy] = seen.get(row.strategy, -1) + 1
        looks[row.label] = COLOURS[kind % len(COLOURS)], MARKERS[(kind // len(COLOURS) + variant) % len(MARKERS)]
    return looks


def scatter(figure: Figure, found: Benchmark) -> None:
    """In-distribution against shifted scores: every single model, every method (Fassold 2023, Figure 2)."""
    column, rows = home(found), placed(found)
    factor = 100 if found.percent(SHIFTED) else 1
    what = "top-1 in %" if factor == 100 else found.objective
    axes = with_rail(figure, [row.label for row in rows])
    singles = [(factor * x, factor * y) for x, y in single_scores(found)]
    if singles:
        x, y = zip(*singles, strict=True)
        axes.scatter(x, y, s=22, facecolors=PAPER, edgecolors=MUTED, linewidths=0.9, zorder=2)
    entries = []
    looks = _looks(found.rows)
    for row in rows:
        colour, marker = looks[row.label]
        at = factor * (row.value(column) or 0.0), factor * (row.shifted or 0.0)
        hollow = row.inference_cost > 1
        axes.scatter(
            *at,
            s=52,
            marker=marker,
            facecolors=PAPER if hollow else colour,
            edgecolors=colour if hollow else PAPER,
            linewidths=1.4 if hollow else 0.8,
            zorder=3,
        )
        entries.append((*at, row.label, colour))
    axes.margins(0.08)
    axes.set_xlabel(f"{heading(found, column)}, {what}")
    axes.set_title(f"average of the shifted sets, {what}", color=INK, fontsize=9)
    name_points(axes, entries)
    _interval(axes, rows, column, factor)
    if singles:
        text = (
            "○ single models; hollow: ensembles" if any(row.inference_cost > 1 for row in rows) else "○ single models"
        )
        axes.text(0.015, 0.985, text, transform=axes.transAxes, va="top", fontsize=7.5, color=MUTED, bbox=_CLEAR)


def _interval(axes: Axes, rows: Sequence[BenchmarkRow], column: str, factor: float) -> None:
    """How large the 95 % intervals are: one cross, because all are nearly alike."""
    halves = []
    for name in (column, SHIFTED):
        found = [
            factor * (row.intervals[name][1] - row.intervals[name][0]) / 2 for row in rows if name in row.intervals
        ]
        if not found:
            return
        halves.append(statistics.median(found))
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    wide, tall = 2 * halves[0] > 0.9 * (right - left), 2 * halves[1] > 0.9 * (high - low)
    if wide or tall:  # larger than the picture: say it instead
        text = f"95 % intervals: ±{halves[0]:.2g} across, ±{halves[1]:.2g} up"
        axes.text(0.985, 0.02, text, transform=axes.transAxes, ha="right", fontsize=7.5, color=MUTED, bbox=_CLEAR)
        return
    x = left + 0.03 * (right - left) + halves[0]
    y = low + 0.04 * (high - low) + halves[1]
    axes.errorbar([x], [y], xerr=halves[0], yerr=halves[1], color=MUTED, lw=0.9, capsize=2, zorder=1)
    axes.annotate("95 %", (x, y), (3, 3), textcoords="offset points", fontsize=7.5, color=MUTED, bbox=_CLEAR)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def search(figure: Figure, found: Benchmark) -> None:
    """The best held-out score so far, over forward-equivalents spent; of several seeds, the first."""
    rows = [row for row in found.rows if len(row.trace) > 1]
    axes = with_rail(figure, [row.label for row in rows])
    factor = 100 if found.percent(HELD_OUT) else 1
    entries = []
    looks = _looks(found.rows)
    for row in rows:
        colour, marker = looks[row.label]
        spent = [max(cost, 1.0) for cost, _, _ in row.trace]
        scores = [factor * score for _, _, score in row.trace]
        end = spent[-1] if len(row.seeds) > 1 else max(row.forward_equivalents, spent[-1])
        axes.step([*spent, end], [*scores, scores[-1]], where="post", color=colour, lw=1.4)
        axes.scatter([end], [scores[-1]], s=26, marker=marker, color=colour, zorder=3)
        entries.append((end, scores[-1], row.label, colour))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")  # matplotlib's own is TeX, which is off for the sake of names
    if max((end for end, *_ in entries), default=0.0) < 100:  # no two decades, which would leave a single tick
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(0.06)
    axes.set_xlabel("forward-equivalents (log)")
    what = "top-1 in %" if factor == 100 else found.objective
    seed = f", seed {found.seeds[0]}" if len(found.seeds) > 1 else ""
    brief = " (bf16)" if found.header.get("numerics", {}).get("dtype") == "bfloat16" else ""  # tables are fp32
    axes.set_title(f"best held-out score so far{brief}, {what}{seed}", color=INK, fontsize=9)
    name_points(axes, entries)


def heat_map(figure: Figure, row: BenchmarkRow) -> None:
    """Draws a merge's coefficients: ingredients × components."""
    drawn = row.coefficients
    if drawn is None:
        raise ValueError(f"{row.label} has no coefficients")
    keep = [i for i, values in enumerate(drawn.values) if values.any()]
    values, names = drawn.values[keep], [showable(drawn.ingredients[i]) for i in keep]
    components = [showable(name) for name in drawn.components]
    negative = bool((values < 0).any())
    limit = float(np.abs(values).max())
    matrix(
        figure,
        values,
        (names, components),
        f"{row.label}: coefficients",
        limits=(-limit if negative else 0.0, limit),
        colours="PuOr" if negative else "cividis",
    )
