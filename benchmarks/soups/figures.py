"""The page's pictures: forests over pools, the scatter of home and shift, and one pool's coefficients."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import altair as alt
import numpy as np

from benchmarks.soups.coefficients import Mixed, mixed
from benchmarks.soups.pools import CONFIRMATION, Pools
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, CANDIDATE, TEST, Compared, compared, finished, score, within
from merging.drawing import WIDE, Drawing, Size, draw, matrix
from merging.drawing.frame import Headed, Margins, axis, coloured, framed, pixel, rows, shaped, told
from merging.drawing.places import Span, rings, span, ticks
from merging.drawing.rail import Named, rail, room
from merging.drawing.theme import GRID, MUTED, PAPER
from merging.drawing.words import width
from merging.errors import showable

HEADS = ("classifier", "fc", "head", "linear")
"""With what the names of a network's last layer begin."""
COLUMNS = 4
"""Panels of a forest beside each other; the place after the last one has the legend."""
GAP, BETWEEN, STEP, SMALL = 14.0, 62.0, 17.0, 11.0
"""Pixels between panels beside each other and below each other, of a line, and of the font."""
ALL = "all pools"
Place = tuple[float, float]
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
        size: of the picture; some grow taller.
        records: what it is drawn from.
    """

    file: str
    about: str
    part: str
    family: str
    drawing: Drawing
    size: Size
    records: tuple[Record, ...]

    @property
    def source(self) -> str:
        """Names the records that it is drawn from, by a digest: another renderer changes the picture and not this."""
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
                    size=Size(WIDE.width + 120, WIDE.height),
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
                    size=Size(WIDE.width, WIDE.height + 80),
                    records=tuple(placed),
                )
            )
        for record in records if part == CONFIRMATION else []:
            if (each := mixed(record, finished(record, CANDIDATE))) is not None:
                found.append(
                    Drawn(
                        file=f"coefficients-{suffix}.svg",
                        about=f"Coefficients of {CANDIDATE} in {record.name}",
                        part="coefficients",
                        family=family,
                        drawing=partial(heat_map, each=each, pool=record.name),
                        size=Size(WIDE.width + 100, WIDE.height),
                        records=(record,),
                    )
                )
                break
    return found


def forest(size: Size, *, records: Sequence[Record], part: str, intervals: bool) -> alt.LayerChart:
    """Draws a panel for each comparison: each pool's difference with the interval of its samples, then the family's.

    Args:
        size: of the picture; its height follows from the pools.
        records: the pools of a family and part, which have the candidate.
        part: confirmation also has Holm's level.
        intervals: whether there are enough pools for an interval over them.
    """
    names = [showable(record.name) for record in records] + ([ALL] if intervals else [])
    margins = Margins(16 + min(max(width(name, SMALL) for name in names), 0.26 * size.width), 12, 8, 8)
    wide = (size.width - margins.left - margins.right - (COLUMNS - 1) * GAP) / COLUMNS
    lines = [_lines(records, each, intervals=intervals) for each in compared(records)]
    known = [line for each in lines for line in each if line["x"] is not None]
    ends = span([0.0, *(line[key] for line in known for key in ("low", "high"))], wide, margin=0.02)
    tall = STEP * len(names)
    layers: list[alt.Chart] = []
    for number, (each, found) in enumerate(zip(compared(records), lines, strict=True)):
        row, column = divmod(number, COLUMNS)
        corner = column * (wide + GAP), row * (tall + BETWEEN) + 20.0
        layers += _panel(found, ends, corner, names if column == 0 else [], f"{CANDIDATE} − {each.against}", tall)
    said = [("muted", "average of the shifts, points"), ("c1", "● a pool"), ("ink", "line: 95 %, of its samples")]
    if intervals:
        said += [("c2", "◆ mean over pools"), ("ink", "thin: 95 % t interval")]
        said += [("ink", "thick: at Holm's level")] if part == CONFIRMATION else []
    for line, (colour, text) in enumerate(said):
        place = {"x": alt.XValue((COLUMNS - 1) * (wide + GAP)), "y": alt.YValue(tall + BETWEEN + 26 + 17 * line)}
        legend = rows([{"text": text}]).mark_text(align="left", fontSize=SMALL, color=f"var(--{colour})")
        layers.append(legend.encode(**place, text="text:N"))
    height = 2 * (tall + BETWEEN) + margins.top + margins.bottom
    about = f"{CANDIDATE} less each other method, pool by pool"
    return framed(layers, Size(size.width, height), margins, Headed((), ()), about)


def _lines(records: Sequence[Record], each: Compared, *, intervals: bool) -> list[dict[str, Any]]:
    """A line for each pool, in points; the last one for all, with the interval at Holm's level."""
    lines: list[dict[str, Any]] = []
    for record in records:
        one, other = finished(record, CANDIDATE), finished(record, each.against)
        if one is None or other is None:
            lines.append({"pool": showable(record.name), "x": None})
            continue
        found = within(record, one, other, *record.shifts)
        low, high = (100 * end for end in found.interval)
        lines.append({"pool": showable(record.name), "x": 100 * found.difference, "low": low, "high": high})
    if intervals and each.enough:
        low, high = (100 * end for end in each.shifted.interval())
        mean: dict[str, Any] = {"pool": ALL, "x": 100 * each.shifted.mean, "low": low, "high": high}
        if not each.absent and records[0].part == CONFIRMATION:
            mean["holm"] = [100 * end for end in each.shifted.interval(each.alpha)]
        lines.append(mean)
    return lines


