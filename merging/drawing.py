"""How pictures look, and how they are written: PNG, SVG, and SVG inside a page that follows light and dark.

Colours are after Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart with every kind of colour vision: those
that are faint on white are darker, those that are faint on a dark page lighter (WCAG asks for a contrast of 3). Names
stand beside the points and lines they belong to, in a column of their own, so that none covers another.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from merging.errors import showable

INK, MUTED, GRID, PAPER = "#1a1d21", "#68707a", "#d8dce2", "#fefefe"
"""Text, secondary text, lines and ground."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2709d", "#b97f00", "#2f95cf")
SCHEMES = {
    "ink": (INK, "#e6e8eb"),
    "muted": (MUTED, "#9aa3ad"),
    "grid": (GRID, "#343a42"),
    "paper": (PAPER, "#15181c"),
    **{
        f"c{number}": pair
        for number, pair in enumerate(
            zip(COLOURS, ("#3b8ed0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7cc8f2"), strict=True), 1
        )
    },
}
"""A page's names of these colours: what each is there in light (as in files) and in dark."""
ON_CELLS = ("#020202", "#fdfdfd")
"""Numbers in the cells of a heat map, whose colours are the same in light and dark."""
MARKERS = "osDv^Pp*X"
ANNOTATED = 160
"""Heat maps of up to so many cells show the numbers."""
WIDE, NARROW = (7.4, 4.2), (3.7, 4.4)
"""Inches: for a desktop, and for a phone."""

Drawing = Callable[[Figure], None]
SCREEN = 100
"""Dots per inch of a picture in a notebook, which shows it that large and four times as sharp."""


