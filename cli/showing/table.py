"""The table at the end of a run, a column a strategy, and the lines below it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from merging.cli.showing.answer import STYLES, show_answer, show_verdicts
from merging.cli.showing.flags import in_flags
from merging.cli.showing.grid import Column, Grid, at_point
from merging.cli.showing.leaderboard import show_leaderboard
from merging.cli.showing.screen import marked, notes
from merging.errors import showable
from merging.storage.result import ADAPTER, MEMBERS, MODELS, RECIPE, REPORT
from merging.storage.shards import INDEX
from merging.values.answer import answer
from merging.values.leaderboard_table import Leaderboard
from merging.values.report import Report, models_of, scored
from merging.values.score_table import ScoreTable
from merging.values.verdict import Verdict, mark, word
from merging.values.wording import lasted, plural, some, spent
from merging.values.workers import told_workers

MOST = 8
"""Models that are named as those of which a merge is made; recipe and report have all of them."""


def show_report(console: Console, report: Report, folder: Path, kind: str, *, built_in: bool, again: str = "") -> None:
    """Prints table, verdict, notes, and what to do next.

    Args:
        console: the place where it is printed.
        report: the run's report.
        folder: the run's folder.
        kind: the kind of file that was written.
        built_in: also print how to go on to one's own models.
        again: flags with which ``merge apply`` writes the same bits, each after a space.
    """
    found = answer(report)
    show_answer(console, found)
    if report.certificate is not None:
        console.print(Text(in_flags(report.certificate_line(report.certificate))), highlight=False)
    if report.rows and report.saved_instead:
        console.print(marked("[bold yellow]saved:[/] {}", in_flags(report.saved_instead)), highlight=False)
    if report.rows:
        console.print()
        _show_table(console, report)
        console.print(marked("Best of each line in bold. {}", ScoreTable(report).legend), style="dim", highlight=False)
        if report.best_single is None and report.best_single_name is not None:
            top = scored(report.top_single, report.measure)
            console.print(
                marked("The best single model: {}, {} held-out.", report.best_single_name, top), highlight=False
            )
        show_verdicts(console, report.verdicts)
        show_leaderboard(console, Leaderboard.of(report), str(folder / REPORT))
    said = [line for line in report.notes if line not in found.advice]  # those stand above
    notes(console, said, [*report.pool, *(row.named for row in report.rows)])
    known = f", {report.cached:,} more asked again and known" if report.cached else ""
    console.print(
        marked(
            f"{{}}: {{}} ({{}}), {plural(report.components, 'component')}, {report.active_components} active; "
            f"{plural(report.evaluations, 'evaluation', ',')}{known}; {lasted(report.wall_seconds)}",
            report.saved,
            report.made_of,
            some(report.ingredients, MOST),
        ),
        highlight=False,
    )
    if report.written is not None and report.written.told_coefficients:
        console.print(marked("{}: {}", report.saved, report.written.told_coefficients), highlight=False)
    if report.workers:
        console.print(marked("{}", told_workers(report.workers)), highlight=False)
    if report.ensemble:
        console.print(
            marked(
                f"\nThe ensemble: {plural(report.inference_cost, 'model')} in [bold]{{}}[/], with "
                "ensemble.json, report and model card beside.\n[yellow]"
                f"Inference costs {report.inference_cost} forward pass{'es' if report.inference_cost > 1 else ''} "
                "a sample.[/]",
                folder / MEMBERS,
            ),
            highlight=False,
            soft_wrap=True,
        )
        return
    file, linear = folder / {"adapter": ADAPTER, **MODELS}[kind], (folder / RECIPE).exists()
    beside = f"with {'recipe, ' if linear else ''}report and model card beside it"
    lines = [
        marked(f"\nThe merged model: [bold]{{}}[/], {beside}.", file if file.exists() else folder / INDEX),
        marked("  load it      see {}", folder / "README.md"),
    ]
    if linear:
        recipe, to = shlex.quote(str(folder / "recipe.json")), "model.safetensors" if kind != "adapter" else "adapter"
        lines += [marked("  rebuild it   merge apply {} --output {}{}", recipe, to, again)]
    if built_in:
        lines += [Text("  your models  see docs/getting-started.md; without data, to begin with:")]
        lines += [Text("               merge run --strategy uniform --models 'folder/*.safetensors'")]
    for hint in lines:
        console.print(hint, highlight=False, soft_wrap=True)


def _show_table(console: Console, report: Report) -> None:
    """A line a set and a column a strategy, then what each one cost."""
    scores, rows = ScoreTable(report), report.rows
    lines = scores.lines()
    cells = [_line(numbers, verdicts) for _, numbers, verdicts in lines]
    told = {"models in it": [str(models_of(row.ingredients, report.pool)) for row in rows]}
    if any(row.inference_cost > 1 for row in rows):
        told["passes a sample"] = [str(row.inference_cost) for row in rows]
    told |= {"evaluations": [f"{row.evaluations:,}" for row in rows], "seconds": [spent(row.seconds) for row in rows]}
    cells += [[Text(text) for text in texts] for texts in told.values()]
    columns = [
        Column(head=row.named, cells=at_point(column))
        for row, column in zip(rows, zip(*cells, strict=True), strict=True)
    ]
    names = [Text(showable(name)) for name in (*(name for name, _, _ in lines), *told)]
    title = f"{report.task}: {plural(len(report.pool), 'model')}, {report.held_out_samples:,} held-out samples"
    console.print(marked("[bold]{}[/]", title), highlight=False)
    dim = frozenset(range(len(lines), len(names)))
    Grid(names=names, columns=columns, corner=scores.heading, dim=dim, turns=False).show(console)


def _line(numbers: Sequence[str], verdicts: Sequence[Verdict | None]) -> list[Text]:
    best = max((float(text) for text in numbers if text not in ("–", "NaN")), default=None)
    cells = []
    for text, verdict in zip(numbers, verdicts, strict=True):
        shown = "[bold]{}[/]" if text not in ("–", "NaN") and float(text) == best else "{}"
        cells.append(marked(f"{shown} [{STYLES[word(verdict)]}]{{}}[/]", text, mark(verdict) or " "))
    return cells
