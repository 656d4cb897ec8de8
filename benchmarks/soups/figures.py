"""The page's pictures: forests over pools, the scatter of home and shift, and one pool's coefficients."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.soups.coefficients import Mixed, mixed
from benchmarks.soups.pools import CONFIRMATION, Pools
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, CANDIDATE, TEST, Compared, compared, finished, score, within
from merging.drawing import COLOURS, INK, MARKERS, MUTED, PAPER, WIDE, Drawing, draw, matrix, name_points, with_rail
from merging.errors import showable

HEADS = ("classifier", "fc", "head", "linear")
"""With what the names of a network's last layer begin."""
COLUMNS = 4
"""Panels of a forest beside each other; the place after the last one has the legend."""
LOOKS = {name: (COLOURS[number % len(COLOURS)], MARKERS[number]) for number, name in enumerate((CANDIDATE, *AGAINST))}
HOLLOW = "ensemble"
"""Drawn hollow: it is no single model."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture that there is something to draw for.

    Attributes:
        file: name of its file.
        about: what one sees, for those who do not.
        part: the part of the page that shows it.
        family: the family whose pools it shows.
        drawing: what draws it.
        size: inches.
        records: what it is drawn from.
    """

    file: str
    about: str
    part: str
    family: str
    drawing: Drawing
    size: tuple[float, float]
    records: tuple[Record, ...]

    @property
    def source(self) -> str:
        """Names the records that it is drawn from, by a digest: another matplotlib changes the picture and not this."""
        text = json.dumps([self.file, *(asdict(record) for record in self.records)], sort_keys=True)
        return f"<!-- records: {hashlib.sha256(text.encode()).hexdigest()} -->\n"

    def svg(self) -> bytes:
        """Draws it; the same bits every time."""
        (made,) = draw(self.drawing, self.file, self.size, "svg")
        return made.rstrip(b"\n") + b"\n" + self.source.encode()


def drawn(pools: Pools) -> list[Drawn]:
    """All pictures of the page."""
    found = []
    for (family, part), records in pools.groups.items():
        suffix = family if part == CONFIRMATION else f"{family}-{part}"
        told = f"{family}, {part}"
        usable = [record for record in records if finished(record, CANDIDATE)]
        if usable:
            intervals = pools.testable(family, part)
            found.append(
                Drawn(
                    file=f"forest-{suffix}.svg",
                    about=f"{told}: average of the shifts, {CANDIDATE} less each of the others, pool by pool",
                    part=part,
                    family=family,
                    drawing=partial(forest, records=usable, part=part, intervals=intervals),
                    size=(WIDE[0] + 1.2, 2 * (0.75 + 0.2 * (len(usable) + 1 + intervals))),
                    records=tuple(usable),
                )
            )
        placed = [record for record in records if finished(record, "best")]
        if placed:
            found.append(
                Drawn(
                    file=f"scatter-{suffix}.svg",
                    about=f"{told}: test against the average of the shifts, less each pool's best single model",
                    part=part,
                    family=family,
                    drawing=partial(scatter, records=placed),
                    size=(WIDE[0], WIDE[1] + 0.4),
                    records=tuple(placed),
                )
            )
        for record in records if part == CONFIRMATION else []:
            if (each := mixed(record, finished(record, CANDIDATE))) is not None:
                rows, columns = each.values.shape
                found.append(
                    Drawn(
                        file=f"coefficients-{suffix}.svg",
                        about=f"Coefficients of {CANDIDATE} in {record.name}",
                        part="coefficients",
                        family=family,
                        drawing=partial(heat_map, each=each, pool=record.name),
                        size=(min(WIDE[0] + 1, 3 + 0.2 * columns), 1.6 + 0.145 * rows),
                        records=(record,),
                    )
                )
                break
    return found


def forest(figure: Figure, records: Sequence[Record], part: str, *, intervals: bool) -> None:
    """Draws a panel for each comparison: each pool's difference with the interval of its samples, then the family's.

    Args:
        figure: what is drawn on.
        records: the pools of a family and part, which have the candidate.
        part: confirmation also has Holm's level.
        intervals: whether there are enough pools for an interval over them.
    """
    width, height = figure.get_size_inches()
    names = [showable(record.name) for record in records] + (["all pools"] if intervals else [])
    left, gap, top, bottom = min(0.2 + 0.068 * max(map(len, names)), 0.3 * width), 0.12, 0.28, 0.42
    wide = (width - left - 0.12 - (COLUMNS - 1) * gap) / COLUMNS
    tall = height / 2 - top - bottom
    panels: list[Axes] = []
    for number, each in enumerate(compared(records)):
        row, column = divmod(number, COLUMNS)
        place = (left + column * (wide + gap), (1 - row) * height / 2 + bottom)
        axes = figure.add_axes(
            (place[0] / width, place[1] / height, wide / width, tall / height), sharex=panels[0] if panels else None
        )
        panels.append(axes)
        _panel(axes, records, each, intervals=intervals and each.enough)
        axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # no number under the next panel's first
        axes.set_title(f"{CANDIDATE} − {each.against}", color=INK, fontsize=9)
        if number >= len(AGAINST) - COLUMNS:
            axes.set_xlabel("points", fontsize=8)
    said = [(MUTED, "average of the shifts"), (COLOURS[0], "● a pool"), (INK, "line: 95 %, of its samples")]
    if intervals:
        said += [(COLOURS[1], "◆ mean over pools"), (INK, "thin: 95 % t interval")]
        said += [(INK, "thick: at Holm's level")] if part == CONFIRMATION else []
    x, y = (left + (COLUMNS - 1) * (wide + gap)) / width, (bottom + tall) / height
    for line, (colour, text) in enumerate(said):
        figure.text(x, y - 0.16 * line / height, text, va="top", fontsize=7.5, color=colour)


