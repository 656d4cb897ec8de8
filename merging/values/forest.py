"""A forest of differences: each verdict's difference with its interval, and the line of no difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import altair as alt

from merging.drawing.frame import Headed, Margins, Size, axis, framed, pixel, rows, told
from merging.drawing.places import FEW, Span, span
from merging.drawing.theme import COLOURS, MUTED, PAPER
from merging.drawing.words import apart, shortened, width
from merging.errors import showable
from merging.values.units import TOKENS, steps_in
from merging.values.units import unit as unit_of
from merging.values.verdict import Role, Standing, Verdict, compact, difference, distinct, p_value, title, word

if TYPE_CHECKING:
    from merging.values.report import Report

LOOKS = {Standing.BETTER: COLOURS[0], Standing.WORSE: COLOURS[1], Standing.NEITHER: MUTED, Standing.NOT_TESTED: MUTED}
"""Colours of what is better and worse; others are dim."""
FAR = 4.0
"""A difference that reaches so many times as far as the others would press them together: it is an arrow."""
SMALL, STEP, HEAD = 11.5, 21.0, 26.0
"""Size of the font; pixels of a line, and of a group's heading."""


class Entry(NamedTuple):
    """A line of a forest: what it is called, the group that it stands in, the method, and what was found."""

    label: str
    group: str
    method: str
    verdict: Verdict


ROLES = (Role.TEST, Role.AVERAGE, Role.SHIFT, Role.CERTIFY, Role.HELD_OUT)
"""Sets in the order in which a report's lines stand: what counts comes first."""


def of_report(report: Report) -> list[Entry]:
    """A run's verdicts, set by set: at home, under shift, then what certified and what chose the merge."""
    found = sorted(distinct(report.verdicts), key=lambda verdict: ROLES.index(verdict.role))
    return [Entry(showable(title(verdict)), "", showable(report.strategy), verdict) for verdict in found]


@dataclass(frozen=True)
class _Layout:
    """Where names, plot and numbers stand; on a phone names and numbers stand above their interval."""

    left: float
    right: float
    step: float
    above: float

    @classmethod
    def of(cls, entries: Sequence[Entry], size: Size) -> _Layout:
        if size.narrow:
            return cls(14, 14, 37, 12)
        left = 22 + max(width(entry.label, SMALL) for entry in entries)
        right = 20 + max(width(compact(entry.verdict), SMALL) for entry in entries)
        return cls(min(left, 0.3 * size.width), min(right, 0.4 * size.width), STEP, 0)


def forest(entries: Sequence[Entry], name: str, size: Size) -> alt.LayerChart:
    """Draws a line for each verdict, group by group: difference, interval, and both in numbers beside it.

    Args:
        entries: the lines; those of another measure than the first one's have no place on its axis, and are left out.
        name: name of the method, for the title.
        size: size of the picture; its height follows from the lines.
    """
    first = next(entry.verdict for entry in entries if entry.verdict.tested)
    entries = [entry for entry in entries if entry.verdict.measure == first.measure]
    unit = unit_of(first.measure)
    better = "left" if first.measure == TOKENS else "right"
    layout = _Layout.of(entries, size)
    note = f"difference in {unit} with its interval; {better} of the line is better"
    headed = Headed.of(showable(f"{name[:1].upper()}{name[1:]} against {first.against}"), note, size.width)
    drawn, heads, height = _lines(entries, layout)
    margins = Margins(layout.left, layout.right, headed.height + 4, 44)
    ends = _ends(drawn, size.width - layout.left - layout.right)
    place = {"x": axis("x", alt.X, ends, unit), "y": pixel("y", alt.Y)}
    known = [each for each in drawn if each["x"] is not None]
    layers = [
        rows([{"x": 0.0}]).mark_rule(strokeWidth=1.2, color=MUTED, y=0, y2=height).encode(x=place["x"]),
        *_intervals([each for each in known if each["x_low"] is not None], ends, unit),
        _points(known, ends, place),
        *_texts(drawn, heads, layout, size),
    ]
    tall = Size(size.width, height + margins.top + margins.bottom)
    return framed(layers, tall, margins, headed, f"{name} against {first.against}, difference in {unit}")


def _lines(entries: Sequence[Entry], layout: _Layout) -> tuple[list[Any], list[Any], float]:
    """The lines with their heights, the headings of groups, and the height of all."""
    drawn, heads, height, group = [], [], 4.0, ""
    for entry in entries:
        if entry.group != group:
            group = entry.group
            heads.append({"name": shortened(showable(group), 300, SMALL), "y": height + HEAD / 2 + 2})
            height += HEAD
        drawn.append(_row(entry) | {"y": height + (layout.step + layout.above) / 2, "text_y": height + 11})
        height += layout.step
    return drawn, heads, height + 4


