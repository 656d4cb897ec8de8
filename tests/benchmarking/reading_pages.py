"""Reads a page strictly: every tag closed in its place, every id once, and nothing loaded from anywhere."""

from __future__ import annotations

import html.parser
import re

VOID = {"meta", "br", "input"}
LOADS = ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")


class Read(html.parser.HTMLParser):
    """What stands in a page.

    Attributes:
        headings: the texts of its headings, in order.
        tables: rows of each table: attributes of the row, then (attributes, text) of each cell.
        figures, buttons: attributes of each.
        scripts: attributes and text of each.
        text: what is read, scripts and styles left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[tuple[dict[str, str], list[tuple[dict[str, str], str]]]]] = []
        self.figures: list[dict[str, str]] = []
        self.buttons: list[dict[str, str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""

    @classmethod
    def of(cls, page: str) -> Read:
        """Reads a whole page."""
        assert page.lstrip().lower().startswith("<!doctype html>")
        assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)
        read = cls()
        read.feed(page)
        read.close()
        assert read.open == []
        assert len(read.ids) == len(set(read.ids)), "no two elements have one id"
        return read

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attributes}
        assert len(named) == len(attributes), f"an attribute stands twice: {attributes}"
        assert not [key for key in named if key.startswith("on")], "no names where a browser expects a program"
        for key in LOADS:
            assert key not in named or named[key].startswith("#"), (tag, named)
        self.ids += [named["id"]] if "id" in named else []
        self._begin(tag, named)
        if tag not in VOID:
            self.open.append(tag)

    def _begin(self, tag: str, named: dict[str, str]) -> None:
        if tag in ("h1", "h2", "h3") or named.get("role") == "heading":
            self.headings.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append((named, []))
        elif tag in ("td", "th"):
            self.tables[-1][-1][1].append((named, ""))
        elif tag in ("figure", "button"):
            (self.figures if tag == "figure" else self.buttons).append(named)
        elif tag == "script":
            self.scripts.append((named, ""))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif "style" not in self.open:
            self.text += data
            if {"h1", "h2", "h3", "strong"} & set(self.open):
                self.headings[-1] += data
            if {"td", "th"} & set(self.open):
                row = self.tables[-1][-1][1]
                row[-1] = (row[-1][0], row[-1][1] + data)
