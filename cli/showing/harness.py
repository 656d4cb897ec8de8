"""Models on the tasks of lm-eval, in the terminal: a line a metric, and what the tests against the first one say."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from merging.cli.showing.answer import STYLES, show_verdicts
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.harness.comparing import Compared, Scores
from merging.values.answer import headline_of, standing_of
from merging.values.report import number
from merging.values.verdict import Family, Verdict, legend, mark, p_value, word
from merging.values.wording import plural


def show(console: Console, found: Compared) -> None:
    """Prints the answer in a line where there are two models, a table, and what was tested.

    Args:
        console: what it goes to.
        found: the models.
    """
    others = [model for model in found.models if model.name != found.reference]
    pair = len(found.models) == 2
    if pair:
        told = others[0].verdicts
        style = f"bold {STYLES[standing_of(told)]}".replace(" default", "")
        console.print(Text(showable(headline_of(others[0].name, told)), style=style), highlight=False)
        console.print()
    _show_scores(console, found, tests=len(found.models) > 2)
    if pair:
        console.print()
        show_verdicts(console, others[0].verdicts)
    lines = [_arrows(found)]
    if others and not pair:
        lines += [legend(found.reference), *_untested(others)]
    lines.append(_correction([verdict for model in others for verdict in model.verdicts]))
    if said := " ".join(filter(None, lines)):
        console.print(Text(showable(said)), style="dim", highlight=False)
    for model in found.models:
        console.print(
            marked("{}: {}", model.name, model.results.path.parent), style="dim", highlight=False, soft_wrap=True
        )


def _show_scores(console: Console, found: Compared, *, tests: bool) -> None:
    """Prints a line a metric: how many samples, and each model's score with its interval, or with what was tested."""
    names = [Text("  " * row.inside + showable(row.label) + (" ↓" if row.lower else "")) for row in found.rows]
    most = [max((model.samples.get(row.label, 0) for model in found.models), default=0) for row in found.rows]
    columns = [Column(head="samples", cells=[Text(f"{count:,}") for count in most], rank=1)]
    for place, model in enumerate(found.models):
        scores = [number(model.scores.get(row.label), percent=row.label in found.percent) for row in found.rows]
        short = [Text(score) for score in scores]
        if tests:
            verdicts = [model.verdict(row.label) for row in found.rows]
            short = [_beside(score, _mark(verdict)) for score, verdict in zip(scores, verdicts, strict=True)]
            cells = [_beside(score, _test(verdict)) for score, verdict in zip(scores, verdicts, strict=True)]
            cells = _even(cells)
        else:
            between = [_between(model, row.label, percent=row.label in found.percent) for row in found.rows]
            wide = max(map(len, between), default=0)
            cells = [
                marked("{} [dim]{}[/]", score, told.ljust(wide)) for score, told in zip(scores, between, strict=True)
            ]
        columns.append(Column(head=model.name, cells=cells, short=_even(short), rank=0 if place < 2 else place))
    Grid(names=names, columns=columns, elsewhere="--json", turns=False).show(console)
    if not tests:
        console.print(
            "Behind each score its 95 % interval; shares of right answers in %.", style="dim", highlight=False
        )


def _beside(score: str, told: Text) -> Text:
    return Text(score) + Text(" ") + told


def _even(cells: Sequence[Text]) -> list[Text]:
    """The same, each as wide as the widest, so that scores stand below each other."""
    wide = max((cell.cell_len for cell in cells), default=0)
    return [cell + Text(" " * (wide - cell.cell_len)) for cell in cells]


def _mark(verdict: Verdict | None) -> Text:
    return Text(mark(verdict) or " ", style=STYLES[word(verdict)])


def _test(verdict: Verdict | None) -> Text:
    """Mark and p of a test; empty for the model that the others are compared with."""
    if verdict is None:
        return Text()
    return Text(f"{mark(verdict) or ' '} {p_value(verdict.corrected)}".rstrip(), style=STYLES[word(verdict)])


def _between(model: Scores, label: str, *, percent: bool) -> str:
    interval = model.intervals.get(label)
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * low:.1f}–{100 * high:.1f}" if percent else f"{low:.4g} to {high:.4g}"


def _arrows(found: Compared) -> str:
    return "↓ smaller is better." if any(row.lower for row in found.rows) else ""


def _untested(models: Sequence[Scores]) -> list[str]:
    """Says what was not tested, and why, each reason once."""
    said: dict[str, list[str]] = {}
    for model in models:
        for verdict in model.verdicts:
            if not verdict.tested:
                said.setdefault(f"{model.name}: {verdict.why}", []).append(verdict.set)
    return [f"Not tested, {why} ({', '.join(sets[:3])}{' …' if len(sets) > 3 else ''})." for why, sets in said.items()]


def _correction(verdicts: Sequence[Verdict]) -> str:
    """Says over how many tests intervals and p were corrected."""
    sizes = {
        family: max((verdict.tests for verdict in verdicts if verdict.tested and verdict.family == family), default=0)
        for family in (Family.PRIMARY, Family.SECONDARY)
    }
    what = {Family.PRIMARY: "of tasks and groups", Family.SECONDARY: "of tasks in groups (secondary)"}
    said = [f"{plural(count, 'test')} {what[family]}" for family, count in sizes.items() if count]
    if not said:
        return ""
    if max(sizes.values()) == 1:
        return f"Intervals are at 95 %, nothing needs correcting: {' and '.join(said)}."
    return f"Intervals and p are both corrected by Holm over {' and, apart, over '.join(said)}."
