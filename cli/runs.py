"""``merge runs``: the runs, benchmarks and fine-tuned pools below a folder, a line each."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from merging.cli.asking.options import shared
from merging.errors import FolderError, near_path, showable

if TYPE_CHECKING:
    from rich.text import Text

    from merging.benchmarking.history import Entry

NARROW = 24
"""Cells that the heading above the folders' names may take, where these are shorter."""
COLUMNS = (
    ("state", 1, False),
    ("when", 4, False),
    ("what", 2, False),
    ("task", 5, False),
    ("models", 3, True),
    ("held-out", 0, True),
    ("test", 0, True),
    ("vs best", 0, True),
)
"""Headings, ranks (see :class:`merging.cli.showing.grid.Column`), and whether the cells stand at the right."""


@click.command("runs")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@click.option("--depth", type=click.IntRange(0, 20), metavar="N", help="Levels of folders below.  [default: 3]")
@shared("open_page", open_page="Compare all of them on a page, and open it in your browser.")
@shared("as_json")
def command(folders: tuple[str, ...], depth: int | None, open_page: bool, as_json: bool) -> None:
    """List the runs, benchmarks and fine-tuned pools that lie in FOLDER and below, the newest first.

    Held-out and test score of each merge, and how far the test score lies above the best single model's. Nothing is
    evaluated. Without FOLDER, the working folder is looked into; links are followed, hidden folders left
    out.
    """
    from merging.benchmarking.history import DEPTH, entries
    from merging.cli.showing.screen import print_json

    found: dict[Path, Entry] = {}
    for name in folders or (".",):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            gone = f"there is no folder {name}{near_path(folder)}"
            raise FolderError(f"{name} is a file; name a folder" if folder.exists() else gone)
        for entry in entries(folder, DEPTH if depth is None else depth):
            found.setdefault(entry.folder.resolve(), entry)
    listed = sorted(found.values(), key=lambda entry: (-entry.time, str(entry.folder)))
    if as_json:
        print_json([entry.to_json() for entry in listed])
    else:
        _show(listed, folders)
    if open_page and listed:
        from merging.cli.showing.compared import Wish, compare

        compare([Path(name).expanduser() for name in folders or (".",)], Wish(opens=True, shows=False), depth=depth)


def _show(listed: list[Entry], folders: tuple[str, ...]) -> None:
    from rich.cells import cell_len

    from merging.cli.showing.grid import Column, Grid
    from merging.cli.showing.screen import Screen, marked

    console = Screen()
    if not listed:
        where = ", ".join(folders) or "this folder"
        console.print(marked("No runs in {} or below; merge run writes them to runs/.", where), highlight=False)
        return
    common, tasks = _common(listed), {entry.task for entry in listed}
    names = [_name(entry, common) for entry in listed]
    corner = f"in {showable(common)}/" if common else "folder"
    if common and cell_len(corner) > max(NARROW, *(name.cell_len for name in names)):
        console.print(marked("[bold]{}[/]", corner), highlight=False)
        corner = "folder"
    told = zip(*(_cells(entry) for entry in listed), strict=True)
    columns = [
        Column(head=head, cells=cells, rank=rank, right=right)
        for (head, rank, right), cells in zip(COLUMNS, told, strict=True)
        if not (head == "state" and not any(cell.plain for cell in cells)) and not (head == "task" and len(tasks) < 2)
    ]
    Grid(names=names, columns=columns, corner=corner, elsewhere="--json", turns=False).show(console)
    for line in _remarks(listed):
        console.print(line, highlight=False, soft_wrap=True)
    about = f"Task {showable(tasks.pop() or 'none')}. " if len(tasks) == 1 else ""
    console.print(
        f"{about}Accuracies in %. vs best: the test score, or without one the held-out score, less the best single "
        "model's; ▲ better, ▼ worse on a set that counts, a test set or the average of the shifted ones (5 % level), "
        "no mark: no difference that can be told from luck, – not tested.",
        style="dim",
        highlight=False,
    )


def _common(listed: list[Entry]) -> str:
    """The folder that all of them lie in, as far as a reader needs not see it in each line."""
    parents = {str(entry.folder.parent) for entry in listed}
    common = os.path.commonpath(parents) if len({os.path.isabs(parent) for parent in parents}) == 1 else ""
    return "" if common in (".", "") else common


def _name(entry: Entry, common: str) -> Text:
    from merging.cli.showing.screen import marked

    return marked("[bold]{}[/]", os.path.relpath(entry.folder, common) if common else str(entry.folder))


def _remarks(listed: list[Entry]) -> Iterator[Text]:
    """What is to be said of folders without a whole result, and how those go on that can."""
    from merging.benchmarking.history import Kind, State
    from merging.cli.showing.screen import marked

    for entry in listed:
        if entry.state in (State.DAMAGED, State.NEWER):
            yield marked("[red]{}:[/] {}: {}", entry.state, entry.folder, entry.status)
        elif entry.kind is Kind.RUN and entry.state in (State.INTERRUPTED, State.LIMIT, State.CUT_OFF):
            more = " --max-evaluations MORE" if entry.state is State.LIMIT else ""
            again = f"merge run --resume {shlex.quote(str(entry.folder))}{more}"
            yield marked("[yellow]{}:[/] {}; go on: {}", entry.state, entry.folder, again)


def _cells(entry: Entry) -> list[Text]:
    """What is told of a folder, in the order of ``COLUMNS``."""
    from rich.text import Text

    from merging.benchmarking.history import Kind, State
    from merging.cli.showing.answer import STYLES
    from merging.values.outcome import is_score
    from merging.values.report import number
    from merging.values.verdict import ACCURACY
    from merging.values.wording import plural

    percent = entry.measure == ACCURACY
    what = entry.strategy or "–"
    if entry.kind is not Kind.RUN:
        what = f"{entry.kind}: {what}"
    if entry.methods:
        what = plural(entry.methods, "method")
        what = f"best of {entry.methods}: {entry.strategy}" if entry.strategy else what
    if entry.saved is not None:
        what += f" (saved: {entry.saved})"
    if not percent:
        what += f", by {entry.measure}"
    count = "–" if entry.models is None else str(entry.models)
    count += f"/{entry.pool}" if entry.pool is not None else ""
    shown = Text()
    if entry.difference is not None:
        less = f"{100 * entry.difference:+.2f}" if percent else f"{entry.difference:+.3g}"
        shown = Text(
            f"{entry.mark or ' '} {less if is_score(entry.difference) else 'NaN'}", style=STYLES[entry.standing]
        )
    colour = {State.RUNNING: "cyan", State.DAMAGED: "red", State.NEWER: "red"}.get(entry.state, "yellow")
    return [
        Text("" if entry.state is State.FINISHED else str(entry.state), style=colour),
        Text(_when(entry.time)),
        Text(showable(what)),
        Text(showable(entry.task or "–")),
        Text(count),
        *(Text(number(score, percent=percent)) for score in (entry.held_out, entry.test)),
        shown,
    ]


def _when(seconds: float) -> str:
    """Day and time here; of another year the date."""
    then = time.localtime(seconds)
    return time.strftime("%d %b %H:%M" if then.tm_year == time.localtime().tm_year else "%Y-%m-%d", then)
