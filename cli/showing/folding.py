"""Names and sentences in little room: a name is folded in its middle, a sentence broken between its words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.text import Text

MARK = "…"
_FIGURE = re.compile(r"(?:[▲▼–≈] )?[-+]?\d[\d.,]*(?: %| \[[^\[\] ]+, [^\[\] ]+\](?: p[=<≥]\S+)?)|[▲▼≈] \S+|\bin %")
"""A number with its unit, a difference with what stands beside it, or a mark with its word."""
_SHARES = (0.5, 0.35, 0.65, 0.2, 0.8, 0.0, 1.0)
"""Parts of the room for a name's beginning, in the order in which they are tried."""


def folded(names: Sequence[str], room: int) -> list[str]:
    """Gives each name in at most so many cells of the screen; names that differ still do.

    >>> folded(["model_with_a_very_long_name_run4", "model_with_a_very_long_name_run5", "b"], 16)
    ['model_wi…me_run4', 'model_wi…me_run5', 'b']
    >>> folded(["run_17_of_a_very_long_name", "run_18_of_a_very_long_name"], 10)
    ['run_17…ame', 'run_18…ame']
    >>> folded(["aaaaaaaa1aaaaaaaa", "aaaaaaaa2aaaaaaaa"], 9)
    ['1:aaa…aaa', '2:aaa…aaa']

    Args:
        names: all that stand in one column, or heads of columns side by side.
        room: cells, at least 4; wide characters take two.
    """
    if all(cell_len(name) <= room for name in names):
        return list(names)
    for share in _SHARES:
        shown = [_fold(name, room, share) for name in names]
        if len(set(shown)) == len(set(names)):
            return shown
    different = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
    marks = [f"{different[name]}:" for name in names]
    return [mark + _fold(name, max(room - len(mark), 1), 0.5) for mark, name in zip(marks, names, strict=True)]


def _fold(name: str, room: int, share: float) -> str:
    if cell_len(name) <= room:
        return name
    first = round((room - len(MARK)) * share)
    head = _begin(name, first)
    tail = _begin(name[::-1], room - len(MARK) - first)[::-1]
    while tail and (unicodedata.combining(tail[0]) or tail[0] in "\u200c\u200d\ufe0e\ufe0f"):
        tail = tail[1:]  # it belonged to a letter that is gone
    return head.rstrip("\u200d") + MARK + tail


def _begin(name: str, room: int) -> str:
    """As many characters as fit into so many cells."""
    taken = 0
    for number, character in enumerate(name):
        taken += cell_len(character)
        if taken > room:
            return name[:number]
    return name


def cut(text: str, room: int) -> str:
    """The words of a text that fit, from its beginning: none of them, and no number with its unit, is broken.

    >>> cut("best 97.00 %, model_05", 30), cut("best 97.00 %, model_05", 16), cut("best 97.00 %", 11)
    ('best 97.00 %, model_05', 'best 97.00 % …', 'best …')
    """
    if cell_len(text) <= room:
        return text
    words = re.split(" (?!%)", text)
    while words and cell_len(" ".join(words)) + 2 > room:
        words.pop()
    return f"{' '.join(words).rstrip(',:')} {MARK}" if words else ""


def wrapped(text: Text, width: int) -> list[Text]:
    """Breaks a line between its words alone: a path or a name that is longer than the screen stays whole.

    A number stays with its unit; a difference with its mark, interval and p, where they are no wider than a line.

    >>> [line.plain for line in wrapped(Text("  in /a/long/path/model.pt now"), 12)]
    ['  in', '/a/long/path/model.pt', 'now']
    >>> [line.plain for line in wrapped(Text("at the level of 5 %: greedy +1.4 [+0.1, +2.8] p=.04"), 34)]
    ['at the level of 5 %: greedy', '+1.4 [+0.1, +2.8] p=.04']

    Args:
        text: one line; its indentation stays.
        width: cells of the screen.
    """
    indent = len(text.plain) - len(text.plain.lstrip(" "))
    lines, taken = [text[:indent]], indent
    for number, word in enumerate(_whole(text[indent:], width)):
        if number and taken + 1 + word.cell_len > width:
            lines.append(Text(style=text.style))
            taken = 0
        elif number:
            lines[-1].append(" ")
            taken += 1
        lines[-1].append_text(word)
        taken += word.cell_len
    return lines


def _whole(text: Text, width: int) -> list[Text]:
    """Words of a line; those that are read as one are one, where a line has room for them."""
    held = {space for found in _FIGURE.finditer(text.plain) for space in _spaces(found, width)}
    cuts = [place for place, character in enumerate(text.plain) if character == " " and place not in held]
    return [text[first + 1 : last] for first, last in pairwise([-1, *cuts, len(text.plain)])]


def _spaces(found: re.Match[str], width: int) -> list[int]:
    """Places of the spaces in a figure that is no wider than a line."""
    if cell_len(found[0]) > width:
        return []
    return [place for place in range(*found.span()) if found.string[place] == " "]


def beside(texts: Sequence[Text], width: int, gap: int = 3) -> list[Text]:
    """Puts short texts side by side in as many lines as they need; none of them is broken.

    >>> [line.plain for line in beside([Text("A best"), Text("B greedy"), Text("C uniform")], 18)]
    ['A best   B greedy', 'C uniform']

    Args:
        texts: such as the entries of a key.
        width: cells of the screen.
        gap: cells between two of them.
    """
    lines = list[Text]()
    for text in texts:
        if lines and lines[-1].cell_len + gap + text.cell_len <= width:
            lines[-1] = lines[-1] + Text(" " * gap) + text
        else:
            lines.append(text)
    return lines
