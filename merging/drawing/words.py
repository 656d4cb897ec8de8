"""How wide a text is, and what is shown of one that is too long; without asking a font or a browser."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_WIDTHS = {
    0.191: "'",
    0.222: "ijl",
    0.26: "|",
    0.278: " !,./:;I[\\]ft·",
    0.333: "()-`r",
    0.355: '"',
    0.389: "*",
    0.469: "^",
    0.5: "Jckvsxyz",
    0.556: "#$0123456789?L_abdeghnopqu–",
    0.584: "+<=>~−",
    0.611: "FTZ",
    0.667: "&ABEKPSVXY",
    0.722: "CDHNRUw",
    0.778: "GOQ",
    0.833: "Mm",
    0.889: "%",
    0.944: "W",
    1.0: "…▲▼—",
    1.015: "@",
}
"""Widths of Helvetica's characters, and of all fonts that are made to stand in for it, in parts of the size."""
WIDTHS = {character: width for width, characters in _WIDTHS.items() for character in characters}
NARROWEST = min(WIDTHS.values())
OTHER = 0.62
"""About the width of a character of another alphabet."""


def width(text: str, size: float) -> float:
    """Measures a text in pixels.

    Args:
        text: the text, of one line.
        size: the font's size in pixels.
    """
    return size * sum(_width(character) for character in text)


def _width(character: str) -> float:
    if character in WIDTHS:
        return WIDTHS[character]
    if unicodedata.combining(character):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(character) in "WF" else OTHER


def shortened(text: str, room: float, size: float) -> str:
    """The text, or where it is wider than the room its beginning and its end: names differ in either.

    >>> shortened("manifoldmix", 100, 11), shortened("manifoldmix with many options", 100, 11)
    ('manifoldmix', 'manifoldmix…ptions')

    Args:
        text: the text, of one line.
        room: pixels that there are.
        size: the font's size in pixels.
    """
    most = int(room / (NARROWEST * size)) + 1
    if len(text) <= most and width(text, size) <= room:
        return text
    for kept in range(min(most, len(text) - 1), 0, -1):
        end = kept * 2 // 5
        found = f"{text[: kept - end]}…{text[len(text) - end :] if end else ''}"
        if width(found, size) <= room:
            return found
    return "…"


def apart(names: Sequence[str], room: float, size: float) -> list[str]:
    """Shortens names, and numbers those that would look alike.

    >>> apart(["a" * 30 + "1" + "b" * 30, "a" * 30 + "2" + "b" * 30, "c"], 80, 11)
    ['aaaaaa…bbb 1', 'aaaaaa…bbb 2', 'c']

    Args:
        names: the names.
        room: pixels that there are for each.
        size: the font's size in pixels.
    """
    found = [shortened(name, room, size) for name in names]
    meant: dict[str, list[str]] = {}
    for name, text in zip(names, found, strict=True):
        if name not in meant.setdefault(text, []):
            meant[text].append(name)
    for place, (name, text) in enumerate(zip(names, found, strict=True)):
        if len(alike := meant[text]) > 1:
            number = f" {alike.index(name) + 1}"
            found[place] = shortened(name, room - width(number, size), size) + number
    return found


def lines(text: str, room: float, size: float) -> list[str]:
    """Breaks a text into lines; a word that is wider than the room is shortened.

    >>> lines("one two three", 50, 12)
    ['one two', 'three']
    """
    found: list[str] = []
    for word in text.split():
        if found and width(f"{found[-1]} {word}", size) <= room:
            found[-1] += f" {word}"
        else:
            found.append(shortened(word, room, size))
    return found or [""]