def _panel(
    found: Sequence[dict[str, Any]], ends: Span, corner: Place, names: Sequence[str], title: str, tall: float
) -> list[alt.Chart]:
    left, top = corner
    for line, each in enumerate(found):
        each["y"] = round(top + STEP * (line + 0.5), 1)
        if each["x"] is not None:
            each |= {f"{key}_px": round(left + ends.at(each[key]), 2) for key in ("x", "low", "high")}
            each["told"] = f"{each['x']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]"
        if "holm" in each:
            each |= {f"holm_{k}": round(left + ends.at(each["holm"][k]), 2) for k in (0, 1)}
    marks = [each for each in found if each["x"] is not None]
    pools, mean = [each for each in marks if each["pool"] != ALL], [each for each in marks if each["pool"] == ALL]
    steps = [
        {"px": round(left + ends.at(value), 2), "text": f"{value:g}".replace("-", "−")} for value in ticks(ends, 4)
    ]
    zero = [{"px": round(left + ends.at(0.0), 2)}]
    y, at = pixel("y", alt.Y), {"x": pixel("low_px", alt.X), "x2": "high_px:Q", "y": pixel("y", alt.Y)}
    tip = told(pool="pool", told="difference")
    texts = [{"name": name, "y": round(top + STEP * (line + 0.5), 1)} for line, name in enumerate(names)]
    missing = [each for each in found if each["x"] is None]
    upright = {"y": alt.YValue(top), "y2": alt.Y2Value(top + tall)}
    return [
        rows(steps).mark_rule(color=GRID, strokeWidth=0.8).encode(x=pixel("px", alt.X), **upright),
        rows(zero).mark_rule(color=MUTED).encode(x=pixel("px", alt.X), **upright),
        rows(steps)
        .mark_text(fontSize=10.5, color=MUTED)
        .encode(pixel("px", alt.X), alt.YValue(top + tall + 10), text="text:N"),
        rows([{"text": title}])
        .mark_text(align="left", fontSize=12, fontWeight="bold")
        .encode(x=alt.XValue(left), y=alt.YValue(top - 9), text="text:N"),
        rows(texts)
        .mark_text(align="right", baseline="middle", fontSize=SMALL)
        .encode(x=alt.XValue(-6), y=y, text="name:N"),
        rows(missing)
        .mark_text(fontSize=10, color=MUTED, baseline="middle")
        .encode(x=alt.XValue(zero[0]["px"]), y=y, text=alt.TextValue("missing")),
        rows(mean)
        .mark_rule(color="var(--c2)", strokeWidth=5, opacity=0.45)
        .encode(x=pixel("holm_0", alt.X), x2="holm_1:Q", y=y)
        if any("holm" in each for each in mean)
        else rows(mean).mark_rule(opacity=0).encode(**at),
        rows(pools).mark_rule(color=MUTED, strokeWidth=1.4).encode(**at, tooltip=tip),
        rows(mean).mark_rule(color="var(--c2)", strokeWidth=1.4).encode(**at, tooltip=tip),
        *(
            rows(each)
            .mark_point(shape=shape, size=46, filled=True, opacity=1, fill=colour, stroke=PAPER, strokeWidth=0.8)
            .encode(pixel("x_px", alt.X), y, tooltip=tip)
            for each, shape, colour in ((pools, "circle", "var(--c1)"), (mean, "diamond", "var(--c2)"))
        ),
    ]


