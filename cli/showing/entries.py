"""Names with a sentence each: side by side where the screen has room, else below; names and words stay whole."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from merging.cli.showing.folding import wrapped

GAP = 2
"""Cells between a name and what is said of it."""
WIDEST = 30
"""Cells that names take at the most; what is said of a longer one stands below it."""
ROOM = 24
"""Cells that sentences have at the least; where names leave fewer, they stand below the names."""


def show_entries(console: Console, entries: Sequence[tuple[Text, Sequence[Text]]]) -> None:
    """Prints names, and beside or below each what is said of it.

    Args:
        console: what it goes to; nothing but single long words is wider.
        entries: each name, and the sentences for it, which begin a line each.
    """
    for line in laid(entries, console.width):
        console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)


def laid(entries: Sequence[tuple[Text, Sequence[Text]]], width: int) -> list[Text]:
    """The lines of the names and sentences.

    >>> said = [(Text("greedy"), [Text("one model after another")]), (Text("uniform"), [Text("the average")])]
    >>> [line.plain for line in laid(said, 40)]
    ['greedy   one model after another', 'uniform  the average']
    >>> [line.plain for line in laid(said, 24)]
    ['greedy', '  one model after', '  another', 'uniform', '  the average']

    Args:
        entries: each name, and the sentences for it.
        width: cells of the screen.
    """
    margin = min(max((name.cell_len for name, _ in entries), default=0), WIDEST) + GAP
    indented = next((len(name.plain) - len(name.plain.lstrip()) for name, _ in entries), 0)
    beside = width - margin >= ROOM
    margin = margin if beside else indented + GAP
    lines = []
    for name, said in entries:
        told = [line for each in said for line in wrapped(each, width - margin) if line.plain]
        if told and beside and name.cell_len + GAP <= margin:
            lines.append(name + Text(" " * (margin - name.cell_len)) + told.pop(0))
        else:
            lines.append(name)
        lines += [Text(" " * margin) + line for line in told]
    return lines
