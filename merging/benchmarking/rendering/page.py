"""A benchmark as one HTML page that needs nothing else: tables, plots as SVG, light and dark, desktop and phone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from merging.benchmarking.folder import POOL
from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import caption, remarks, title
from merging.benchmarking.rendering.leaderboard import board
from merging.benchmarking.rendering.tables import (
    COST_LEGEND,
    COSTS,
    cells,
    compared,
    correction_of,
    cost,
    heading,
    legend_of,
    shown,
)
from merging.benchmarking.results import Benchmark
from merging.drawing import SCHEMES, inline
from merging.errors import showable
from merging.values.shown import Sheet, environment
from merging.values.states import RunState
from merging.values.told import KINDS
from merging.values.verdict import MARKS, Standing, Verdict, difference, mark, p_value, word

CAPTIONS = {
    "scatter": "In-distribution against shifted scores: every single model and every method (Figure 2 of the paper).",
    "search": "The best held-out score that each method had seen after so many forward-equivalents.",
}
COLOURS = tuple(" ".join(f"--{name}: {pair[k]};" for name, pair in SCHEMES.items()) for k in (0, 1))
"""CSS variables: light and dark."""
PACKAGE = "merging.benchmarking.rendering"
"""The package that holds the templates."""
MAPS = 12
"""Heat maps on the page at the most; the folder has all of them."""


def to_html(found: Benchmark, drawn: Mapping[str, tuple[bytes, bytes]]) -> str:
    """Makes the page, one HTML file that needs no other.

    Args:
        found: the results.
        drawn: picture → its SVG for a desktop, and for a phone.
    """
    pictures = [
        {
            "name": name,
            "caption": CAPTIONS.get(name, ""),
            # What Vega has drawn: it escapes the names that stand in it.
            "wide": Markup(inline(wide, f"{name}-wide")),  # noqa: S704
            "narrow": Markup(inline(narrow, f"{name}-narrow")),  # noqa: S704
        }
        for name, (wide, narrow) in drawn.items()
    ]
    return (
        environment(PACKAGE)
        .get_template("page.html.j2")
        .render(
            title=title(found),
            caption=caption(found),
            ended="" if found.state is RunState.FINISHED else found.status,
            kinds=KINDS,
            answer=answer(found),
            rows=_rows(found),
            headings=[heading(found, column) for column in shown(found)],
            costs=list(COSTS.values()),
            legend=legend_of(found, ""),
            cost_legend=COST_LEGEND,
            remarks=remarks(found, unfinished=False),
            comparisons=_comparisons(found),
            pool=_pool(found),
            main=[picture for picture in pictures if picture["name"] in CAPTIONS],
            maps=[picture for picture in pictures if picture["name"] not in CAPTIONS][:MAPS],
            colours=COLOURS,
            evaluations=f"{found.evaluations:,}",
            command=found.command,
            conditions=json.dumps(found.header, indent=1, ensure_ascii=False),
        )
    )


def fragment(found: Benchmark) -> str:
    """Makes a fragment of HTML for a notebook: findings and tables."""
    tables = environment(PACKAGE).get_template("tables.html.j2").module
    parts = [tables.scores(_rows(found), [heading(found, c) for c in shown(found)], list(COSTS.values()), KINDS)]  # type: ignore[attr-defined]
    told = _comparisons(found)
    for table in told:
        parts += [Markup("<p>Against {}</p>").format(showable(table["name"])), tables.comparison(table)]  # type: ignore[attr-defined]
    corrections = dict.fromkeys(table["correction"] for table in told)
    ended = () if found.state is RunState.FINISHED else (f"{found.status}: not all methods were run",)
    sheet = Sheet(
        name=title(found),
        facts=(caption(found),),
        lines=(*ended, *answer(found).told()),
        notes=(legend_of(found), *corrections, *remarks(found, unfinished=False)),
    )
    return sheet.html(Markup("\n").join(parts))


def _rows(found: Benchmark) -> list[dict[str, Any]]:
    return [
        {
            "label": row.named,
            "finished": row.finished,
            "status": row.status,
            "why": row.why,
            "cells": [scores[column] for column in shown(found)],
            "costs": [cost(row, name) for name in COSTS],
        }
        for row, scores in zip(found.rows, cells(found), strict=True)
    ]


def _pool(found: Benchmark) -> dict[str, Any] | None:
    shown = board(found)
    if not shown.singles:
        return None
    columns = shown.columns()
    rows = [{"name": name, "cells": [c.cells[row] for c in columns]} for row, name in enumerate(shown.names)]
    return {"headings": [column.heading for column in columns], "rows": rows, "remarks": " ".join(shown.remarks(POOL))}


def _comparisons(found: Benchmark) -> list[dict[str, Any]]:
    tables = []
    for reference in found.references:
        columns, told = compared(found, reference)
        rows = [{"label": label, "tests": list(map(_test, verdicts))} for label, verdicts in told.items()]
        heads = [heading(found, column) for column in columns]
        tables.append(
            {
                "name": found.against(reference),
                "headings": heads,
                "rows": rows,
                "correction": correction_of(found, reference),
            }
        )
    return tables


def _test(verdict: Verdict | None) -> dict[str, str] | None:
    if verdict is None:
        return None
    kind = KINDS.get(word(verdict), "none")
    if not verdict.tested:
        return {
            "kind": kind,
            "difference": MARKS[Standing.NOT_TESTED],
            "interval": "",
            "p": "not tested",
            "details": verdict.why,
        }
    size, _, interval = difference(verdict).partition(" ")
    counts = "" if verdict.gained is None else f"{verdict.gained:g} gained, {verdict.lost:g} lost, "
    details = f"{word(verdict)}: {counts}{verdict.samples:,} samples; alone {p_value(verdict.p)}"
    return {
        "kind": kind,
        "difference": f"{mark(verdict)} {size}".lstrip(),
        "interval": interval,
        "p": p_value(verdict.corrected),
        "details": details,
    }
