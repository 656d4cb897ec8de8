"""A benchmark as one HTML page that needs nothing else: tables, plots as SVG, light and dark, desktop and phone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from merging.benchmarking.rendering.documents import caption, remarks, title
from merging.benchmarking.rendering.drawing import SCHEMES, inline
from merging.benchmarking.rendering.tables import (
    COST_LEGEND,
    COSTS,
    LEGEND,
    against,
    cells,
    cost,
    difference,
    findings,
    heading,
    p_value,
)
from merging.benchmarking.results import Benchmark
from merging.errors import showable
from merging.values.statistics import Comparison

CAPTIONS = {
    "scatter": "In-distribution against shifted accuracy: every single model and every method (Figure 2 of the paper).",
    "search": "The best held-out score that each method had seen after so many forward-equivalents.",
}
COLOURS = tuple(" ".join(f"--{name}: {pair[k]};" for name, pair in SCHEMES.items()) for k in (0, 1))
"""CSS variables: light and dark."""
MAPS = 12
"""Heat maps on the page at the most; the folder has all of them."""


def to_html(found: Benchmark, drawn: Mapping[str, tuple[bytes, bytes]]) -> str:
    """The page.

    Args:
        found: the results.
        drawn: picture → its SVG for a desktop, and for a phone.
    """
    environment = Environment(
        loader=PackageLoader("merging.benchmarking.rendering", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
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
        title=title(found), caption=caption(found), status=found.status, findings=findings(found), rows=_rows(found),
        headings=[heading(found, column) for column in found.columns], costs=list(COSTS.values()), legend=LEGEND,
        cost_legend=COST_LEGEND, remarks=remarks(found, unfinished=False), comparisons=_comparisons(found),
        main=[picture for picture in pictures if picture["name"] in CAPTIONS],
        maps=[picture for picture in pictures if picture["name"] not in CAPTIONS][:MAPS],
        colours=COLOURS, evaluations=f"{found.evaluations:,}", command=found.command,
        conditions=json.dumps(found.header, indent=1, ensure_ascii=False),
    )  # fmt: skip


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
            "cells": [scores[column] for column in found.columns],
            "costs": [cost(row, name) for name in COSTS],
        }
        for row, scores in zip(found.rows, cells(found), strict=True)
    ]


def _comparisons(found: Benchmark) -> list[dict[str, Any]]:
    tables = []
    for reference in found.references:
        columns = [c for c in found.columns if any(c in row.against.get(reference, {}) for row in found.rows)]
        rows = [
            {"label": row.label, "tests": [_test(row.against[reference].get(column)) for column in columns]}
            for row in found.rows
            if reference in row.against
        ]
        heads = [heading(found, column) for column in columns]
        tables.append({"name": against(found, reference), "headings": heads, "rows": rows})
    return tables


def _test(test: Comparison | None) -> dict[str, str] | None:
    if test is None:
        return None
    kind = "none" if not test.significant else "up" if test.difference > 0 else "down"
    points, _, interval = difference(test).partition(" ")
    return {
        "kind": kind,
        "difference": points,
        "interval": interval,
        "verdict": p_value(test.adjusted) if test.significant else "not significant",
        "details": f"{test.gained:g} samples gained, {test.lost:g} lost, of {test.samples:,}; {p_value(test.adjusted)}",
    }