class Picture(Figure):
    """A figure that shows itself in a notebook; pyplot does not know it, so that nothing has to be closed."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        out, (width, height) = io.BytesIO(), self.get_size_inches()
        with _style(""):
            self.savefig(out, format="png", dpi=2 * SCREEN, facecolor=PAPER)
        return out.getvalue(), {"width": round(SCREEN * width), "height": round(SCREEN * height)}


def picture(drawing: Drawing, size: tuple[float, float] | None = None) -> Picture:
    """Draws a picture and gives the figure, to be shown, changed or saved.

    Args:
        drawing: what draws it.
        size: inches; ``WIDE`` unless it is said.
    """
    with _style(""):
        made = Picture(figsize=size or WIDE, facecolor=PAPER)
        FigureCanvasAgg(made)
        _drawn(made, drawing)
        made.draw_without_rendering()  # makes the ticks, which take their looks from the settings of the moment
    return made


def draw(drawing: Drawing, name: str, size: tuple[float, float], *kinds: Literal["png", "svg"]) -> list[bytes]:
    """Draws a picture once and gives its files; they have the same bits every time.

    Args:
        drawing: what draws it.
        name: its identifiers in SVG follow from it, so that several pictures can stand in one page.
        size: inches.
        kinds: kinds of files, in the order of the result.
    """
    found = []
    with _style(f"{name}{size}"):
        figure = Figure(figsize=size, facecolor=PAPER)
        FigureCanvasAgg(figure)
        _drawn(figure, drawing)
        for kind in kinds:
            out = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(out, format=kind, dpi=160, metadata=metadata)
            found.append(out.getvalue())
    return found


def _drawn(figure: Figure, drawing: Drawing) -> None:
    """Draws, and writes what would act in a name as its code."""
    drawing(figure)
    for text in figure.findobj(Text):
        said = showable(text.get_text(), keep="\n")
        if said != text.get_text():
            text.set_text(said)


def inline(svg: bytes) -> str:
    """An SVG file's picture to stand inside an HTML page, its text, lines and ground in the page's own colours."""
    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in all pictures, and nothing refers to them
    names = {light: name for name, (light, _) in SCHEMES.items()}

    def follow(colour: re.Match[str]) -> str:
        return f"var(--{names[colour[0]]})" if colour[0] in names else colour[0]

    return re.sub(r'(?<= style=")[^"]*', lambda style: re.sub(r"#[0-9a-f]{6}\b", follow, style[0]), text)


def on(cell: Iterable[float]) -> str:
    """The colour of text that is read best on a cell of that colour (red, green, blue from 0 to 1); never below 4.5."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in islice(cell, 3)]
    light = sum(c * share for c, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
    dark, bright = ON_CELLS
    return dark if (light + 0.05) ** 2 > 1.05 * 0.05 else bright


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Settings for a while: fonts as text, identifiers that follow from the picture's name alone."""
    settings = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "text.parse_math": False,  # a name may hold a $
        "font.size": 9.0,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.linewidth": 0.8,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        yield


def matrix(
    figure: Figure,
    values: NDArray[np.float64],
    names: tuple[Sequence[str], Sequence[str]],
    title: str,
    *,
    limits: tuple[float, float],
    colours: str = "cividis",
    form: str = ".2f",
) -> None:
    """Draws a matrix as a heat map, with its numbers where there is room.

    Args:
        figure: what is drawn on.
        values: shape ``(rows, columns)``.
        names: names of the rows, and of the columns.
        title: stands above.
        limits: values of the first and of the last colour.
        colours: matplotlib's name of a map of colours.
        form: form of the numbers, as ``format`` takes it.
    """
    (rows, columns), (width, height) = values.shape, figure.get_size_inches()
    axes = figure.add_axes((0.3, 0.3, 0.6, 0.6))
    mesh = axes.pcolormesh(
        values,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        edgecolors=PAPER,
        linewidth=0.4 if values.size <= 2000 else 0.0,
    )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():  # a frame, because the darkest cells are as dark as a dark page
        spine.set(visible=True, linewidth=0.6)
    longest = [max(map(len, texts)) for texts in names]
    left, bottom = min(0.15 + 0.065 * longest[0], 0.45 * width), min(0.12 + 0.06 * longest[1], 0.5 * height)
    top, right = 0.34, 0.72
    axes.set_position((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    step = max(1, -(-columns // int((width - left - right) / 0.14)))
    axes.set_xticks(np.arange(0, columns, step) + 0.5, names[1][::step], rotation=90, fontsize=7)
    jump = max(1, -(-rows // int((height - bottom - top) / 0.14)))
    axes.set_yticks(np.arange(0, rows, jump) + 0.5, names[0][::jump], fontsize=7)
    if values.size <= ANNOTATED and (width - left - right) / columns > 0.27:
        shades = mesh.to_rgba(values)
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:{form}}"
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6.5, color=on(shades[i, j]))
    axes.set_title(title, color=INK, fontsize=9)
    bar = figure.add_axes((1 - 0.6 / width, bottom / height, 0.1 / width, 1 - (bottom + top) / height))
    figure.colorbar(mesh, cax=bar)
    bar.tick_params(labelsize=7, length=2)
    bar.grid(visible=False)


def with_rail(figure: Figure, names: Sequence[str]) -> Axes:
    """Axes that leave room for a column of names at their right."""
    width, height = figure.get_size_inches()
    room = (0.3 + 0.066 * max(map(len, names), default=0)) / width
    left = 0.45 / width
    axes = figure.add_axes((left, 0.5 / height, max(1 - left - min(room, 0.55), 0.2), 1 - 0.84 / height))
    axes.locator_params(axis="x", nbins=max(3, int(axes.get_position().width * width / 0.6)))
    return axes


def name_points(axes: Axes, entries: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes names at the right of the axes, in the order of their points' heights, a thin line to each point.

    ``entries``: x and y of the point, name, colour.
    """
    low, high = axes.get_ylim()
    step = (high - low) * 0.155 / (axes.figure.bbox.height / axes.figure.dpi - 0.84)
    high = high - step / 2  # clear of the title
    ordered = sorted(entries, key=lambda entry: entry[1])
    heights = [entry[1] for entry in ordered]
    for _ in range(400):  # neighbours that are too close push each other away
        moved = False
        for i in range(len(heights) - 1):
            lack = step - (heights[i + 1] - heights[i])
            if lack > step * 1e-3:
                heights[i], heights[i + 1], moved = heights[i] - lack / 2, heights[i + 1] + lack / 2, True
        if heights and (over := heights[-1] - high) > 0:
            heights[-1], moved = heights[-1] - over, True
        if heights and (under := low - heights[0]) > 0:
            heights[0], moved = heights[0] + under, True
        if not moved:
            break
    rail = axes.get_yaxis_transform()  # x of the axes, y of the data
    for (x, y, name, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.03, height),
            xycoords="data",
            textcoords=rail,
            va="center",
            fontsize=8,
            color=INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
            },
        )
