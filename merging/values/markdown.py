"""Names in Markdown: text, whatever stands in them."""

from __future__ import annotations

import re

from merging.errors import showable

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ACTIVE = re.compile(
    r"[\\`*~$|&<>]"  # code, emphasis, formulas, cells, HTML
    r"|(?<!\w)_|_(?!\w)"  # emphasis; within a word it is none
    r"|\](?=[(\[:])"  # links, pictures, and where they lead
    r"|(?<=:)//|(?<=www)\."  # addresses that readers make links of
    r"|^(?:[#+\-=\[]|\d+(?=[.)](?:\s|$)))"  # headings, lists, boxes to tick
)


def plain(text: object) -> str:
    r"""A name, or a sentence with names in it, as it is to be read in Markdown: no part of it is markup or HTML.

    >>> plain("model_1 <b> [a](b) *")
    'model_1 &lt;b&gt; [a\\](b) \\*'
    """
    return _ACTIVE.sub(_escaped, showable(text))


def fenced(text: str, language: str = "") -> str:
    """A block of code, whose fence is longer than any in it."""
    text = showable(text, keep="\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _escaped(found: re.Match[str]) -> str:
    mark = found[0]
    return mark + "\\" if mark.isdigit() else _HTML.get(mark) or "\\" + mark
