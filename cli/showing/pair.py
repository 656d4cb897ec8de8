"""One or two models that were scored, in the terminal and as JSON: a line a set, and what their comparison says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from merging.cli.showing import screen
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.looking.ranking import Ranked, Ranking
from merging.values.report import scored
from merging.values.verdict import ACCURACY, Verdict, correction, sentence, sentences


def show_pair(console: Console, ranking: Ranking, models: Sequence[Ranked], verdicts: Sequence[Verdict]) -> None:
    """Prints a table with a column for each model, and a sentence a set.

    Args:
        console: what it goes to.
        ranking: what was scored.
        models: the one or two models, in the order in which they were named.
        verdicts: the second against the first.
    """
    objective = ranking.objective
    table = screen.table()
    table.add_column("" if objective == ACCURACY else showable(objective))
    table.add_column("samples", justify="right")
    for model in models:
        table.add_column(showable(model.name), justify="right", overflow="fold")
    counted, drawn = False, False
    for split in models[0].outcomes:
        cells = []
        for model in models:
            outcome, interval = model.outcomes[split], model.intervals.get(split)
            cell = marked(scored(outcome.score, objective))
            if objective == ACCURACY and outcome.correct is not None:
                counted = True
                low, high = outcome.interval
                cell += marked(f" [dim]{100 * low:.1f}–{100 * high:.1f}[/]")
            elif interval is not None:
                drawn = True
                cell += marked(" [dim]{} to {}[/]", *(scored(end, objective) for end in interval))
            cells.append(cell)
        table.add_row(showable(split), str(models[0].outcomes[split].samples), *cells)
    console.print(table, highlight=False)
    if counted:
        console.print("Behind each accuracy its 95 % interval (Wilson).", style="dim")
    if drawn:
        console.print("Behind each score its 95 % interval (bootstrap over the samples).", style="dim")
    for model in models:
        if model.same_as:
            console.print(marked("{} has the weights of {}.", model.name, model.same_as), highlight=False)
    for sets, verdict in sentences(verdicts):
        console.print(marked("[bold]{}:[/] {}", sets, sentence(verdict)), highlight=False)
    if said := correction(verdicts):
        console.print(said, style="dim")


def pair_to_json(ranking: Ranking, models: Sequence[Ranked], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """JSON-ready values of one or two models; arguments are those of :func:`show_pair`."""
    data: dict[str, Any] = {"task": ranking.task, "objective": ranking.objective}
    entries = [model.to_json() for model in models]
    data["models"] = [{key: value for key, value in entry.items() if key != "verdicts"} for entry in entries]
    if verdicts:
        data["verdicts"] = [verdict.to_json() for verdict in verdicts]
        pairs = {v.set: v.comparison for v in verdicts if v.comparison is not None and not v.extra}
        data["paired"] = {split: pair.to_json() for split, pair in pairs.items()}
    return data
