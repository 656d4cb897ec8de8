"""A matrix as a heat map: cells start at the ground's colour, and every row and column has its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from merging.drawing.frame import Headed, Margins, Size, framed, pixel, rows, told
from merging.drawing.theme import COLOURS, FULL, MUTED
from merging.drawing.words import apart, width

LEAST, MOST = 11.0, 44.0
"""Pixels of a cell's width: the least, that names still fit; and the most."""
HIGH, SMALL = 15.0, 10.5
"""Pixels of a cell's height, and the size of the fonts."""
ANNOTATED = 400
"""Heat maps of up to so many cells show the numbers, where these fit."""
POSITIVE, NEGATIVE = COLOURS[0], COLOURS[1]
STEPS = 20
"""Steps of the legend."""
ABOVE = 15.0
"""Pixels that it takes above the cells."""


def matrix(
    values: NDArray[np.float64],
    names: tuple[Sequence[str], Sequence[str]],
    size: Size,
    title: str,
    *,
    limit: float,
    words: tuple[str, str, str] = ("model", "component", "value"),
    form: str = ".2f",
) -> alt.LayerChart:
    """Draws a matrix; one with more rows grows taller, and one with too many columns stands in bands.

    Args:
        values: shape ``(rows, columns)``.
        names: names of the rows, and of the columns.
        size: size of the picture; its height follows from the rows.
        title: stands above.
        limit: the absolute value of the fullest colour.
        words: what a row, a column and a value are called.
        form: form of the numbers, as ``format`` takes it.
    """
    left = 14 + min(max(width(name, SMALL) for name in names[0]), 0.32 * size.width)
    below = 10 + min(max(width(name, SMALL) for name in names[1]), 150.0)
    wide, columns = size.width - left - 14, len(names[1])
    per = min(columns, max(1, int(wide // LEAST)))
    per = -(-columns // -(-columns // per))  # bands of about one length
    cell = min(wide / per, MOST)
    band = HIGH * len(names[0]) + below
    headed = Headed.of(title, "", size.width)
    margins = Margins(left, 14, headed.height + 20, 4, taken=ABOVE)
    height = band * -(-columns // per)
    shown = apart(names[0], left - 12, SMALL), apart(names[1], below - 8, SMALL)
    cells = [
        {
            "model": names[0][i],
            "column": names[1][j],
            "value": f"{value:{form}}",
            "x": round((j % per + 0.5) * cell, 2),
            "y": round(j // per * band + (i + 0.5) * HIGH, 2),
            "shade": round(min(abs(value) / limit, 1.0) * FULL, 3) if limit else 0.0,
            "sign": -1 if value < 0 else 1,
        }
        for (i, j), value in np.ndenumerate(values)
    ]
    tall = Size(size.width, height + margins.top + margins.bottom)
    layers = _cells(cells, cell, words)
    if values.size <= ANNOTATED and cell >= max(width(each["value"], 9.5) for each in cells) + 4:
        text = rows(cells).mark_text(fontSize=9.5)
        layers.append(text.encode(pixel("x", alt.X), pixel("y", alt.Y), text="value:N"))
    layers += _names(shown, (per, cell, band))
    layers += _legend(limit, bool((values < 0).any()), max(per * cell, 150.0), form)
    return framed(layers, tall, margins, headed, f"{title}: {len(names[0])} × {columns} values")


def _cells(cells: Sequence[dict[str, Any]], cell: float, words: tuple[str, str, str]) -> list[alt.Chart]:
    gap = 0.5 if cell > 6 else 0.0
    drawn = rows(cells).mark_rect(width=cell - gap, height=HIGH - 0.5)
    return [
        drawn.encode(
            x=pixel("x", alt.X),
            y=pixel("y", alt.Y),
            fill=alt.condition("datum.sign < 0", alt.value(NEGATIVE), alt.value(POSITIVE)),
            fillOpacity=alt.FillOpacity("shade:Q", scale=None),
            tooltip=told(model=words[0], column=words[1], value=words[2]),
        )
    ]


def _names(shown: tuple[list[str], list[str]], grid: tuple[int, float, float]) -> list[alt.Chart]:
    per, cell, band = grid
    bands = -(-len(shown[1]) // per)
    beside = [
        {"name": name, "x": -6, "y": k * band + (i + 0.5) * HIGH}
        for k in range(bands)
        for i, name in enumerate(shown[0])
    ]
    under = [
        {"name": name, "x": round((j % per + 0.5) * cell, 2), "y": j // per * band + HIGH * len(shown[0]) + 5}
        for j, name in enumerate(shown[1])
    ]
    texts: dict[str, Any] = {"align": "right", "baseline": "middle", "fontSize": SMALL}
    place = {"x": pixel("x", alt.X), "y": pixel("y", alt.Y), "text": alt.Text("name:N")}
    return [rows(beside).mark_text(**texts).encode(**place), rows(under).mark_text(angle=270, **texts).encode(**place)]


def _legend(limit: float, negative: bool, right: float, form: str) -> list[alt.Chart]:
    """What the colours mean: from no value, or the negative ones, to the largest."""
    low = -STEPS if negative else 0
    long, end = 5.0, width(f"{limit:{form}}", SMALL) + 4
    start = right - end - long * (STEPS - low)
    swatches = [
        {"x": start + (k - low + 0.5) * long, "shade": round(abs(k + 0.5) / STEPS * FULL, 3), "sign": k}
        for k in range(low, STEPS)
    ]
    ends: list[dict[str, Any]] = [
        {"name": f"{-limit if negative else 0.0:{form}}", "x": start - 4, "y": -11, "side": "right"}
    ]
    ends += [{"name": f"{limit:{form}}", "x": right - end + 4, "y": -11, "side": "left"}]
    made = [
        rows(swatches)
        .mark_rect(width=long, height=8)
        .encode(
            x=pixel("x", alt.X),
            y=alt.YValue(-11),
            fill=alt.condition("datum.sign < 0", alt.value(NEGATIVE), alt.value(POSITIVE)),
            fillOpacity=alt.FillOpacity("shade:Q", scale=None),
        )
    ]
    for each in ends:
        text = rows([each]).mark_text(align=each["side"], baseline="middle", fontSize=SMALL, color=MUTED)
        made.append(text.encode(pixel("x", alt.X), pixel("y", alt.Y), text="name:N"))
    return made
