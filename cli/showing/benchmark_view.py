"""A benchmark in the terminal: Table 1, the paired comparisons, the scatter; for wide and narrow ones, and pipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import remarks, title, what
from merging.benchmarking.rendering.tables import (
    COST_LEGEND,
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
from merging.cli.showing.scatter import LETTERS, SINGLE, scatter
from merging.cli.showing.screen import marked, parts, remark
from merging.errors import showable
from merging.values.states import MethodState
from merging.values.verdict import Verdict, difference, mark, p_value, word

if TYPE_CHECKING:
    from merging.benchmarking.results import Benchmark

MARKS = {0: "", 1: "¹", 2: "²"}
SHORT = {
    "models": "models",
    "inference_cost": "passes",
    "evaluations": "evals",
    "forward_equivalents": "fwd-eq",
    "seconds": "seconds",
}
"""Headings of the costs that fit a terminal."""
GAP = 2
"""Characters between columns: one of the box, the rest padding."""


def show_benchmark(console: Console, found: Benchmark) -> None:
    """Prints everything; standard output holds no colour and no control character in a pipe."""
    console.width = max(console.width, 30)  # in less, rich would cut numbers
    console.print(Text(showable(f"{title(found)}. {what(found)}")), style="dim", highlight=False)
    show_answer(console, answer(found))
    begun = tuple(row for row in found.rows if row.status is not MethodState.NOT_RUN)
    _show_scores(console, replace(found, rows=begun))
    console.print(marked("¹ best, ² second best. {}", legend_of(found)), style="dim", highlight=False)
    console.print(f"± half the 95 % interval. {COST_LEGEND}", style="dim", highlight=False)
    for reference in found.references:
        _show_comparisons(console, found, reference)
    _show_scatter(console, found)
    for line in remarks(found):
        console.print(remark(line), highlight=False)
    asked = sum(row.evaluations * len(row.seeds) for row in found.rows)
    console.print(
        f"{found.evaluations:,} models scored on the held-out data, where the methods alone need {asked:,.0f}; "
        f"{found.wall_seconds:.0f} s",
        highlight=False,
    )


def _show_scores(console: Console, found: Benchmark) -> None:
    """Scores, then costs, in as many tables as the width needs."""
    scores = cells(found)
    columns = [
        (
            heading(found, c),
            [_text(row.get(c), row_.finished, c, found) for row, row_ in zip(scores, found.rows, strict=True)],
        )
        for c in shown(found)
    ]
    columns += [(short, [Text(cost(row, name)) for row in found.rows]) for name, short in SHORT.items()]
    names = [marked("{}" if row.finished else f"{{}} [dim]({row.status})[/]", row.label) for row in found.rows]
    _print(console, names, columns)


def _text(cell: Cell | None, finished: bool, column: str, found: Benchmark) -> Text:
    if cell is None or not finished:
        return Text("–")
    text = {1: f"[bold]{cell.text}[/]", 2: f"[underline]{cell.text}[/]"}.get(cell.rank, cell.text)
    wide = column in (home(found), SHIFTED)
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
            label = min(max(len(showable(row.label)) for row in rows), max(console.width // 3, 10))
            room = console.width - label - 2 - GAP
            tall = any(_difference(verdict).cell_len > room for verdict in told)
            columns.append((heading(found, column), [_difference(verdict, tall=tall) for verdict in told]))
    if columns:
        head = marked("\n[bold]Against {}[/]: {}", found.against(reference), corrected_by(found, reference))
        console.print(head, highlight=False)
        _print(console, [Text(showable(row.label)) for row in rows], columns)


def _difference(verdict: Verdict | None, *, tall: bool = False) -> Text:
    """Mark, difference, interval and p; ``tall``: the interval on a line of its own, in a narrow terminal."""
    if verdict is None:
        return Text()
    style = STYLES[word(verdict)]
    if not verdict.tested:
        return marked(f"[{style}]{{}} not tested[/]", mark(verdict))
    size, _, interval = difference(verdict).partition(" ")
    own, within = f"[{style}]{{}} {{}}[/]", "[dim]{}[/]"
    p = p_value(verdict.corrected)
    if tall:
        return marked(f"{own} [{style}]{{}}[/]\n{within}", mark(verdict), size, p, interval)
    return marked(f"{own} {within} [{style}]{{}}[/]", mark(verdict), size, interval, p)


def _print(console: Console, names: Sequence[Text], columns: Sequence[tuple[str, list[Text]]]) -> None:
    """Prints columns beside the names, in parts that fit the width."""
    heads = [Text(showable(head)) for head, _ in columns]
    widths = [
        max(line.cell_len for text in (head, *texts) for line in text.split() or [Text()])
        for head, (_, texts) in zip(heads, columns, strict=True)
    ]
    label = min(max((name.cell_len for name in names), default=0), max(console.width // 3, 10))
    for part in parts(
        [width + GAP for width in widths], console.width - label - 2
    ):  # the rule below the head is longer by one on each side
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 0, 0, GAP - 1))
        table.add_column("", min_width=label, max_width=label, overflow="fold")
        for index in part:
            table.add_column(heads[index], justify="right", no_wrap=True)
        for number, name in enumerate(names):
            table.add_row(name, *(columns[index][1][number] for index in part))
        console.print(table, highlight=False)


def _show_scatter(console: Console, found: Benchmark) -> None:
    """In-distribution against shifted scores, with characters."""
    column, rows = home(found), placed(found)
    if not rows:
        return
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
    key += [marked("[bold]{}[/] {}", mark, name) for name, mark in letters.items()]
    console.print(Text("   ").join(key), highlight=False)


__all__ = ["COSTS", "show_benchmark"]
