"""A benchmark as one HTML page that needs nothing else: tables, plots as SVG, light and dark, desktop and phone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import caption, remarks, title
from merging.benchmarking.rendering.drawing import SCHEMES, inline
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
from merging.errors import showable
from merging.values.states import RunState
from merging.values.verdict import MARKS, Standing, Verdict, difference, mark, p_value, word

CAPTIONS = {
    "scatter": "In-distribution against shifted scores: every single model and every method (Figure 2 of the paper).",
    "search": "The best held-out score that each method had seen after so many forward-equivalents.",
}
COLOURS = tuple(" ".join(f"--{name}: {pair[k]};" for name, pair in SCHEMES.items()) for k in (0, 1))
"""CSS variables: light and dark."""
MAPS = 12
"""Heat maps on the page at the most; the folder has all of them."""


def to_html(found: Benchmark, drawn: Mapping[str, tuple[bytes, bytes]]) -> str:
    """Makes the page, one HTML file that needs no other.

    Args:
        found: the results.
        drawn: picture → its SVG for a desktop, and for a phone.
    """
    environment = Environment(
        loader=PackageLoader("merging.benchmarking.rendering", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    pictures = [
        {
            "name": name,
            "caption": CAPTIONS.get(name, ""),
            # What matplotlib has drawn: it escapes the names that stand in it.
            "wide": Markup(inline(wide)),  # noqa: S704
            "narrow": Markup(inline(narrow)),  # noqa: S704
        }
        for name, (wide, narrow) in drawn.items()
    ]
    return environment.get_template("page.html.j2").render(
        title=title(found),
        caption=caption(found),
        ended="" if found.state is RunState.FINISHED else found.status,
        kinds=KINDS,
        answer=answer(found),
        rows=_rows(found),
        headings=[heading(found, column) for column in shown(found)],
        costs=list(COSTS.values()),
        legend=legend_of(found),
        cost_legend=COST_LEGEND,
        remarks=remarks(found, unfinished=False),
        comparisons=_comparisons(found),
        main=[picture for picture in pictures if picture["name"] in CAPTIONS],
        maps=[picture for picture in pictures if picture["name"] not in CAPTIONS][:MAPS],
        colours=COLOURS,
        evaluations=f"{found.evaluations:,}",
        command=found.command,
        conditions=json.dumps(found.header, indent=1, ensure_ascii=False),
    )


def _shown(value: Any) -> Any:
    """What a page says, before it is escaped; names may hold what a browser obeys though it is no HTML."""
    return showable(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def _rows(found: Benchmark) -> list[dict[str, Any]]:
    return [
        {
            "label": row.label,
            "finished": row.finished,
            "status": row.status,
            "why": row.why,
            "cells": [scores[column] for column in shown(found)],
            "costs": [cost(row, name) for name in COSTS],
        }
        for row, scores in zip(found.rows, cells(found), strict=True)
    ]


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


KINDS = {Standing.BETTER: "up", Standing.WORSE: "down"}
"""The class that colours a verdict; others have none."""


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
