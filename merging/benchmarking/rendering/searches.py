"""How far searches came, and with what: the best held-out score so far over what was spent."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import altair as alt
import numpy as np

from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.drawing.frame import Headed, Margins, Size, axis, coloured, framed, rows, shaped, told
from merging.drawing.places import Span, rings, span
from merging.drawing.rail import Named, least, rail, room
from merging.drawing.theme import PAPER
from merging.errors import showable
from merging.plugins.task import HELD_OUT
from merging.values.report import number

END = 64.0
"""Area of the point at a line's end, in pixels."""
EARLY = 0.25
"""Scores below the last ones and below this share of all steps are left off the plot: those of first trials."""


def searched(found: Benchmark) -> list[BenchmarkRow]:
    """The rows that came to better scores step by step."""
    return [row for row in found.rows if len(row.trace) > 1]


def search(found: Benchmark, size: Size) -> alt.LayerChart:
    """Draws the incumbent's score over forward-equivalents spent; of several seeds, the first."""
    methods = searched(found)
    labels = [showable(row.label) for row in found.rows]
    names = [showable(row.label) for row in methods]
    percent = found.percent(HELD_OUT)
    what = "top-1 in %" if percent else found.objective
    seed = f", seed {found.seeds[0]}" if len(found.seeds) > 1 else ""
    brief = " (bf16)" if found.header.get("numerics", {}).get("dtype") == "bfloat16" else ""  # tables are fp32
    note = "a step: a merge that is better than all before it · end: all that was spent"
    headed = Headed.of(f"Best held-out score so far{brief}, {what}{seed}", note, size.width)
    right = room(names, size)
    margins = Margins(50, right, headed.height + 6, 46)
    plot = Size(size.width - margins.left - right, max(size.height - 110, least(names) + 20))
    steps = {showable(row.label): _steps(found, row, percent=percent) for row in methods}
    for lower, each in enumerate(steps.values()):  # of lines over each other the lower ones are wider
        for step in each:
            step["wide"] = round(3.2 - 1.8 * lower / max(len(steps) - 1, 1), 2)
    x, y = _axes(steps, plot)
    place = {"x": axis("x", alt.X, x, "forward-equivalents (log)", format=",~f"), "y": axis("y", alt.Y, y)}
    every = [step for each in steps.values() for step in each]
    ends = [each[-1] for each in steps.values()]
    titles = told(method="method", score="best held-out score", spent="forward-equivalents", count="evaluations")
    line = rows(every).mark_line(interpolate="step-after", clip=True)
    dots = rows(step for step in every if y.inside(step["y"])).mark_point(filled=True, size=16, opacity=1)
    larger = rings([(x.at(each["x"]), y.at(each["y"])) for each in ends])
    large = [each | {"size": END * (1 + 0.9 * min(many, 3))} for each, many in zip(ends, larger, strict=True)]
    last = rows(large).mark_point(filled=True, opacity=1, stroke=PAPER, strokeWidth=1)
    size_of = alt.Size("size:Q", scale=None)
    layers = [
        line.encode(**place, color=coloured(labels), strokeWidth=alt.StrokeWidth("wide:Q", scale=None)),
        dots.encode(**place, color=coloured(labels), tooltip=titles),
        last.encode(**place, fill=coloured(labels, alt.Fill), shape=shaped(labels), size=size_of, tooltip=titles),
        *rail([Named(e["method"], x.at(e["x"]), plot.height - y.at(e["y"])) for e in ends], labels, plot, right),
    ]
    return framed(layers, Size(size.width, plot.height + margins.top + margins.bottom), margins, headed)


def _steps(found: Benchmark, row: BenchmarkRow, *, percent: bool) -> list[dict[str, Any]]:
    factor = 100 if percent else 1
    spent = [max(cost, 1.0) for cost, _, _ in row.trace]
    best = list(accumulate((score for _, _, score in row.trace), max))
    end = spent[-1] if len(row.seeds) > 1 else max(row.forward_equivalents, spent[-1])
    counts = [count for _, count, _ in row.trace]
    last = counts[-1] if len(row.seeds) > 1 else max(int(row.evaluations), counts[-1])
    return [
        {
            "method": showable(row.label),
            "x": cost,
            "y": factor * score,
            "score": number(score, percent=percent),
            "spent": f"{cost:,.0f}",
            "count": f"{count:,}",
        }
        for cost, score, count in zip([*spent, end], [*best, best[-1]], [*counts, last], strict=True)
    ]


def _axes(steps: dict[str, list[dict[str, Any]]], plot: Size) -> tuple[Span, Span]:
    """Axes over all that was spent, and over the scores from those that are worth a look on."""
    scores = [step["y"] for each in steps.values() for step in each]
    last = min(each[-1]["y"] for each in steps.values())
    low = min(last, float(np.quantile(scores, EARLY)))
    y = span([max(score, low) for score in scores], plot.height)
    most = max(step["x"] for each in steps.values() for step in each)
    least = min(step["x"] for each in steps.values() for step in each)
    return Span(least, max(most, 1.5 * least) * 1.1, plot.width, log=True), y
