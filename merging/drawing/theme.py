"""Colours and shapes of every picture, in light and in dark, and Vega's settings that follow from them.

Colours are after Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart with every kind of colour vision: those
that are faint on white are darker, those that are faint on a dark page lighter (WCAG asks for a contrast of 3).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from merging.errors import showable

SCHEMES = {
    "ink": ("#1a1d21", "#e6e8eb"),
    "muted": ("#68707a", "#9aa3ad"),
    "grid": ("#d8dce2", "#343a42"),
    "paper": ("#fefefe", "#15181c"),
    "c1": ("#0072b2", "#3b8ed0"),
    "c2": ("#d55e00", "#d95f02"),
    "c3": ("#009e73", "#00a67a"),
    "c4": ("#c2709d", "#cc79a7"),
    "c5": ("#b97f00", "#e69f00"),
    "c6": ("#2f95cf", "#7cc8f2"),
    "c7": ("#5e3fa8", "#b3a2f2"),
}
"""Name of a colour → what it is in light (and in files) and in dark."""
INK, MUTED, GRID, PAPER = (f"var(--{name})" for name in ("ink", "muted", "grid", "paper"))
"""Text, secondary text, lines and ground, as a drawing names them."""
COLOURS = tuple(f"var(--{name})" for name in SCHEMES if name[1:].isdigit())
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross")
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Fonts that have the same widths, which ``words`` knows."""
FULL = 0.66
"""Opacity of the fullest cell of a heat map: ink can be read on it, in light and in dark (4.5)."""
_NAMES = ("values", "datasets", "domain", "title", "text", "description", "subtitle")
"""Keys of a specification below which names stand, and no colours."""


@dataclass(frozen=True)
class Look:
    """The look of a method: the name of its colour, and the shape of its points."""

    colour: str
    shape: str


def look(position: int) -> Look:
    """Says how the method at a position of a table is drawn; the first 35 differ, and neighbours do in both.

    Of the first 15 no two blue ones have one shape.
    """
    colour = position % len(COLOURS)
    shape = position + max(0, colour - 4)  # the last colours are like the first
    return Look(f"c{colour + 1}", SHAPES[shape % len(SHAPES)])


def config() -> dict[str, Any]:
    """Vega-Lite's settings for all pictures."""
    axis = {
        "aria": False,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
        "gridWidth": 0.8,
        "labelColor": MUTED,
        "labelFontSize": 11,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "tickSize": 4,
    }
    title = {"color": INK, "fontSize": 13, "fontWeight": "bold", "anchor": "start", "lineHeight": 16}
    below = {"subtitleColor": MUTED, "subtitleFontSize": 11.5, "subtitleLineHeight": 15, "subtitlePadding": 3}
    return {
        "font": FONT,
        "axis": axis,
        "title": title | below | {"aria": False},
        "text": {"fontSize": 11.5, "color": INK, "aria": False},
        "view": {"stroke": None},
        "rule": {"aria": False},
        "line": {"aria": False},
        "area": {"aria": False},
        "rect": {"aria": False},
        "point": {"aria": False},
    }


def finished(spec: Any, *, files: bool) -> Any:
    """A copy of a specification whose names can do no harm, and whose colours are what they are on white.

    Args:
        spec: the specification, or a part of it.
        files: colours are those of files; else they stay names, for a page that has them as variables.
    """
    if isinstance(spec, dict):
        if isinstance(spec.get("values"), str):  # the rows of a chart, see `frame.rows`
            spec = spec | {"values": json.loads(spec["values"])}
        return {
            key: _shown(value) if _holds_names(key, value) else finished(value, files=files)
            for key, value in spec.items()
        }
    if isinstance(spec, list | tuple):
        return [finished(value, files=files) for value in spec]
    if files and isinstance(spec, str) and spec.startswith("var(--") and spec[6:-1] in SCHEMES:
        return SCHEMES[spec[6:-1]][0]
    return spec


def _holds_names(key: str, value: Any) -> bool:
    return key in _NAMES and (key == "datasets" or not isinstance(value, dict))


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    return showable(value, keep="\n") if isinstance(value, str) else value
