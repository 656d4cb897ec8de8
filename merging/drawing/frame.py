"""What all pictures share: a size, margins that are known beforehand, a title, and which methods are hidden.

Margins are given and not measured, so that a picture has the same places on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from merging.drawing.places import Span, powers
from merging.drawing.theme import PAPER, config, look
from merging.drawing.words import lines, shortened
from merging.errors import showable

Row = Mapping[str, Any]
HIDDEN = "hidden"
"""The parameter that lists the methods that are not drawn; a page sets it."""
TAKEN = ("image", "title")
"""Names of figures that Vega's tooltip takes for a picture and a heading."""


@dataclass(frozen=True)
class Size:
    """Size of a whole picture in pixels; one that has more to show grows taller."""

    width: float
    height: float

    @property
    def narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.width < 500


WIDE, NARROW = Size(740, 420), Size(350, 420)
"""Sizes of pictures for a desktop, and for a phone."""
Drawing = Callable[[Size], alt.LayerChart]
"""Makes a chart of a size."""


@dataclass(frozen=True)
class Margins:
    """Pixels around the plot: at its left and right, for the title above, and below.

    Of those above, ``taken`` are for what is drawn there besides the title.
    """

    left: float
    right: float
    top: float
    bottom: float
    taken: float = 0.0


@dataclass(frozen=True)
class Headed:
    """A title with a line below it, broken into lines that fit a width."""

    title: Sequence[str]
    below: Sequence[str]

    @classmethod
    def of(cls, title: str, below: str, width: float) -> Headed:
        """Breaks both into lines."""
        return cls(lines(title, width - 12, 13.6), lines(below, width - 12, 11.5) if below else [])

    @property
    def height(self) -> float:
        """Pixels that it takes."""
        return 12 + 16 * len(self.title) + 15 * len(self.below) + (3 if self.below else 0)


def framed(
    layers: Iterable[alt.Chart | alt.LayerChart], size: Size, margins: Margins, headed: Headed, about: str = ""
) -> alt.LayerChart:
    """Puts layers together to a picture.

    Args:
        layers: what is drawn, the lowest first.
        size: size of the whole.
        margins: what the plot leaves of it.
        headed: title.
        about: what one sees, for those who do not; the title unless it is said.
    """
    below: dict[str, Any] = {"subtitle": list(headed.below)} if headed.below else {}
    title = alt.TitleParams(
        list(headed.title),
        **below,
        dx=6 - margins.left,
        offset=margins.top - margins.taken - headed.height,  # from all that is drawn
        frame="group",
    )
    made = alt.layer(*layers).add_params(alt.param(name=HIDDEN, value=[])).resolve_scale(strokeDash="independent")
    return made.properties(  # type: ignore[no-any-return]
        width=size.width - margins.left - margins.right,
        height=size.height - margins.top - margins.bottom,
        padding={
            "left": margins.left,
            "right": margins.right,
            "top": margins.top,
            "bottom": margins.bottom,
        },
        autosize=alt.AutoSizeParams(type="none"),
        background=PAPER,
        title=title,
        description=about or " ".join(headed.title),
        config=config(),
    )


def rows(values: Iterable[Row]) -> alt.Chart:
    """A chart of rows, of which those of hidden methods are left out.

    The rows are one text until the specification is finished: Altair copies and checks whatever is in a chart, piece by
    piece, at each step.
    """
    text = json.dumps([dict(row) for row in values], ensure_ascii=False, default=lambda number: number.item())
    chart = alt.Chart(alt.Data(values=text))
    return chart.transform_filter(f"indexof({HIDDEN}, datum.method) < 0")


def axis(field: str, kind: type[Any], ends: Span, title: str = "", **settings: Any) -> Any:
    """A numeric axis with as many numbers as there is room for; all layers of a picture give the same title.

    Args:
        field: name of the field.
        kind: ``altair.X`` or ``altair.Y``.
        ends: its ends and length.
        title: what stands beside it.
        settings: other properties of ``altair.Axis``.
    """
    many = max(2, int(ends.pixels / 42))
    ticks = {"values": powers(ends, many)} if ends.log else {"tickCount": many}
    said = shortened(title, ends.pixels + 40, 12) or None
    drawn = alt.Axis(title=said, labelFlush=False, **ticks, **settings)
    kept: dict[str, Any] = {"type": "log"} if ends.log else {"zero": False}
    scale = alt.Scale(domain=[ends.low, ends.high], nice=False, **kept)
    return kind(f"{field}:Q", scale=scale, axis=drawn)


def pixel(field: str, kind: type[Any]) -> Any:
    """A place that is given in pixels from the plot's upper left corner."""
    return kind(f"{field}:Q", scale=None)


def coloured(labels: Sequence[str], kind: type[Any] = alt.Color) -> Any:
    """Gives each method its colour."""
    colours = [f"var(--{look(place).colour})" for place in range(len(labels))]
    return kind("method:N", scale=alt.Scale(domain=list(labels), range=colours), legend=None)


def shaped(labels: Sequence[str]) -> alt.Shape:
    """Gives each method its shape."""
    shapes = [look(place).shape for place in range(len(labels))]
    return alt.Shape("method:N", scale=alt.Scale(domain=list(labels), range=shapes), legend=None)


def told(**titles: str) -> list[alt.Tooltip]:
    """A tooltip: field → what it is called. Vega-Lite puts that into an expression, and escapes no backslash in it."""
    shown = {field: showable(name).replace("\\", "\\\\") for field, name in titles.items()}
    return [alt.Tooltip(f"{field}:N", title=f"{name} " if name in TAKEN else name) for field, name in shown.items()]
