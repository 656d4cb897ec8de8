"""Pictures of what was looked at: scores along a line with their intervals, and distances between models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from merging.drawing import COLOURS, GRID, INK, matrix, name_points, with_rail
from merging.errors import showable

if TYPE_CHECKING:
    from merging.looking.inspection import Inspection
    from merging.looking.interpolation import Interpolation


def curve(figure: Figure, found: Interpolation) -> None:
    """Scores along the line between two models, each with the straight line between its ends and 95 % intervals."""
    percent = found.objective == "accuracy"
    factor = 100 if percent else 1
    axes = with_rail(figure, list(found.scores))
    entries, banded = [], False
    for number, (name, values) in enumerate(found.scores.items()):
        colour, heights = COLOURS[number % len(COLOURS)], [factor * value for value in values]
        intervals = found.intervals(name)
        if intervals:
            low, high = ([factor * ends[k] for ends in intervals] for k in (0, 1))
            axes.fill_between(found.shares, low, high, facecolor=GRID, edgecolor="none", zorder=0.5)
            for ends in (low, high):  # the ground is the same for all sets, the edge is the set's
                axes.plot(found.shares, ends, color=colour, lw=0.5, zorder=0.6)
            banded = True
        axes.plot(found.shares, heights, color=colour, lw=1.5, marker="o", ms=3.5)
        axes.plot((0, 1), (heights[0], heights[-1]), color=colour, lw=0.9, ls=(0, (4, 3)))
        entries.append((1.0, heights[-1], name, colour))
    axes.set_xlabel(f"share of {found.second} (the rest: {found.first})")
    what = "top-1 in %" if percent else found.objective
    band = "; band: 95 % of each point" if banded else ""
    axes.set_title(f"{what}; barrier {factor * found.barrier():.2f} on the held-out data{band}", color=INK, fontsize=9)
    name_points(axes, entries)


def distances(figure: Figure, found: Inspection) -> None:
    """Draws the distances between the models of a pool, in percent of the weights' length."""
    geometry = found.geometry
    if geometry is None:
        raise ValueError("distances need two models")
    names = [showable(name) for name in found.pool]
    values = 100 * geometry.distances / geometry.norm
    title = "distance in % of the weights' length"
    matrix(figure, values, (names, names), title, limits=(0.0, float(values.max()) or 1.0))


def cosines(figure: Figure, found: Inspection) -> None:
    """Draws the cosines of the angles between the models' differences from the base."""
    geometry = found.geometry
    if geometry is None or geometry.cosines is None:
        raise ValueError("cosines need a base")
    names = [showable(name) for name in found.pool]
    title = "cosine of the differences from the base"
    matrix(figure, geometry.cosines, (names, names), title, limits=(-1.0, 1.0), colours="PuOr")
