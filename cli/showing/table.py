"""The table at the end of a run, a column a strategy, and the lines below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from merging.cli.showing.answer import STYLES, show_answer, show_verdicts
from merging.cli.showing.flags import in_flags
from merging.cli.showing.screen import marked, remark
from merging.errors import showable
from merging.storage.result import MEMBERS, MODELS, RECIPE
from merging.storage.shards import INDEX
from merging.values.answer import answer
from merging.values.report import Report, models_of, scored
from merging.values.score_table import ScoreTable
from merging.values.verdict import Role, Verdict, mark, word
from merging.values.wording import plural


def show_report(console: Console, report: Report, folder: Path, kind: str, *, built_in: bool) -> None:
    """Prints table, verdict, notes, and what to do next (``built_in``: also how to go on to one's own models)."""
    found = answer(report)
    show_answer(console, found)
    if report.rows:
        console.print()
        console.print(_table(report))
        console.print(marked("Best of each line in bold. {}", ScoreTable(report).legend), style="dim", highlight=False)
        if report.best_single is None and report.best_single_name is not None:
            top = scored(report.top_single, report.measure)
            console.print(
                marked("The best single model: {}, {} held-out.", report.best_single_name, top), highlight=False
            )
        if report.saved_instead:
            console.print(marked("[bold yellow]saved:[/] {}", in_flags(report.saved_instead)), highlight=False)
        show_verdicts(console, report.verdicts)
        for line in report.remarks():
            console.print(Text(in_flags(line)), highlight=False)
    for line in report.notes:
        if line not in found.advice:  # said above
            console.print(remark(line), highlight=False)
    console.print(
        marked(
            f"{{}}: {{}} ({{}}), {plural(report.components, 'component')}, {report.active_components} active; "
            f"{report.evaluations} evaluations and {report.cached} from memory in {report.wall_seconds:.0f} s",
            report.saved,
            report.made_of,
            ", ".join(report.ingredients),
        ),
        highlight=False,
    )
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
    file, linear = folder / MODELS[kind], (folder / RECIPE).exists()
    beside = f"with {'recipe, ' if linear else ''}report and model card beside it"
    lines = [
        marked(f"\nThe merged model: [bold]{{}}[/], {beside}.", file if file.exists() else folder / INDEX),
        marked("  load it      see {}", folder / "README.md"),
    ]
    if linear:
        lines += [marked("  rebuild it   merge apply {} --output model.safetensors", folder / "recipe.json")]
    if built_in:
        lines += [Text("  your models  see docs/getting-started.md; without data, to begin with:")]
        lines += [Text("               merge run --strategy uniform --models 'folder/*.safetensors'")]
    for hint in lines:
        console.print(hint, highlight=False, soft_wrap=True)


def _table(report: Report) -> Table:
    scores = ScoreTable(report)
    lines = scores.lines()
    table = Table(
        title=Text(f"{showable(report.task)}: {len(report.pool)} models, {report.held_out_samples} held-out samples")
    )
    table.add_column(Text(showable(scores.heading)))
    for row in report.rows:
        table.add_column(Text(showable(row.named)), justify="right")
    averages = {name for name, _, _ in lines if name.startswith(str(Role.AVERAGE))}
    for name, numbers, verdicts in lines:
        if name in averages:
            table.add_section()
        _line(table, name, numbers, verdicts)
    table.add_section()
    rows = report.rows
    table.add_row("models in it", *(str(models_of(row.ingredients, report.pool)) for row in rows))
    if any(row.inference_cost > 1 for row in rows):
        table.add_row("passes a sample", *(str(row.inference_cost) for row in rows))
    table.add_row("evaluations", *(str(row.evaluations) for row in rows))
    table.add_row("seconds", *(f"{row.seconds:.1f}" for row in rows))
    return table


def _line(table: Table, name: str, numbers: Sequence[str], verdicts: Sequence[Verdict | None]) -> None:
    best = max((float(text) for text in numbers if text not in ("–", "NaN")), default=None)
    cells = []
    for text, verdict in zip(numbers, verdicts, strict=True):
        shown = "[bold]{}[/]" if text not in ("–", "NaN") and float(text) == best else "{}"
        cells.append(marked(f"{shown} [{STYLES[word(verdict)]}]{{}}[/]", text, mark(verdict) or " "))
    table.add_row(Text(showable(name)), *cells)