def _row(entry: Entry) -> dict[str, Any]:
    found = entry.verdict
    steps: list[float | None] = [None]
    if found.difference is not None:
        steps = [*steps_in(found.measure, found.difference, found.interval)]
    middle, low, high = (*steps, None, None)[:3]
    return {
        "method": entry.method,
        "label": entry.label,
        "set": entry.verdict.set,
        "x": middle,
        "x_low": low,
        "x_high": high,
        "told": compact(found),
        "difference": difference(found),
        "p": p_value(found.corrected).removeprefix("p").removeprefix("="),
        "verdict": str(word(found)),
    }


def _ends(drawn: Sequence[dict[str, Any]], pixels: float) -> Span:
    """Both ends of the axis: no difference, and all intervals but those that lie far beyond all others."""
    known = [[each[key] for key in ("x", "x_low", "x_high") if each[key] is not None] for each in drawn]
    known = sorted((ends for ends in known if ends), key=lambda ends: max(map(abs, ends)))
    reach = [max(map(abs, ends)) for ends in known]
    least = max(FEW, math.ceil(0.7 * len(known)))
    kept = next((k for k in range(least, len(known)) if reach[k] > FAR * reach[k - 1] > 0), len(known))
    return span([0.0, *(end for ends in known[:kept] for end in ends)], pixels, margin=0.03)


def _intervals(known: Sequence[dict[str, Any]], ends: Span, unit: str) -> list[alt.Chart]:
    cut = [each | {"x_low": ends.clipped(each["x_low"]), "x_high": ends.clipped(each["x_high"])} for each in known]
    drawn = rows(each for each in cut if each["x_low"] < each["x_high"])
    place = {"x": axis("x_low", alt.X, ends, unit), "x2": alt.X2("x_high:Q"), "y": pixel("y", alt.Y)}
    return [drawn.mark_rule(strokeWidth=2).encode(**place, color=_colour(alt.Color), tooltip=_tip())]


def _points(known: Sequence[dict[str, Any]], ends: Span, place: dict[str, Any]) -> alt.Chart:
    """The differences; what lies outside is an arrow at the edge, its numbers beside it."""
    shown = [
        each
        | {"x": ends.clipped(each["x"])}
        | {"shape": "circle" if ends.inside(each["x"]) else f"triangle-{'left' if each['x'] < ends.low else 'right'}"}
        for each in known
    ]
    points = rows(shown).mark_point(filled=True, size=64, opacity=1, stroke=PAPER, strokeWidth=1)
    looks = {"fill": _colour(alt.Fill), "shape": alt.Shape("shape:N", scale=None)}
    return points.encode(**place, **looks, tooltip=_tip())  # type: ignore[no-any-return]


def _colour(kind: type[Any]) -> Any:
    return kind("verdict:N", scale=alt.Scale(domain=list(map(str, LOOKS)), range=list(LOOKS.values())), legend=None)


def _tip() -> list[alt.Tooltip]:
    return told(method="method", set="set", difference="difference", p="p", verdict="verdict")


def _texts(drawn: list[Any], heads: list[Any], layout: _Layout, size: Size) -> Iterator[alt.Chart]:
    plot = size.width - layout.left - layout.right
    beside = 0.0 if size.narrow else plot + 10
    room = (plot - 170 if size.narrow else layout.left - 20, layout.right - 16)
    names = [
        each | {"name": name}
        for each, name in zip(drawn, apart([e["label"] for e in drawn], room[0], SMALL), strict=True)
    ]
    place = {"y": pixel("text_y" if size.narrow else "y", alt.Y), "tooltip": _tip()}
    look: dict[str, Any] = {"baseline": "middle", "fontSize": SMALL}
    left = rows(names).mark_text(align="left", **look)
    yield left.encode(x=alt.XValue(2 if size.narrow else 14 - layout.left), text="name:N", **place)
    numbers = rows(names).mark_text(align="right" if size.narrow else "left", **look)
    yield numbers.encode(x=alt.XValue(plot if size.narrow else beside), text="told:N", **place)
    if heads:
        title = rows(heads).mark_text(align="left", baseline="middle", fontWeight="bold", fontSize=SMALL)
        yield title.encode(x=alt.XValue(2 if size.narrow else 8 - layout.left), y=pixel("y", alt.Y), text="name:N")
