"""A benchmark as a notebook shows it: the card of a page, the forest of differences, the table of scores."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from merging.benchmarking.rendering.card import card
from merging.benchmarking.rendering.documents import caption, remarks, title
from merging.benchmarking.rendering.page_tables import comparisons, scores
from merging.benchmarking.rendering.pictures import drawings
from merging.benchmarking.rendering.tables import legend_of
from merging.benchmarking.results import Benchmark
from merging.errors import showable
from merging.values.inlined import inlined
from merging.values.shown import Sheet, environment

PACKAGE = "merging.benchmarking.rendering"
"""The package that holds the template."""


def fragment(found: Benchmark) -> str:
    """Makes a fragment of HTML; tables of differences, whose figures the picture has, are folded."""
    tables: Any = environment(PACKAGE).get_template("tables.html.j2").module
    parts, told = [tables.scores(scores(found))], comparisons(found)
    for table in told:
        head = Markup("<details><summary>Differences from {}</summary>").format(showable(table["name"]))
        parts.append(head + tables.comparison(table) + Markup("</details>"))
    sheet = Sheet(
        name=title(found),
        facts=(caption(found),),
        notes=(
            legend_of(found),
            *dict.fromkeys(table["correction"] for table in told),
            *remarks(found, unfinished=False),
        ),
    )
    first = [Markup(card(found).html())]  # noqa: S704 (a template's)
    if (drawing := drawings(found).get("forest")) is not None:
        first.append(inlined(drawing))
    return sheet.html(Markup("\n").join(parts), Markup("\n").join(first))
