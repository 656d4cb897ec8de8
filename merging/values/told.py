"""A verdict as a cell of a notebook's table and as columns of a data frame; a report's table of scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from merging.values.answer import answer
from merging.values.outcome import is_score
from merging.values.report import HELD_OUT, models_of, scored
from merging.values.score_table import ScoreTable
from merging.values.shown import Cell, Grid, Sheet
from merging.values.states import ended
from merging.values.verdict import ACCURACY, Role, Standing, Verdict, mark, word
from merging.values.wording import some

if TYPE_CHECKING:
    from merging.values.report import Report

KINDS = {Standing.BETTER: "up", Standing.WORSE: "down"}
"""The class of HTML that colours a verdict; others have none."""
COLUMNS = ("against", "difference", "low", "high", "p", "p_alone", "standing", "mark")
"""Columns of a verdict: ``low`` and ``high`` are the interval's ends, ``p`` is corrected as they are."""


def columns(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict's columns; of the row that others are compared with nothing but its standing."""
    standing = {"standing": str(word(verdict)), "mark": mark(verdict)}
    if verdict is None:
        return standing
    low, high = verdict.interval or (None, None)
    return standing | {
        "against": verdict.reference,
        "difference": verdict.difference,
        "low": low,
        "high": high,
        "p": verdict.corrected,
        "p_alone": verdict.p,
    }


def score_grid(report: Report) -> Grid:
    """The table of scores, a set a line, as a notebook shows it: the terminal's."""
    scores = ScoreTable(report)
    rows: list[list[str | Cell]] = []
    for name, numbers, verdicts in scores.lines():
        known = [float(text) for text in numbers if text not in ("–", "NaN")]
        best = max(known, default=None)
        rows.append([name])
        for text, verdict in zip(numbers, verdicts, strict=True):
            top = text not in ("–", "NaN") and float(text) == best
            rows[-1].append(Cell(text, mark(verdict), KINDS.get(word(verdict), ""), top))
    rows.append(["models in it", *(str(models_of(row.ingredients, report.pool)) for row in report.rows)])
    if any(row.inference_cost > 1 for row in report.rows):
        rows.append(["passes a sample", *(str(row.inference_cost) for row in report.rows)])
    rows.append(["evaluations", *(f"{row.evaluations:,}" for row in report.rows)])
    rows.append(["seconds", *(f"{row.seconds:.1f}" for row in report.rows)])
    return Grid((scores.heading, *(row.named for row in report.rows)), rows)


def observations(report: Report) -> Iterator[dict[str, Any]]:
    """Lists a report's scores with their verdicts, row by row and set by set, as a data frame has them."""
    scores, average = ScoreTable(report), str(Role.AVERAGE)
    several = len(report.shifts) > 1  # one shifted set is its own average, and stands once
    for row in report.rows:
        mean = {average: row.shifted} if several and row.shifted is not None else {}
        own = {HELD_OUT: row.held_out, **row.tests, **mean}
        known = [(name, value, False) for name, value in own.items()]
        known += [(name, value, True) for name, value in row.accuracies.items() if several or name != average]
        for name, value, extra in known:
            yield {
                "row": row.label,
                "strategy": row.strategy,
                "set": name,
                "measure": ACCURACY if extra else report.measure,
                "score": value if is_score(value) else None,
                "samples": report.held_out_samples if name == HELD_OUT else report.samples.get(name),
                **columns(scores.told(row, name, extra=extra)),
                "models": models_of(row.ingredients, report.pool),
                "evaluations": row.evaluations,
                "seconds": row.seconds,
            }


def sheet_of(report: Report, name: str = "Report", more: tuple[str, ...] = ()) -> Sheet:
    """Puts together the parts of a report that are seen: the saved merge's score, the verdicts, the terminal's table.

    Args:
        report: the report.
        name: what it is shown as.
        more: facts besides.
    """
    row, found = report.written, answer(report)
    score = f"held-out {scored(row.held_out, report.measure)}" if row is not None else ""
    facts = [
        ended(report.state, report.limit),
        found.headline,
        score,
        f"{report.saved} of {some(report.ingredients, 3)}",
    ]
    lines = [f"saved: {report.saved_instead}"] if report.saved_instead else []
    lines += [row.told_coefficients] if row is not None and row.told_coefficients else []
    legend = (f"Best of each line in bold. {ScoreTable(report).legend}",) if report.rows else ()
    return Sheet(
        name=name,
        facts=(*facts, *more),
        lines=(*lines, *(line for line in found.told() if line != found.headline)),  # which the facts have
        grids=(score_grid(report),) if report.rows else (),
        notes=(*legend, *report.notes),
    )
