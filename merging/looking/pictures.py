"""Pictures of what was looked at: scores along a line with their intervals, and distances between models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from merging.drawing import Size, matrix
from merging.drawing.frame import Headed, Margins, axis, coloured, framed, rows, shaped, told
from merging.drawing.places import Span, span
from merging.drawing.rail import Named, least, rail, room
from merging.drawing.theme import PAPER
from merging.errors import showable
from merging.values.report import number

if TYPE_CHECKING:
    from merging.looking.inspection import Inspection
    from merging.looking.interpolation import Interpolation


def curve(found: Interpolation, size: Size) -> alt.LayerChart:
    """Scores along the line between two models, each with the straight line between its ends and 95 % intervals."""
    percent = found.objective == "accuracy"
    labels = [showable(name) for name in found.scores]
    points = {label: _points(found, name, percent=percent) for label, name in zip(labels, found.scores, strict=True)}
    every = [point for each in points.values() for point in each]
    banded = [point for point in every if "low" in point]
    what = "top-1 in %" if percent else found.objective
    note = "dashed: the straight line between the ends" + (" · band: 95 % of each point" if banded else "")
    barrier = f"{(100 if percent else 1) * found.barrier():.2f}"
    headed = Headed.of(f"{what}; barrier {barrier} on the held-out data", note, size.width)
    right = room(labels, size)
    margins = Margins(50, right, headed.height + 6, 46)
    plot = Size(size.width - 50 - right, max(size.height - 110, least(labels) + 20))
    x = Span(0.0, 1.0, plot.width)
    y = span((point[key] for point in every for key in ("y", "low", "high") if key in point), plot.height)
    ends = [each[-1] for each in points.values()]
    place = {
        "x": axis("x", alt.X, x, showable(f"share of {found.second} (the rest: {found.first})")),
        "y": axis("y", alt.Y, y),
    }
    tip = told(method="set", score="score", share="share of the second model")
    colour = coloured(labels)
    dots = rows(every).mark_point(filled=True, size=34, opacity=1, stroke=PAPER, strokeWidth=0.7)
    layers = [
        rows(banded)
        .mark_area(opacity=0.18)
        .encode(x=place["x"], y=axis("low", alt.Y, y), y2="high:Q", fill=coloured(labels, alt.Fill)),
        rows(point for each in points.values() for point in (each[0], each[-1]))
        .mark_line(strokeWidth=1.2, strokeDash=[4, 3])
        .encode(**place, color=colour),
        rows(every).mark_line(strokeWidth=1.8).encode(**place, color=colour),
        dots.encode(**place, fill=coloured(labels, alt.Fill), shape=shaped(labels), tooltip=tip),
        *rail([Named(e["method"], plot.width, plot.height - y.at(e["y"])) for e in ends], labels, plot, right),
    ]
    return framed(layers, Size(size.width, plot.height + margins.top + margins.bottom), margins, headed)


def _points(found: Interpolation, name: str, *, percent: bool) -> list[dict[str, Any]]:
    factor = 100 if percent else 1
    intervals = found.intervals(name) or [None] * len(found.shares)
    made = []
    for share, score, interval in zip(found.shares, found.scores[name], intervals, strict=True):
        point: dict[str, Any] = {"method": showable(name), "x": share, "y": factor * score, "share": f"{share:.2f}"}
        point["score"] = number(score, percent=percent)
        if interval is not None:
            low, high = (factor * end for end in interval)
            point |= {"low": low, "high": high, "score": f"{point['score']} [{low:.2f}, {high:.2f}]"}
        made.append(point)
    return made


def distances(found: Inspection, size: Size) -> alt.LayerChart:
    """Draws the distances between the models of a pool, in percent of the weights' length."""
    geometry = found.geometry
    if geometry is None:
        raise ValueError("distances need two models")
    names = [showable(name) for name in found.pool]
    values = 100 * geometry.distances / geometry.norm
    title = "Distance in % of the weights' length"
    words = ("model", "to", "distance in %")
    return matrix(values, (names, names), size, title, limit=float(values.max()), words=words)


def cosines(found: Inspection, size: Size) -> alt.LayerChart:
    """Draws the cosines of the angles between the models' differences from the base."""
    geometry = found.geometry
    if geometry is None or geometry.cosines is None:
        raise ValueError("cosines need a base")
    names = [showable(name) for name in found.pool]
    title = "Cosine of the differences from the base"
    return matrix(geometry.cosines, (names, names), size, title, limit=1.0, words=("model", "and", "cosine"))
