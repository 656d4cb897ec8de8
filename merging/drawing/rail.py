"""Names in a column at the right of a plot, in the order of their points' heights, a dotted line to each point.

So no name covers a point or another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from merging.drawing.frame import Size, coloured, pixel, rows
from merging.drawing.places import spread
from merging.drawing.words import apart, width

STEP, FONT = 14.0, 11.5
"""Pixels from one name to the next, and the size of its font."""
AWAY = 12.0
"""Pixels between the plot and the names."""


@dataclass(frozen=True)
class Named:
    """A name for a point: the method, where the point is in pixels, and what is said behind the name."""

    method: str
    x: float
    y: float
    more: str = ""


def room(names: Sequence[str], size: Size) -> float:
    """Pixels that a column of names takes; of a picture's width two fifths at the most."""
    widest = max((width(name, FONT) for name in names), default=0.0)
    return AWAY + min(widest + 10, (0.4 if size.narrow else 0.34) * size.width)


def least(names: Sequence[str]) -> float:
    """The height in pixels that a plot needs, so that its names keep their distance."""
    return STEP * len(names)


def rail(points: Sequence[Named], labels: Sequence[str], plot: Size, right: float) -> list[alt.Chart]:
    """The names and their lines, as layers.

    Args:
        points: points with names.
        labels: all methods of the picture, in the order of their looks.
        plot: size of the plot.
        right: pixels at its right, from :func:`room`.
    """
    places = spread([point.y for point in points], STEP, 5.0, plot.height - 5.0)
    shown = apart([point.method + point.more for point in points], right - AWAY - 6, FONT)
    values = [
        {
            "method": point.method,
            "name": name,
            "px": round(point.x, 1),
            "py": round(point.y, 1),
            "place": round(place, 1),
        }
        for point, name, place in zip(points, shown, places, strict=True)
    ]
    made = rows(values)
    lines = made.mark_rule(strokeWidth=0.9, strokeDash=[2, 2]).encode(
        x=pixel("px", alt.X),
        y=pixel("py", alt.Y),
        x2=alt.X2Value(plot.width + AWAY - 3),
        y2=alt.Y2("place:Q"),
        color=coloured(labels),
    )
    names = made.mark_text(align="left", baseline="middle").encode(
        x=alt.XValue(plot.width + AWAY), y=pixel("place", alt.Y), text="name:N", tooltip=["method:N"]
    )
    return [lines, names]
