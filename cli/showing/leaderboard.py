"""The leaderboard of a pool in the terminal: as many columns as its width takes, the ones that matter first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from merging.cli.showing import screen
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.values.leaderboard_table import Column, Kind, Leaderboard, initials
from merging.values.wording import beginning, some

GAP = 2
"""Number of spaces between columns."""
NAMES = 28
"""Longest name that is shown whole, in characters; in a wide terminal a third of its width."""
_ORDER = (Kind.MAIN, Kind.SOUPS, Kind.TRAINED, Kind.SHIFT)
"""Kinds of columns, in the order in which they are given room."""


def show_leaderboard(console: Console, board: Leaderboard, file: str, letters: Mapping[str, str] | None = None) -> None:
    """Prints the models of a pool, best first; nothing where none was scored, or there is one alone.

    Args:
        console: what it goes to; no line is wider.
        board: the models.
        file: the file that has all of them and all columns.
        letters: method → the letter that it has elsewhere on the screen.
    """
    if not board.singles:
        return
    if letters is None or not letters.keys() >= set(board.mixed):
        letters = initials({name: board.labels[name] for name in board.mixed})
    columns = board.columns(soups=letters)
    names = [beginning(showable(name), max(NAMES, console.width // 3)) for name in board.names]
    kept = fitting(columns, console.width - max(map(len, names)))
    table = screen.table(padding=(0, GAP, 0, 0))
    table.add_column("pool", no_wrap=True)
    for column in kept:
        left = column.kind in (Kind.SOUPS, Kind.TRAINED)
        table.add_column(Text(_heading(column)), justify="left" if left else "right", no_wrap=True)
    for row, name in enumerate(names):
        table.add_row(Text(name), *(Text(column.cells[row]) for column in kept))
    console.print()
    console.print(table, highlight=False)
    said = ", ".join(f"{letter} {board.labels[name]}" for name, letter in letters.items() if name in board.mixed)
    more = [f"In soups: {said}."] if said else []
    more += board.remarks(file)
    if hidden := [column.heading for column in columns if column not in kept]:
        more.append(f"Not shown here: {some(hidden, 6)} ({file} has all).")
    if more:
        console.print(marked("{}", " ".join(more)), style="dim", highlight=False)


def fitting(columns: Sequence[Column], room: int) -> list[Column]:
    """The columns that fit, in the table's order; what matters more is given room first.

    Args:
        columns: all of them.
        room: characters beside the names.
    """
    kept: set[int] = set()
    for kind in _ORDER:
        for index, column in enumerate(columns):
            wide = GAP + max(map(len, (*_heading(column).split("\n"), *column.cells)))
            if column.kind is kind and (wide <= room or not kept):
                kept.add(index)
                room -= wide
    return [columns[index] for index in sorted(kept)]


def _heading(column: Column) -> str:
    """A heading in two lines where it has several words, so that the column is no wider than its numbers need."""
    return column.heading.replace("average of shifts", "average\nof shifts").replace("in soups", "in\nsoups")