def _panel(axes: Axes, records: Sequence[Record], each: Compared, *, intervals: bool) -> None:
    axes.axvline(0.0, color=MUTED, lw=0.9, zorder=1)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    for place, record in enumerate(records):
        one, other = finished(record, CANDIDATE), finished(record, each.against)
        if one is None or other is None:
            axes.text(0.0, place, "missing", ha="center", va="center", fontsize=7, color=MUTED)
            continue
        found = within(record, one, other, *record.shifts)
        axes.plot([100 * end for end in found.interval], (place, place), color=MUTED, lw=1.1, zorder=2)
        axes.plot(100 * found.difference, place, "o", ms=4.5, mfc=COLOURS[0], mec=PAPER, mew=0.6, zorder=3)
    if not intervals:
        return
    place = len(records)
    axes.axhline(place - 0.5, color=MUTED, lw=0.5, zorder=1)
    low, high = each.shifted.interval(each.alpha)
    if not each.absent and records[0].part == CONFIRMATION:
        axes.plot((100 * low, 100 * high), (place, place), color=COLOURS[1], lw=3.2, alpha=0.45, zorder=2)
    axes.plot([100 * end for end in each.shifted.interval()], (place, place), color=COLOURS[1], lw=1.1, zorder=3)
    axes.plot(100 * each.shifted.mean, place, "D", ms=5, mfc=COLOURS[1], mec=PAPER, mew=0.6, zorder=4)


def scatter(figure: Figure, records: Sequence[Record]) -> None:
    """Draws models and methods of all pools over each other, each less the best single model of its own pool."""
    names = [name for name in (CANDIDATE, *AGAINST) if any(finished(record, name) for record in records)]
    axes = with_rail(figure, names)
    alone: list[tuple[float, float]] = []
    places: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for record in records:
        best = finished(record, "best")
        if best is None:
            continue
        zero = np.array([score(record, best, TEST), score(record, best, "average")])
        for model in record.models:
            alone.append(tuple(100 * (np.array([record.accuracy(model, TEST), record.shifted(model)]) - zero)))
        for name in names:
            if (method := finished(record, name)) is not None:
                at = np.array([score(record, method, TEST), score(record, method, "average")])
                places[name].append(tuple(100 * (at - zero)))
    for line in (axes.axhline, axes.axvline):
        line(0.0, color=MUTED, lw=0.8, zorder=1)
    if alone:
        x, y = np.array(alone).T
        axes.scatter(x, y, s=5, color=MUTED, alpha=0.45, linewidths=0, zorder=2)
    entries = []
    for name in names:
        colour, marker = LOOKS[name]
        face, edge = (PAPER, colour) if name == HOLLOW else (colour, PAPER)
        if len(places[name]) > 1:
            x, y = np.array(places[name]).T
            axes.scatter(x, y, s=16, marker=marker, color=colour, alpha=0.4, linewidths=0, zorder=3)
        x, y = np.mean(places[name], axis=0)
        axes.scatter(x, y, s=70, marker=marker, facecolors=face, edgecolors=edge, linewidths=1.1, zorder=4)
        entries.append((float(x), float(y), name, colour))
    _window(axes, alone, [at for found in places.values() for at in found])
    axes.set_xlabel("test, points above the pool's best single model")
    axes.set_title(
        f"average of shifts, points above the pool's best single model; {len(records)} "
        f"pool{'s' if len(records) > 1 else ''}",
        color=INK,
        fontsize=9,
    )
    name_points(axes, entries)
    axes.text(
        0.985,
        0.02,
        "dots: single models; small: one pool; large: mean over pools",
        transform=axes.transAxes,
        ha="right",
        fontsize=7.5,
        color=MUTED,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )


def _window(axes: Axes, models: Sequence[tuple[float, float]], methods: Sequence[tuple[float, float]]) -> None:
    """Limits the axes to all methods and most models: a few bad ones would press all others together."""
    every, kept = np.array([*models, *methods]), np.array(methods)
    low = np.minimum(np.quantile(every, 0.05, axis=0), kept.min(0))
    high = np.maximum(np.quantile(every, 0.99, axis=0), kept.max(0))
    room = 0.08 * np.maximum(high - low, 0.1)
    axes.set_xlim(float((low - room)[0]), float((high + room)[0]))
    axes.set_ylim(float((low - room)[1]), float((high + room)[1]))


def _depth(component: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sorts components about as the network applies them: numbers by value, the head last."""
    parts = re.split(r"(\d+)", component)
    return component.startswith(HEADS), [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def heat_map(figure: Figure, each: Mixed, pool: str) -> None:
    """Draws one pool's coefficients, models × components."""
    limit = float(np.abs(each.values).max()) or 1.0
    order = sorted(range(len(each.components)), key=lambda column: _depth(each.components[column]))
    matrix(
        figure,
        each.values[:, order],
        ([showable(name) for name in each.models], [showable(each.components[column]) for column in order]),
        f"{CANDIDATE}, {pool}: coefficients",
        limits=(-limit, limit),
        colours="PuOr",
    )
