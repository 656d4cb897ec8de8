"""In-distribution against shifted scores: every single model and method, with intervals (Fassold 2023, Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from merging.benchmarking.rendering.tables import heading, home, placed
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.drawing.frame import Headed, Margins, Size, axis, coloured, framed, rows, shaped, told
from merging.drawing.places import Span, near, rings, span
from merging.drawing.rail import Named, least, rail, room
from merging.drawing.theme import MUTED, PAPER
from merging.errors import showable
from merging.plugins.task import HELD_OUT
from merging.values.outcome import is_score
from merging.values.report import number
from merging.values.verdict import compact

LARGE, SMALL = 90.0, 26.0
"""Areas of a method's and of a single model's point, in pixels."""
LEFT = 62.0
"""Pixels for the numbers and the name of the axis that goes up."""
Place = tuple[float, float]


@dataclass(frozen=True)
class _Axes:
    """Both axes with their titles, and what lies on them."""

    x: Span
    y: Span
    titles: tuple[str, str]

    def across(self, field: str = "x") -> Any:
        return axis(field, alt.X, self.x, self.titles[0])

    def up(self, field: str = "y") -> Any:
        return axis(field, alt.Y, self.y, self.titles[1])

    def inside(self, at: Place) -> bool:
        return self.x.inside(at[0]) and self.y.inside(at[1])

    def pixels(self, at: Place) -> Place:
        return self.x.at(self.x.clipped(at[0])), self.y.pixels - self.y.at(self.y.clipped(at[1]))


def scatter(found: Benchmark, size: Size) -> alt.LayerChart:
    """Draws the scatter: models hollow, methods with both intervals, far ones at the edge."""
    column, methods = home(found), placed(found)
    labels = [showable(row.label) for row in found.rows]
    factor = 100 if found.percent(SHIFTED) else 1
    what = "top-1 in %" if factor == 100 else found.objective
    at = [(factor * (row.value(column) or 0.0), factor * (row.shifted or 0.0)) for row in methods]
    models = _models(found, column, factor)
    names = [showable(row.label) for row in methods]
    right = room([*names, "x" * 12], size)
    heads = heading(found, column), heading(found, SHIFTED)
    note = "○ a model of the pool · lines: 95 % intervals"
    note += " · hollow: an ensemble" if any(row.inference_cost > 1 for row in methods) else ""
    plot = Size(size.width - LEFT - right, max(size.height - 100, least(names) + 20))
    ends = _ends(methods, at, [place for place, _ in models], plot, (column, factor))
    axes = _Axes(ends[0], ends[1], heads)
    gone = sum(not axes.inside(place) for place, _ in models)
    note += f" · {gone} model{'s' if gone > 1 else ''} outside" if gone else ""
    headed = Headed.of(f"At home and under shift, {what}", note, size.width)
    margins = Margins(LEFT, right, headed.height + 6, 46)
    drawn = [_row(found, row, (column, factor)) for row in methods]
    layers = [
        _singles([model for place, model in models if axes.inside(place)], axes),
        *_intervals([each for each, place in zip(drawn, at, strict=True) if axes.inside(place)], axes, labels),
        *_points(drawn, at, axes, labels),
        *rail(_named(drawn, at, axes), labels, plot, right),
    ]
    tall = Size(size.width, plot.height + margins.top + margins.bottom)
    return framed(layers, tall, margins, headed)


def _models(found: Benchmark, column: str, factor: float) -> list[tuple[Place, dict[str, Any]]]:
    """Place and row of every single model that has one."""
    made = []
    for single in found.singles:
        x, y = single.held_out if column == HELD_OUT else single.tests.get(column), single.shifted
        if x is None or y is None or not is_score(x) or not is_score(y):
            continue
        shown = {"home": number(x, percent=factor == 100), "shift": number(y, percent=factor == 100)}
        made.append(((factor * x, factor * y), {"model": single.name, "x": factor * x, "y": factor * y} | shown))
    return made


def _ends(
    methods: Sequence[BenchmarkRow], at: Sequence[Place], models: Sequence[Place], plot: Size, of: tuple[str, float]
) -> list[Span]:
    """Axes over all that lies together, and the intervals of methods that do."""
    column, factor = of
    kept = [near([place[k] for place in (*at, *models)]) for k in (0, 1)]
    both = [across and up for across, up in zip(*kept, strict=True)]
    ends = []
    for k, name in enumerate((column, SHIFTED)):
        values = [place[k] for place, keep in zip((*at, *models), both, strict=True) if keep]
        for row, keep in zip(methods, both, strict=False):
            values += [factor * end for end in row.intervals.get(name, ())] if keep else []
        ends.append(span(values, (plot.width, plot.height)[k], margin=0.03))
    return ends


def _row(found: Benchmark, row: BenchmarkRow, of: tuple[str, float]) -> dict[str, Any]:
    column, factor = of
    made: dict[str, Any] = {
        "method": showable(row.label),
        "models": f"{row.models:g}",
        "hollow": row.inference_cost > 1,
    }
    for key, name in (("home", column), ("shift", SHIFTED)):
        value, interval = row.value(name) or 0.0, row.intervals.get(name)
        made[key] = number(value, percent=factor == 100)
        if interval is not None:
            low, high = (factor * end for end in interval)
            made |= {f"{key}_low": low, f"{key}_high": high}
            made[key] += f" [{low:.2f}, {high:.2f}]" if factor == 100 else f" [{low:.4g}, {high:.4g}]"
        verdict = row.verdict("best", name)
        made[f"{key}_best"] = compact(verdict) if verdict is not None else "–"
    return made | {"x": factor * (row.value(column) or 0.0), "y": factor * (row.shifted or 0.0)}


def _singles(models: Sequence[dict[str, Any]], axes: _Axes) -> alt.Chart:
    points = rows(models).mark_point(size=SMALL, filled=False, color=MUTED, strokeWidth=1, opacity=0.9)
    tip = told(model="model", home=axes.titles[0], shift=axes.titles[1])
    return points.encode(axes.across(), axes.up(), tooltip=tip)  # type: ignore[no-any-return]


def _intervals(drawn: Sequence[dict[str, Any]], axes: _Axes, labels: Sequence[str]) -> list[alt.Chart]:
    """A thin cross at each point: how well both of its scores are known."""
    looks: dict[str, Any] = {"strokeWidth": 1, "clip": True}
    across = rows(each for each in drawn if "home_low" in each).mark_rule(**looks)
    up = rows(each for each in drawn if "shift_low" in each).mark_rule(**looks)
    colour = coloured(labels)
    return [
        across.encode(axes.across("home_low"), axes.up(), x2="home_high:Q", color=colour),
        up.encode(axes.across(), axes.up("shift_low"), y2="shift_high:Q", color=colour),
    ]


def _points(
    drawn: Sequence[dict[str, Any]], at: Sequence[Place], axes: _Axes, labels: Sequence[str]
) -> list[alt.Chart]:
    """The methods; of points over each other the lower ones are larger, so that a ring of each is seen."""
    larger = rings([axes.pixels(place) for place in at])
    values = []
    for each, place, many in zip(drawn, at, larger, strict=True):
        shown = {"x": axes.x.clipped(place[0]), "y": axes.y.clipped(place[1]), "size": LARGE * (1 + 0.9 * min(many, 3))}
        values.append(each | shown)
    home, shift = axes.titles
    tip = told(
        method="method",
        home=home,
        home_best=f"{home}, less the best single",
        shift=shift,
        shift_best=f"{shift}, less the best single",
        models="models in it",
    )
    common = {"shape": shaped(labels), "size": alt.Size("size:Q", scale=None), "tooltip": tip}
    common |= {"x": axes.across(), "y": axes.up()}
    full = rows(each for each in values if not each["hollow"])
    hollow = rows(each for each in values if each["hollow"])
    return [
        full.mark_point(filled=True, opacity=1, stroke=PAPER, strokeWidth=1).encode(
            fill=coloured(labels, alt.Fill), **common
        ),
        hollow.mark_point(filled=False, opacity=1, fill=PAPER, strokeWidth=2).encode(
            stroke=coloured(labels, alt.Stroke), **common
        ),
    ]


def _named(drawn: Sequence[dict[str, Any]], at: Sequence[Place], axes: _Axes) -> list[Named]:
    named = []
    for each, place in zip(drawn, at, strict=True):
        far = "" if axes.inside(place) else f" ({place[0]:.4g}, {place[1]:.4g})"
        named.append(Named(each["method"], *axes.pixels(place), far))
    return named
