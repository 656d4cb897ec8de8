"""A benchmark in the terminal: Table 1, the paired comparisons, the scatter; for wide and narrow ones, and pipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from merging.benchmarking.columns import scored
from merging.benchmarking.folder import POOL
from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import headed, remarks, title, what
from merging.benchmarking.rendering.leaderboard import board
from merging.benchmarking.rendering.tables import (
    COSTS,
    Cell,
    cells,
    corrected_by,
    cost,
    heading,
    home,
    legend_of,
    main,
    placed,
    shown,
    single_scores,
)
from merging.benchmarking.results import SHIFTED
from merging.cli.showing.answer import STYLES, show_answer
from merging.cli.showing.folding import beside
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.leaderboard import show_leaderboard
from merging.cli.showing.scatter import LETTERS, SINGLE, scatter
from merging.cli.showing.screen import marked, notes
from merging.errors import showable
from merging.plugins.task import HELD_OUT
from merging.values.states import MethodState
from merging.values.verdict import Verdict, difference, mark, p_value, word
from merging.values.wording import lasted

if TYPE_CHECKING:
    from merging.benchmarking.results import Benchmark, BenchmarkRow

MARKS = {0: "", 1: "¹", 2: "²"}
SHORT = {
    "models": ("models", 4),
    "inference_cost": ("passes", 3),
    "evaluations": ("evals", 2),
    "forward_equivalents": ("fwd-eq", 6),
    "seconds": ("seconds", 5),
}
"""Headings of the costs that fit a terminal, and their ranks."""


def show_benchmark(console: Console, found: Benchmark, elsewhere: str = "--json") -> None:
    """Prints everything; standard output holds no colour and no control character in a pipe.

    Args:
        console: the screen.
        found: the benchmark, or several folders' results, table by table.
        elsewhere: file or flag that has the numbers for which a narrow screen has no room.
    """
    _show(console, found, title(found), elsewhere)
    for part in found.apart:
        console.print()
        console.rule(style="dim")
        console.print(Text(showable(f"{part.why}.")), highlight=False)
        _show(console, part, headed(part), elsewhere)


def _show(console: Console, found: Benchmark, named: str, elsewhere: str) -> None:
    console.print(Text(showable(f"{named}. {what(found)}")), style="dim", highlight=False)
    if not scored(found):
        _show_merges(console, found)
        return
    show_answer(console, answer(found))
    console.print()
    begun = tuple(row for row in found.rows if row.status is not MethodState.NOT_RUN)
    scores = _scores(replace(found, rows=begun), elsewhere)
    scores.show(console)
    _show_evaluations(console, begun, scores)
    console.print(marked("{}", legend_of(found, "¹ best, ² second best")), style="dim", highlight=False)
    table = "\n".join(line.plain for line in scores.lines(console.width))
    explained = [_costs_explained(scores.without(console.width))]
    explained += ["± half the 95 % interval."] if "±" in table else []
    console.print(" ".join(explained), style="dim", highlight=False)
    for reference in found.references:
        _show_comparisons(console, found, reference)
    letters = _show_scatter(console, found)
    show_leaderboard(console, board(found), POOL, letters)
    notes(console, remarks(found), [*found.pool, *(row.label for row in found.rows)])
    asked = sum(row.evaluations * len(row.seeds) for row in found.rows)
    console.print(
        f"{found.evaluations:,} models scored on the held-out data, where the methods alone need {asked:,.0f}; "
        + lasted(found.wall_seconds),
        highlight=False,
    )


def _show_merges(console: Console, found: Benchmark) -> None:
    """Names merges that have no scores, a line each: what was mixed, and why nothing was scored."""
    for row in found.rows:
        models = f"{row.models:g} of {len(found.pool)} models" if found.pool else f"{row.models:g} models"
        console.print(marked("[bold]{}[/]: {} ({})", row.label, models, row.why), highlight=False)
    notes(console, [note for note in found.notes if note not in {row.why for row in found.rows}], found.pool)


def _scores(found: Benchmark, elsewhere: str) -> Grid:
    """Scores and costs, a line a method; single shifted sets leave before what conclusions are drawn from."""
    rows, stays = list(zip(cells(found), found.rows, strict=True)), {HELD_OUT, *main(found)}
    columns = [
        Column(
            head=heading(found, c),
            cells=[_text(row.get(c), row_.finished, c, found) for row, row_ in rows],
            short=[_text(row.get(c), row_.finished, c, found, short=True) for row, row_ in rows],
            rank=0 if c in stays else 1,
        )
        for c in shown(found)
    ]
    dear = any(row.inference_cost > 1 for row in found.rows)
    for name, (short, rank) in SHORT.items():
        if dear or name != "inference_cost":
            columns.append(Column(head=short, cells=[Text(cost(row, name)) for row in found.rows], rank=rank))
    names = [marked("{}" if row.finished else f"{{}} [dim]({row.status})[/]", row.named) for row in found.rows]
    return Grid(names=names, columns=columns, elsewhere=elsewhere)


def _show_evaluations(console: Console, rows: Sequence[BenchmarkRow], scores: Grid) -> None:
    """Says what each method costs, in lines, where the table has no room for it: a gain has its price beside it."""
    head, _ = SHORT["evaluations"]
    if head in scores.without(console.width):
        told = [f"{row.label} {cost(row, 'evaluations')}" for row in rows if row.finished]
        console.print(marked("{}: {}", head, ", ".join(told)), highlight=False)


def _costs_explained(gone: Sequence[str]) -> str:
    """What the costs on the screen are, in the words of their headings."""
    words = {
        "evaluations": "models scored",
        "forward_equivalents": "passes over the held-out data; with a backward pass 3",
        "seconds": "",
    }
    heads = [
        (SHORT[name][0], told) for name, told in words.items() if name == "evaluations" or SHORT[name][0] not in gone
    ]
    named = ", ".join(f"{head} ({told})" if told else head for head, told in heads)
    return f"{named}: what each method needs alone; what one had scored was not scored again for the others."


def _text(cell: Cell | None, finished: bool, column: str, found: Benchmark, *, short: bool = False) -> Text:
    if cell is None or not finished:
        return Text("–")
    text = {1: f"[bold]{cell.text}[/]", 2: f"[underline]{cell.text}[/]"}.get(cell.rank, cell.text)
    wide = column in (home(found), SHIFTED) and not short
    half = f" [dim]±{cell.half}[/]" if cell.half and wide else ""
    spread = f" [dim]sd {cell.spread}[/]" if cell.spread and wide else ""
    return marked(f"{text}{MARKS[cell.rank] or ' '}[{STYLES[cell.word]}]{cell.mark or ' '}[/]{half}{spread}")


def _show_comparisons(console: Console, found: Benchmark, reference: str) -> None:
    """Differences of the main columns, each with its interval and p beside it; the files have all of them."""
    rows = [row for row in found.rows if any(row.verdict(reference, column) for column in found.columns)]
    columns = []
    for column in main(found):
        told = [row.verdict(reference, column) for row in rows]
        if any(told):
            cells = _aligned([_difference(verdict) for verdict in told])
            columns.append(Column(head=heading(found, column), cells=cells, right=False))
    if columns:
        head = marked("\n[bold]Against {}[/]: {}", found.against(reference), corrected_by(found, reference))
        console.print(head, highlight=False)
        Grid(names=[Text(showable(row.label)) for row in rows], columns=columns, turns=False).show(console)


def _difference(verdict: Verdict | None) -> tuple[Text, ...]:
    """Mark with difference, interval, and p; or what there is in their place."""
    if verdict is None:
        return (Text(),)
    style = STYLES[word(verdict)]
    if not verdict.tested:
        return (marked(f"[{style}]{{}} not tested[/]", mark(verdict)),)
    size, _, interval = difference(verdict).partition(" ")
    return (
        marked(f"[{style}]{{}} {{}}[/]", mark(verdict), size),
        marked("[dim]{}[/]", interval),
        marked(f"[{style}]{{}}[/]", p_value(verdict.corrected)),
    )


def _aligned(rows: list[tuple[Text, ...]]) -> list[Text]:
    """The parts of each row side by side, those of one kind below one another."""
    widths = [
        max(part.cell_len for part in parts) for parts in zip(*(row for row in rows if len(row) > 1), strict=True)
    ]
    lines = []
    for row in rows:
        line = row[0]
        if len(row) > 1:
            line = Text(" " * (widths[0] - line.cell_len)) + line
            for part, width in zip(row[1:], widths[1:], strict=True):
                line = line + Text(" ") + part + Text(" " * (width - part.cell_len))
        line.rstrip()
        lines.append(line)
    return lines


def _show_scatter(console: Console, found: Benchmark) -> dict[str, str] | None:
    """In-distribution against shifted scores, with characters; gives the letter of each method."""
    column, rows = home(found), placed(found)
    if not rows:
        return None
    factor, unit = (100, "in %") if found.percent(SHIFTED) else (1, f"({found.objective})")
    letters = dict(zip((row.label for row in rows), LETTERS * (1 + len(rows) // len(LETTERS)), strict=False))
    points = [(factor * x, factor * y, SINGLE) for x, y in single_scores(found)]
    points += [(factor * (row.value(column) or 0), factor * (row.shifted or 0), letters[row.label]) for row in rows]
    width = min(console.width - 1, 88)
    console.print()
    for line in scatter(
        points,
        width=width,
        height=min(16, 6 + width // 6),
        across=f"{heading(found, column)} {unit}",
        up=f"average of the shifted sets {unit}",
    ):
        console.print(Text(showable(line)), highlight=False, no_wrap=True, overflow="crop")
    key = [Text(f"{SINGLE} single models")] if found.singles else []
    key += [marked("[bold]{}[/] {}", letters[row.label], row.named) for row in rows]
    for entry in beside(key, console.width):
        console.print(entry, highlight=False, no_wrap=True, overflow="ignore", crop=False)
    return letters


__all__ = ["COSTS", "show_benchmark"]
