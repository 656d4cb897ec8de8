"""What an eye would find wrong with a page in a browser: texts that are faint, cut, or stand on one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("looking.js").read_text(encoding="utf-8")
TEXT, MARK = 4.5, 3.0
"""The least contrasts of text and of what a chart draws (WCAG 2.2, 1.4.3 and 1.4.11)."""
SMALLEST = 9.0
"""Pixels of the smallest text."""
MARKS = ".role-mark:is(.mark-symbol, .mark-line, .mark-rule, .mark-bar) *"
"""What counts as a mark in a chart of Vega: points, lines and intervals, not cells of heat maps, bands or grids."""


def look(page: Any, marks: str = MARKS) -> dict[str, Any]:
    """Looks at a page as it stands: see looking.js for what comes back."""
    if not page.evaluate("typeof window.looking?.look === 'function'"):  # a heading may have that name, too
        page.evaluate(SCRIPT)
    seen = page.evaluate("marks => looking.look(marks)", marks)
    return {**seen, "window": page.viewport_size["width"]}


def faults(seen: dict[str, Any]) -> list[str]:
    """Everything that is wrong, a line each.

    Args:
        seen: what :func:`look` has seen.
    """
    beyond = seen["beyond"]
    found = []
    if beyond["wide"] > seen["window"]:
        found.append(f"the document is {beyond['wide']} wide in a window of {seen['window']}: {beyond['found']}")
    found += [f"cut: {where}: {said}" for where, said in seen["cut"]]
    found += [f"on one another: {one!r} and {other!r} in {where}" for one, other, where in seen["overlaps"]]
    for text in seen["texts"]:
        told = f"{text['said'][:60]!r} in {text['where']}"
        if text["contrast"] < TEXT:
            found.append(f"faint text, {text['contrast']:.2f}: {told}")
        if text["outside"] > 1:
            found.append(f"outside its picture by {text['outside']:.0f} pixels: {told}")
        if text["size"] < SMALLEST:
            found.append(f"small text, {text['size']:.1f} pixels: {told}")
    for mark in seen["marks"]:
        if mark["contrast"] < MARK:
            found.append(f"faint mark, {mark['contrast']:.2f}: {mark['said'][:60]!r} in {mark['where']}")
    return found
