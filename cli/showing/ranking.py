"""Several models that were scored, best first, in the terminal: scores with intervals, and tests against the best."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from merging.cli.showing import screen
from merging.cli.showing.answer import STYLES
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.looking.ranking import Ranked, Ranking
from merging.values.leaderboard import short
from merging.values.report import number
from merging.values.statistics import Interval
from merging.values.verdict import ACCURACY, Role, correction, legend, mark, p_value, word
from merging.values.wording import beginning, some

GAP = 2
"""Number of spaces between columns."""


def show_ranking(console: Console, ranking: Ranking) -> None:
    """Prints the models, best first: the sets that count with intervals and p, then what fits of the rest.

    Args:
        console: what it goes to; no line is wider.
        ranking: the models.
    """
    percent = ranking.measure == ACCURACY
    what = "top-1 accuracy in %" if percent else ranking.objective
    said = marked("[bold]{} models[/], {}, best on {} first.", len(ranking.models), what, ranking.by)
    console.print(said, highlight=False)
    single = ranking.shifts if str(Role.AVERAGE) in ranking.best.scores else ()
    sets = [name for name in ranking.best.scores if name not in single]
    columns = [(name, [_cell(model, name, percent) for model in ranking.models]) for name in sets]
    hidden = _print(console, ranking, columns)
    shifted = [name for name in ranking.best.scores if name not in sets]
    columns = [(name, [_short(model, name, percent) for model in ranking.models]) for name in shifted]
    trained = dict.fromkeys(name for model in ranking.models for name in model.trained)
    for name in trained:
        columns.append((name, [Text(showable(short(model.trained.get(name)))) for model in ranking.models]))
    if columns:
        console.print()
        hidden += _print(console, ranking, columns)
    for model in ranking.models:
        if model.same_as:
            console.print(marked("{} has the weights of {}.", model.name, model.same_as), highlight=False)
    how = "Wilson; of the average normal" if percent else "bootstrap over the samples"
    notes = [f"Behind each score its 95 % interval ({how}).", legend(ranking.best.name), correction(ranking.verdicts)]
    if any(verdict.set == ranking.by for verdict in ranking.verdicts):
        notes.append(f"{ranking.by} has chosen the first one too, which favours it.")
    if hidden or shifted:
        notes.append(f"--json has everything{f', also {some(hidden, 6)}' if hidden else ''}.")
    console.print(marked("{}", " ".join(filter(None, notes))), style="dim", highlight=False)


def _cell(model: Ranked, name: str, percent: bool) -> Text:
    value, interval, verdict = model.scores[name], model.intervals.get(name), model.verdict(name)
    text = marked("{} [dim]{}[/]", number(value, percent=percent), _between(interval, percent))
    if verdict is not None:
        text += marked(f" [{STYLES[word(verdict)]}]{{}} {{}}[/]", mark(verdict), p_value(verdict.corrected))
    return text


def _short(model: Ranked, name: str, percent: bool) -> Text:
    verdict = model.verdict(name)
    return marked(f"{{}} [{STYLES[word(verdict)]}]{{}}[/]", number(model.scores[name], percent=percent), mark(verdict))


def _between(interval: Interval | None, percent: bool) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * low:.1f}–{100 * high:.1f}" if percent else f"{low:.4g} to {high:.4g}"


def _print(console: Console, ranking: Ranking, columns: Sequence[tuple[str, list[Text]]]) -> list[str]:
    """Prints the columns that fit beside the models' names, at least one; gives the headings of the others."""
    names = [beginning(showable(model.name), max(20, console.width // 4)) for model in ranking.models]
    room = console.width - max(map(len, names))
    table = screen.table(padding=(0, GAP, 0, 0))
    table.add_column("")
    kept = list[list[Text]]()
    hidden = list[str]()
    for head, cells in columns:
        width = GAP + max(map(len, (showable(head), *(cell.plain for cell in cells))))
        if width > room and kept:
            hidden.append(head)
            continue
        room -= width
        table.add_column(Text(showable(head)), no_wrap=True)
        kept.append(cells)
    for row, name in enumerate(names):
        table.add_row(Text(name), *(cells[row] for cells in kept))
    console.print(table, highlight=False)
    return hidden
