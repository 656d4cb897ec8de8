"""The leaderboard of a pool in the terminal: as many columns as its width takes, the ones that matter first."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.values.leaderboard_table import Kind, Leaderboard, initials

RANKS = {Kind.MAIN: 0, Kind.SOUPS: 1, Kind.TRAINED: 2, Kind.SHIFT: 100}
"""Ranks of the columns: where there is no room, shifted sets leave first, then hyper-parameters, the last first."""


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
    columns = []
    for number, column in enumerate(board.columns(soups=letters)):
        later = number if RANKS[column.kind] > 1 else 0
        columns.append(
            Column(
                head=column.heading,
                cells=[Text(cell) for cell in column.cells],
                rank=RANKS[column.kind] + later,
                right=column.kind in (Kind.MAIN, Kind.SHIFT),
            )
        )
    names = [Text(showable(name)) for name in board.names]
    console.print()
    Grid(names=names, columns=columns, corner="pool", elsewhere=file, turns=False).show(console)
    said = ", ".join(f"{letter} {board.labels[name]}" for name, letter in letters.items() if name in board.mixed)
    if more := [*([f"In soups: {said}."] if said else []), *board.remarks(file)]:
        console.print(marked("{}", " ".join(more)), style="dim", highlight=False)
