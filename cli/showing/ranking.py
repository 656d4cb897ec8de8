"""Several models that were scored, best first, in the terminal: scores with intervals, and tests against the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from merging.cli.showing.answer import STYLES
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.looking.ranking import Ranked, Ranking
from merging.plugins.task import HELD_OUT
from merging.values.leaderboard import short
from merging.values.report import number
from merging.values.statistics import Interval
from merging.values.units import ends_in, heading
from merging.values.verdict import ACCURACY, Role, correction, legend, mark, p_value, word
from merging.values.wording import some

MAIN = 2
"""Sets that stay on every screen, beside the one that the models are ranked by."""
MODELS = 6
"""Models that are named in a sentence."""


def show_ranking(console: Console, ranking: Ranking) -> None:
    """Prints the models, best first: the sets that count with intervals and p, then what fits of the rest.

    Args:
        console: what it goes to; no line is wider.
        ranking: the models.
    """
    percent = ranking.measure == ACCURACY
    what = heading(ranking.measure, ranking.objective)
    said = marked("[bold]{} models[/], {}, best on {} first.", len(ranking.models), what, ranking.by)
    console.print(said, highlight=False)
    single = ranking.shifts if str(Role.AVERAGE) in ranking.best.scores else ()
    sets = [name for name in ranking.best.scores if name not in single]
    names = [Text(showable(model.name)) for model in ranking.models]
    kept = {ranking.by, *sets[:MAIN]}
    columns = [replace(_tested(ranking, name), rank=0 if name in kept else k + 1) for k, name in enumerate(sets)]
    main = Grid(names=names, columns=columns, elsewhere="--json", turns=False)
    main.show(console)
    shifted = [name for name in ranking.best.scores if name not in sets]
    columns = [_marked(ranking, name) for name in shifted]
    for name in dict.fromkeys(name for model in ranking.models for name in model.trained):
        cells = [Text(showable(short(model.trained.get(name)))) for model in ranking.models]
        columns.append(Column(head=name, cells=cells, right=False))
    if columns:
        console.print()
        columns = [replace(column, rank=k + 1 if k else 0) for k, column in enumerate(columns)]
        Grid(names=names, columns=columns, elsewhere="--json", turns=False).show(console)
    for model in ranking.models:
        if model.same_as:
            console.print(marked("{} has the weights of {}.", model.name, model.same_as), highlight=False)
    shown = "\n".join(line.plain for line in main.lines(console.width))
    how = "Wilson; of the average normal" if percent else "bootstrap over the samples"
    between = _between(ranking.best.intervals.get(ranking.by), ranking.measure)
    notes = [
        f"Behind each score its 95 % interval ({how})." if between in shown else "Intervals of the scores: --json.",
        legend(ranking.best.name),
        correction(ranking.verdicts),
    ]
    if any(verdict.set == ranking.by for verdict in ranking.verdicts):
        notes.append(f"{ranking.by} has chosen the first one too, which favours it.")
    if (chosen := [model.name for model in ranking.models if model.chosen]) and HELD_OUT in ranking.best.outcomes:
        notes.append(f"Held-out data chose {some(chosen, MODELS)}: optimistic there.")
    if shifted:
        notes.append("p of single shifted sets: --json.")
    console.print(marked("{}", " ".join(filter(None, notes))), style="dim", highlight=False)


def _tested(ranking: Ranking, name: str) -> Column:
    """Scores on a set, with intervals where there is room, and what the tests say."""
    scores = _scores(ranking, name)
    between = [_between(model.intervals.get(name), ranking.measure) for model in ranking.models]
    tests = [_test(model, name) for model in ranking.models]
    return Column(head=name, cells=_joined(scores, between, tests), short=_joined(scores, tests), right=False)


def _scores(ranking: Ranking, name: str) -> list[str]:
    measure = ranking.measure
    return [number(model.scores[name], percent=measure == ACCURACY, measure=measure) for model in ranking.models]


def _marked(ranking: Ranking, name: str) -> Column:
    """Scores on a set with the marks of the tests alone."""
    scores = _scores(ranking, name)
    marks = [_test(model, name)[: len(mark(model.verdict(name)))] for model in ranking.models]
    return Column(head=name, cells=_joined(scores, marks), right=False)


def _joined(scores: Sequence[str], *beside: Sequence[str | Text]) -> list[Text]:
    """The parts of cells side by side, each below its kind: scores at the right, what is beside them dim or styled."""
    wide = max(map(len, scores))
    cells = [Text(f"{score:>{wide}}") for score in scores]
    for part in beside:
        wide = max(len(each) for each in part)
        if wide:
            told = [Text(each, style="dim") if isinstance(each, str) else each for each in part]
            told = [each + Text(" " * (wide - len(each))) for each in told]
            cells = [cell + Text(" ") + each for cell, each in zip(cells, told, strict=True)]
    return cells


def _test(model: Ranked, name: str) -> Text:
    """Mark and p of a test, the marks below each other; empty where none was made."""
    verdict = model.verdict(name)
    if verdict is None:
        return Text()
    return Text(f"{mark(verdict) or ' '} {p_value(verdict.corrected)}".rstrip(), style=STYLES[word(verdict)])


def _between(interval: Interval | None, measure: str) -> str:
    if interval is None:
        return ""
    low, high = ends_in(measure, interval)
    return f"{low:.1f}–{high:.1f}" if measure == ACCURACY else f"{low:.4g} to {high:.4g}"