def scatter(size: Size, *, records: Sequence[Record]) -> alt.LayerChart:
    """Draws models and methods of all pools over each other, each less the best single model of its own pool."""
    names = [name for name in (CANDIDATE, *AGAINST) if any(finished(record, name) for record in records)]
    alone: list[Place] = []
    places: dict[str, list[Place]] = {name: [] for name in names}
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
    what = "points above the pool's best single model"
    pools = f"{len(records)} pool{'s' if len(records) > 1 else ''}"
    note = "dots: single models · small: one pool · large: mean over pools · hollow: an ensemble"
    headed = Headed.of(f"At home and under shift, {what}; {pools}", note, size.width)
    right = room(names, size)
    margins = Margins(62, right, headed.height + 6, 46)
    plot = Size(size.width - margins.left - right, size.height - margins.top - margins.bottom)
    ends = _window(alone, [at for found in places.values() for at in found], plot)
    x = partial(axis, "x", alt.X, ends[0], f"test, {what}")
    y = partial(axis, "y", alt.Y, ends[1], "average of shifts")
    inside = [at for at in alone if ends[0].inside(at[0]) and ends[1].inside(at[1])]
    each = [{"method": name, "x": at[0], "y": at[1]} for name in names for at in places[name]]
    means = [
        {"method": name, **dict(zip("xy", map(float, np.mean(places[name], axis=0)), strict=True))} for name in names
    ]
    larger = rings([(ends[0].at(mean["x"]), ends[1].at(mean["y"])) for mean in means])
    for mean, many in zip(means, larger, strict=True):
        mean |= {"size": 110 * (1 + 0.9 * min(many, 3)), "test": f"{mean['x']:+.2f}", "shift": f"{mean['y']:+.2f}"}
    place = {"x": x(), "y": y(), "shape": shaped(names)}
    sizes, tip = alt.Size("size:Q", scale=None), told(method="method", test="test", shift="average of shifts")
    full = rows(mean for mean in means if mean["method"] != HOLLOW).mark_point(opacity=1, stroke=PAPER, strokeWidth=1)
    hollow = rows(mean for mean in means if mean["method"] == HOLLOW).mark_point(opacity=1, fill=PAPER, strokeWidth=2)
    layers = [
        rows([{"x": 0.0}]).mark_rule(color=MUTED).encode(x=x()),
        rows([{"y": 0.0}]).mark_rule(color=MUTED).encode(y=y()),
        rows({"x": a, "y": b} for a, b in inside)
        .mark_point(shape="circle", size=6, filled=True, opacity=0.45, color=MUTED)
        .encode(x(), y()),
        rows(each).mark_point(filled=True, size=18, opacity=0.45).encode(**place, color=coloured(names)),
        full.encode(**place, fill=coloured(names, alt.Fill), size=sizes, tooltip=tip),
        hollow.encode(**place, stroke=coloured(names, alt.Stroke), size=sizes, tooltip=tip),
        *rail(
            [Named(m["method"], ends[0].at(m["x"]), plot.height - ends[1].at(m["y"])) for m in means],
            names,
            plot,
            right,
        ),
    ]
    return framed(layers, size, margins, headed)


def _window(models: Sequence[Place], methods: Sequence[Place], plot: Size) -> tuple[Span, Span]:
    """Axes over all methods and most models: a few bad ones would press all others together."""
    every, kept = np.array([*models, *methods]), np.array(methods)
    low = np.minimum(np.quantile(every, 0.05, axis=0), kept.min(0))
    high = np.maximum(np.quantile(every, 0.99, axis=0), kept.max(0))
    return span([low[0], high[0]], plot.width), span([low[1], high[1]], plot.height)


def _depth(component: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sorts components about as the network applies them: numbers by value, the head last."""
    parts = re.split(r"(\d+)", component)
    return component.startswith(HEADS), [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def heat_map(size: Size, *, each: Mixed, pool: str) -> alt.LayerChart:
    """Draws one pool's coefficients, models × components; models of which the merge holds most come first."""
    columns = sorted(range(len(each.components)), key=lambda column: _depth(each.components[column]))
    models = [k for k in np.argsort(-each.values.sum(1), kind="stable") if each.values[k].any()]
    return matrix(
        each.values[np.ix_(models, columns)],
        ([showable(each.models[k]) for k in models], [showable(each.components[column]) for column in columns]),
        size,
        f"{CANDIDATE}, {pool}: coefficients",
        limit=float(np.abs(each.values).max()) or 1.0,
        words=("model", "component", "coefficient"),
    )
