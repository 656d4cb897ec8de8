"""A benchmark as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re

from merging.benchmarking.folder import POOL
from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.leaderboard import board, csv_cell
from merging.benchmarking.rendering.tables import (
    COST_LEGEND,
    COSTS,
    Cell,
    cells,
    compared,
    correction_of,
    cost,
    heading,
    legend_of,
    outcome,
    shown,
)
from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.errors import showable
from merging.plugins.task import HELD_OUT
from merging.values.answer import markdown
from merging.values.leaderboard_table import in_markdown
from merging.values.markdown import plain
from merging.values.states import MethodState
from merging.values.units import TOKENS
from merging.values.verdict import compact, legend
from merging.values.wording import plural, some
from merging.values.workers import told_workers


def to_csv(found: Benchmark) -> str:
    """A line a method, for other programs: fractions, intervals, differences and corrected p values.

    What stands apart has other columns, and is not in it.
    """
    out = io.StringIO()
    names = ["method", "strategy", "partitioner", "status", "seeds"]
    for column in found.columns:
        names += [column, f"{column} low", f"{column} high", f"{column} sd"]
    for reference in found.references:
        for column in found.columns:
            minus, against = f"{column} minus {reference}", f"against {reference}"
            names += [minus, f"{minus} low", f"{minus} high", f"{column} p {against}", f"{column} raw p {against}"]
            names += [f"{column} verdict {against}"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, [*names, "ingredients", *COSTS, "why"]))
    for row in found.rows:
        line: list[object] = [row.label, row.strategy, row.partitioner or "", row.status, len(row.seeds)]
        for column in found.columns:
            low, high = row.intervals.get(column, ("", ""))
            line += [_blank(row.value(column)), low, high, row.spread.get(column, "")]
        for reference in found.references:
            for column in found.columns:
                told = row.verdict(reference, column)
                low, high = told.interval if told and told.interval else ("", "")
                values = [told.difference, told.corrected, told.p] if told else [None] * 3
                line += [_blank(values[0]), low, high, *map(_blank, values[1:])]
                line += [outcome(row, reference, column) if row.finished else ""]
        costs = [getattr(row, name) if row.finished else "" for name in COSTS]
        writer.writerow(map(csv_cell, [*line, " ".join(row.ingredients), *costs, row.why]))
    return out.getvalue()


def _blank(value: float | None) -> object:
    return "" if value is None else value


def to_markdown(found: Benchmark) -> str:
    """Table 1 for these data, the paired comparisons, and what they say; table by table where there are several."""
    parts = [_markdown(found, title(found)), *(_markdown(part, headed(part), f"{part.why}.") for part in found.apart)]
    if found.left_out:
        told = [f"- {plain(f'{folder}: {why}')}" for folder, why in found.left_out.items()]
        parts.append("\n".join(["# Not compared", "", *told]) + "\n")
    return "\n".join(parts)


def _markdown(found: Benchmark, named: str, why: str = "") -> str:
    columns = shown(found)
    lines = [f"# {plain(named)}", "", *([plain(why), ""] if why else []), *markdown(answer(found)), ""]
    lines += [plain(caption(found)), ""]
    lines += _rows(["method", *(heading(found, c) for c in columns), *COSTS.values()])
    for row, scores in zip(found.rows, cells(found), strict=True):
        texts = [_marked(scores[c]) if row.finished else "" for c in columns]
        lines.append(_line([plain(row.named), *texts, *(cost(row, name) for name in COSTS)]))
    lines += ["", f"**Best**, *second best* {plain(legend_of(found, ''))}", "", COST_LEGEND, ""]
    lines += [f"- {plain(text)}" for text in remarks(found)]
    for reference in found.references:
        lines += ["", f"## Against {plain(found.against(reference))}", "", plain(correction_of(found, reference)), ""]
        tested, told = compared(found, reference)
        lines += _rows(["method", *(heading(found, c) for c in tested)])
        for label, verdicts in told.items():
            texts = [
                plain(f" {compact(verdict)}").strip() if verdict else "" for verdict in verdicts
            ]  # a sign, no list
            lines.append(_line([plain(label), *texts]))
    if pool := in_markdown(board(found), POOL):
        lines += ["", "## The models of the pool", "", pool]
    return "\n".join(lines).rstrip() + "\n"


def _marked(cell: Cell) -> str:
    text = {1: f"**{cell.text}**", 2: f"*{cell.text}*"}.get(cell.rank, cell.text)
    spread = f" (sd {cell.spread})" if cell.spread else ""
    return f"{text}{' ± ' + cell.half if cell.half else ''}{spread}{' ' * bool(cell.mark)}{cell.mark}"


def _rows(headings: list[str]) -> list[str]:
    return [_line([plain(text) for text in headings]), "|---" * len(headings) + "|"]


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def title(found: Benchmark) -> str:
    """Names the task, and counts the methods and models that were compared; of a run, its strategy and its merge."""
    if found.run:
        row = next((row for row in found.rows if row.strategy == found.run), None)
        models = plural(len(found.pool), "model") if row is None else f"{row.models:g} of {len(found.pool)} models"
        return f"{found.run} on {found.task}: {models}" if found.task else f"{found.run}, without a task: {models}"
    what = f"{len(found.folders)} folders compared" if len(found.folders) > 1 else "Benchmark"
    task = f" on {found.task}" if found.task else ", without a task"
    pool = f", {plural(len(found.pool), 'model')}" if found.pool else ""
    return f"{what}{task}: {plural(len(found.rows), 'method')}{pool}"


def headed(found: Benchmark) -> str:
    """Names a table among several: which folders it is of, and why they stand in a table of their own."""
    return f"{title(found)} [{', '.join(found.folders)}]" if found.folders else title(found)


def caption(found: Benchmark) -> str:
    """Says what the numbers are, and how many samples they stand on."""
    samples = ", ".join(f"{name} {count:,}" for name, count in found.samples.items() if count)
    seeds = (
        f" Means over up to {len(found.seeds)} seeds, sd their standard deviation where they differ."
        if len(found.seeds) > 1
        else ""
    )
    beside = " Columns (accuracy): top-1 in %." if any(row.accuracies for row in found.rows) else ""
    return f"{what(found)}, ± half the 95 % interval.{beside} Samples: {samples}.{seeds}"


def what(found: Benchmark) -> str:
    """Says what the scores are, and in which unit."""
    if found.measure == TOKENS:
        return "Perplexity"
    return "Top-1 accuracy in %" if found.percent(HELD_OUT) else f"Scores: {found.objective}"


def remarks(found: Benchmark, *, unfinished: bool = True) -> list[str]:
    """Remarks on methods, reasons of those without a result (unless the table has them), and notes."""
    reasons = [
        f"{row.label}: {row.why if row.status is MethodState.FINISHED else f'{row.status}: {row.why}'}"
        for row in found.rows
        if row.why and (unfinished or row.finished) and row.status is not MethodState.NOT_RUN
    ]
    waiting = [row.label for row in found.rows if row.status is MethodState.NOT_RUN]
    waiting = [f"not run, as the benchmark was interrupted before: {', '.join(waiting)}"] if waiting else []
    workers = [told_workers(found.workers)] if found.workers else []
    return [*reasons, *waiting, *_divisions(found), *workers, *found.notes]


def _divisions(found: Benchmark) -> list[str]:
    """Says which methods had another partition than most, where each has its own and no label tells it."""
    methods: dict[str, list[str]] = {}
    for row in found.rows:
        if row.finished and row.partitioner and not row.label.endswith(f"({row.partitioner})"):
            methods.setdefault(row.partitioner, []).append(row.label)
    most = max(methods, key=lambda name: len(methods[name]), default="")
    told = [f"{name} for {some(labels, 4)}" for name, labels in methods.items() if name != most]
    return [f"partitions: {'; '.join(told)}; {most} for the others"] if told else []


def to_latex(found: Benchmark) -> str:
    r"""A ``table`` environment for ``\usepackage{booktabs,amssymb}``; best in bold, second best underlined.

    What stands apart has one of its own.
    """
    return "\n".join([r"% \usepackage{booktabs,amssymb}", *map(_latex, (found, *found.apart))])


def _latex(found: Benchmark) -> str:
    columns = shown(found)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(title(found))}. {_tex(caption(found))} Best in bold, second best underlined. "
        rf"{_tex(legend(found.against('best')))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) + len(COSTS))}}}",
        r"\toprule",
        " & ".join(["method", *(_tex(heading(found, c)) for c in columns), *(_tex(h) for h in COSTS.values())])
        + r" \\",
        r"\midrule",
    ]
    for row, scores in zip(found.rows, cells(found), strict=True):
        lines.append(" & ".join(_tex_row(row, [scores[c] for c in columns])) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _tex_row(row: BenchmarkRow, scores: list[Cell]) -> list[str]:
    if not row.finished:
        reason = rf"\multicolumn{{{len(scores) + len(COSTS)}}}{{l}}{{{_tex(f'{row.status}: {row.why}')}}}"
        return [_tex(row.label), reason]
    texts = []
    for cell in scores:
        text = {1: rf"\textbf{{{cell.text}}}", 2: rf"\underline{{{cell.text}}}"}.get(cell.rank, cell.text)
        text = text.replace("–", "--")
        text += f" (sd {cell.spread})" if cell.spread else ""
        texts.append(
            text
            + (rf" {{\scriptsize$\pm${cell.half}}}" if cell.half else "")
            + (f" {_tex(cell.mark)}" if cell.mark else "")
        )
    return [_tex(row.named), *texts, *(cost(row, name) for name in COSTS)]


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "–": "--",
        "▲": r"$\blacktriangle$",
        "▼": r"$\blacktriangledown$",
    }
    return re.sub(r"[\\~^±α–▲▼&%$#_{}]", lambda m: special.get(m[0], "\\" + m[0]), showable(text))
