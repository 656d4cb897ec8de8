"""One or two models that were scored, in the terminal and as JSON: which is better where, then a line a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from merging.cli.showing.answer import STYLES, show_verdicts
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.looking.ranking import Ranked, Ranking
from merging.plugins.task import HELD_OUT
from merging.storage.sources import short_names
from merging.values.answer import headline_of, standing_of
from merging.values.report import scored
from merging.values.statistics import Interval
from merging.values.units import TOKENS, heading
from merging.values.verdict import ACCURACY, Role, Verdict, correction


def show_pair(console: Console, ranking: Ranking, models: Sequence[Ranked], verdicts: Sequence[Verdict]) -> None:
    """Prints the answer in a line, a table with a column for each model, and what was tested, a line a set.

    Args:
        console: what it goes to.
        ranking: what was scored.
        models: the one or two models, in the order in which they were named.
        verdicts: the second against the first.
    """
    names = short_names([Path(model.name) for model in models])
    verdicts = [replace(verdict, against=names[0]) for verdict in verdicts]
    if verdicts:
        own = [verdict for verdict in verdicts if models[1].chosen or verdict.role != Role.HELD_OUT]
        told = own or verdicts
        style = f"bold {STYLES[standing_of(told)]}".replace(" default", "")
        console.print(Text(showable(headline_of(names[1], told)), style=style), highlight=False)
        for name, model in zip(names, models, strict=True):
            if name != model.name:
                console.print(marked("{}: {}", name, model.name), style="dim", highlight=False)
        console.print()
    else:
        console.print(marked("[bold]{}[/]", models[0].name), highlight=False)
    _show_scores(console, ranking, models, names)
    for model in models:
        if model.same_as:
            same = names[[other.name for other in models].index(model.same_as)]
            console.print(marked("{} has the weights of {}.", names[models.index(model)], same), highlight=False)
    if verdicts:
        console.print()
        show_verdicts(console, verdicts)
    notes = [correction(verdicts)]
    chosen = [name for name, model in zip(names, models, strict=True) if model.chosen and HELD_OUT in model.outcomes]
    if chosen:
        notes.append(f"Held-out data chose {' and '.join(chosen)}: optimistic there, and no proof.")
    if said := " ".join(filter(None, notes)):
        console.print(Text(showable(said)), style="dim", highlight=False)


def _show_scores(console: Console, ranking: Ranking, models: Sequence[Ranked], names: Sequence[str]) -> None:
    """Prints a line a set: how many samples, and each model's score with its interval where there is room."""
    sets = list(models[0].outcomes)
    shown = TOKENS if ranking.measure == TOKENS else ranking.objective
    samples = [Text(f"{models[0].outcomes[name].samples:,}") for name in sets]
    columns = [Column(head="samples", cells=samples, rank=1)]
    scores = [
        [scored(model.outcomes[name].score, shown).removeprefix("perplexity ") for name in sets] for model in models
    ]
    between = [[_between(model, name, shown) for name in sets] for model in models]
    measure = "score" if ranking.objective == ACCURACY else heading(shown)
    for name, own, intervals in zip(names if len(models) > 1 else [measure], scores, between, strict=True):
        wide = max(map(len, intervals))
        full = [marked("{} [dim]{}[/]", score, told.ljust(wide)) for score, told in zip(own, intervals, strict=True)]
        short = [Text(score) for score in own]
        columns.append(Column(head=name, cells=full if wide else short, short=short))
    corner = "" if ranking.objective == ACCURACY or len(models) == 1 else heading(shown)
    rows = [Text(showable(name)) for name in sets]
    table = Grid(names=rows, columns=columns, corner=corner, elsewhere="--json", turns=False)
    table.show(console)
    known = [told for intervals in between for told in intervals if told]
    if known and known[0] in "\n".join(line.plain for line in table.lines(console.width)):
        counted = ranking.objective == ACCURACY and any(o.correct is not None for o in models[0].outcomes.values())
        what, how = ("accuracy", "Wilson") if counted else ("score", "bootstrap over the samples")
        console.print(f"Behind each {what} its 95 % interval ({how}).", style="dim", highlight=False)


def _between(model: Ranked, name: str, objective: str) -> str:
    """The interval of a score; empty where there is none."""
    outcome = model.outcomes[name]
    if objective == ACCURACY and outcome.correct is not None:
        low, high = outcome.interval
        return f"{100 * low:.1f}–{100 * high:.1f}"
    interval: Interval | None = model.intervals.get(name)
    if interval is None:
        return ""
    ends = interval[::-1] if objective == TOKENS else interval  # the smaller perplexity is the larger score
    return " to ".join(scored(end, objective).removeprefix("perplexity ") for end in ends)


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
