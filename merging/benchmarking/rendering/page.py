"""A benchmark as one HTML page that needs nothing else: a card, live charts, tables; in light and in dark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from merging.benchmarking.rendering.answer import recommended
from merging.benchmarking.rendering.card import card
from merging.benchmarking.rendering.documents import caption, headed, remarks, title
from merging.benchmarking.rendering.figures import Figure, packed, packed_scripts, versions
from merging.benchmarking.rendering.page_tables import comparisons, pool, scores
from merging.benchmarking.rendering.pictures import map_name
from merging.benchmarking.rendering.tables import COST_LEGEND, legend_of
from merging.benchmarking.results import Benchmark
from merging.drawing import SCHEMES, inline
from merging.values import verdict_card
from merging.values.shown import environment
from merging.values.told import KINDS
from merging.values.verdict_card import VerdictCard

CAPTIONS = {
    "forest": "Every method's difference with its interval; intervals and p are corrected for the number of tests.",
    "scatter": "In-distribution against shifted scores: every single model and every method (Figure 2 of the paper).",
    "search": "The best held-out score that each method had seen after so many forward-equivalents.",
}
COLOURS = tuple(" ".join(f"--{name}: {pair[k]};" for name, pair in SCHEMES.items()) for k in (0, 1))
"""CSS variables: light and dark."""
PACKAGE = "merging.benchmarking.rendering"
"""The package that holds the templates."""
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; base-uri 'none'"
"""A browser loads nothing but what stands in the page. Vega compiles what it draws from (eval)."""
MAPS = 12
"""Heat maps on the page at the most; the folder has all of them."""
LARGEST = 990_000
"""Bytes of a page: static heat maps, for print and where scripts are off, stand in it as far as there is room."""


def to_html(found: Benchmark, drawn: Mapping[str, Figure], own: VerdictCard | None = None) -> str:
    """Makes the page, one HTML file that needs no other.

    Args:
        found: the results.
        drawn: picture → what the page shows of it.
        own: the card of a run, where these are a run's rows.
    """
    tables = [replace(found, apart=()), *found.apart]
    parts = [_part(part, drawn, own if number == 1 else None, number) for number, part in enumerate(tables, 1)]
    pictures = [picture for part in parts for picture in part["all"]]
    specifications = {picture["id"]: picture["live"] for picture in pictures}
    template = environment(PACKAGE, verdict_card.PACKAGE).get_template("page.html.j2")
    # Base64 holds no markup.
    charts = Markup(packed(json.dumps(specifications, allow_nan=False))) if specifications else ""  # noqa: S704
    vega = Markup(packed_scripts()) if specifications else ""  # noqa: S704

    def page(size: int) -> str:
        return template.render(
            title=title(found),
            parts=parts,
            left_out=dict(found.left_out),
            kinds=KINDS,
            cost_legend=COST_LEGEND,
            colours=COLOURS,
            policy=POLICY,
            size=f"{size / 1000:,.0f} kB",
            charts=charts,
            vega=vega,
            inlined=f"; {versions()} are in it" if specifications else "",
        )

    room = LARGEST - len(page(LARGEST).encode())
    for picture in sorted((each for each in pictures if not each["wide"]), key=lambda each: len(each["svg"])):
        if len(picture["svg"].encode()) < room:
            picture["wide"] = picture["svg"]
            room -= len(picture["svg"].encode())
    return page(len(page(LARGEST).encode()))


def _part(found: Benchmark, drawn: Mapping[str, Figure], own: VerdictCard | None, number: int) -> dict[str, Any]:
    """What the template shows of one table's results; of what stands apart, names begin with its number."""
    before = "" if number == 1 else f"{number}-"
    labels = {map_name(row): row.label for row in found.rows}
    known = {*CAPTIONS, *labels}
    pictures = []
    for id_, figure in drawn.items():
        name = id_.removeprefix(before)
        if f"{before}{name}" != id_ or name not in known:
            continue
        # What Vega has drawn: it escapes the names that stand in it.
        svg = Markup(inline(figure.wide, id_))  # noqa: S704
        narrow = Markup(inline(figure.narrow, f"{id_}-narrow")) if figure.narrow else ""  # noqa: S704
        shown = {"svg": svg, "wide": svg if narrow else "", "narrow": narrow, "live": figure.live}
        pictures.append(
            {**shown, "id": id_, "name": name, "method": labels.get(name, ""), "caption": CAPTIONS.get(name, "")}
        )
    first = found.run or getattr(recommended(found), "label", "")
    maps = [picture for picture in pictures if picture["name"] not in CAPTIONS]
    maps = sorted(maps, key=lambda picture: picture["method"] != first)[:MAPS]
    main = {picture["name"]: picture for picture in pictures if picture["name"] in CAPTIONS}
    models = pool(found)
    return {
        "title": "" if number == 1 else headed(found),
        "why": found.why,
        "card": own or card(found),
        "scores": scores(found, marked=True) | {"id": f"{before}scores"},
        "legend": legend_of(found, ""),
        "remarks": remarks(found, unfinished=False),
        "comparisons": comparisons(found, marked=True),
        "pictures": {name: main.get(name) for name in CAPTIONS},
        "maps": maps,
        "all": [*main.values(), *maps],
        "pool": models and models | {"id": f"{before}pool"},
        "caption": caption(found),
        "evaluations": f"{found.evaluations:,}",
        "command": found.command,
        "conditions": json.dumps(found.header, indent=1, ensure_ascii=False),
    }
