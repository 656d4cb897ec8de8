"""A report as a notebook shows it: the card of a page, the forest of its differences, the table of scores."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from merging.values.told import sheet_of
from merging.values.verdict_card import card_of

if TYPE_CHECKING:
    from merging.values.report import Report


def fragment(report: Report, name: str = "Report", more: tuple[str, ...] = ()) -> str:
    """Makes a fragment of HTML; what the card says is not said again.

    Args:
        report: the report.
        name: what it is shown as.
        more: facts besides.
    """
    card, sheet = card_of(report), sheet_of(report, name, more)
    said = {card.unfinished, card.answer.headline, *card.answer.told()}
    kept = replace(
        sheet,
        facts=tuple(fact for fact in sheet.facts if fact not in said),
        lines=tuple(line for line in sheet.lines if line not in said),
    )
    return kept.html(head=Markup("\n").join([Markup(card.html()), _forest(report)]))  # noqa: S704 (a template's)


def _forest(report: Report) -> Markup:
    """The picture; nothing where nothing was compared."""
    from merging.values.forest import forest, of_report
    from merging.values.inlined import inlined

    entries = of_report(report)
    if not any(entry.verdict.tested for entry in entries):
        return Markup()
    return inlined(partial(forest, entries, report.strategy))
