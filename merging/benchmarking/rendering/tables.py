"""The cells of a benchmark's tables, as every renderer shows them: numbers, ranks, marks of the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, accurate
from merging.plugins.task import HELD_OUT
from merging.values.outcome import is_score
from merging.values.report import number
from merging.values.units import ACCURACY, ends_in, is_percent
from merging.values.units import unit as unit_of
from merging.values.verdict import MARKS, Standing, Verdict, correction, legend, selection, word
from merging.values.wording import spent

COSTS = {
    "models": "models in it",
    "inference_cost": "passes a sample",
    "evaluations": "evaluations",
    "forward_equivalents": "forward-equivalents",
    "seconds": "seconds",
}
"""Field of a row → heading, after the scores."""
RANKED = "Best in bold, second best underlined"
COST_LEGEND = (
    "Evaluations, forward-equivalents (passes over the held-out data, with a backward pass 3) and seconds are what "
    "each method needs alone; what one of them had scored was not scored again for the others."
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score, as a table shows it.

    Attributes:
        text: the number, or a dash.
        rank: 1 best, 2 second best of its column, 0 neither.
        mark: mark of the verdict against the best single model: ▲, ▼, – (not tested), or nothing where there is no
            difference that can be told from luck, and for that model itself.
        word: the same as a word.
        interval: its 95 % interval as text, or nothing.
        half: half of that interval as text.
        spread: standard deviation over the seeds as text, or nothing where they agree.
    """

    text: str
    rank: int = 0
    mark: str = ""
    word: Standing = Standing.REFERENCE
    interval: str = ""
    half: str = ""
    spread: str = ""


def heading(found: Benchmark, column: str) -> str:
    """A column's name; the shortest one that is not a set's, and of the average over one shifted set that set's."""
    averages = (SHIFTED, *found.averages)
    if column not in (*averages, *map(accurate, averages)):
        return column
    if len(found.shifts) == 1:
        return column.replace(SHIFTED, found.shifts[0], 1)
    return column if "average" in found.samples else column.replace(SHIFTED, "average", 1)


def shown(found: Benchmark) -> tuple[str, ...]:
    """The columns that tables show: one shifted set is its own average, which stands for both."""
    twice = {*found.shifts, *map(accurate, found.shifts)} if len(found.shifts) == 1 else set()
    return tuple(column for column in found.columns if column not in twice)


def cells(found: Benchmark) -> list[dict[str, Cell]]:
    """A row's scores by column, in the order of ``found.rows``."""
    ranks = {column: _ranks(found, column) for column in found.columns}
    return [{column: _cell(found, row, column, ranks[column]) for column in found.columns} for row in found.rows]


def _ranks(found: Benchmark, column: str) -> list[float]:
    """The two highest scores of single models that tables can tell apart."""
    values = [row.value(column) for row in found.rows if row.inference_cost == 1]
    shown = {round(value, 6) for value in values if value is not None}
    return sorted(shown, reverse=True)[:2]


def _cell(found: Benchmark, row: BenchmarkRow, column: str, ranks: list[float]) -> Cell:
    value = row.value(column)
    if value is None:
        return Cell(text="–")
    percent = found.percent(column)
    rank = ranks.index(round(value, 6)) + 1 if row.inference_cost == 1 and round(value, 6) in ranks else 0
    told = outcome(row, "best", column)
    measure = ACCURACY if percent else found.measure
    interval = row.intervals.get(column)
    low, high = ends_in(measure, interval) if interval else (0.0, 0.0)
    spread = row.spread.get(column)
    return Cell(
        text=number(value, percent=percent, measure=measure),
        rank=rank,
        mark=MARKS[told],
        word=told,
        interval=" to ".join(f"{end:{'.2f' if percent else '.4g'}}" for end in (low, high)) if interval else "",
        half=f"{(high - low) / 2:{'.1f' if percent else '.2g'}}" if interval else "",
        spread=number(spread, percent=percent) if spread else "",
    )


def outcome(row: BenchmarkRow, reference: str, column: str) -> Standing:
    """Says in a word what the test of a score found; ``not tested`` where a row is compared elsewhere only."""
    verdict = row.verdict(reference, column)
    if verdict is None and any(v.reference == reference for v in row.verdicts):
        return Standing.NOT_TESTED
    return word(verdict)


def cost(row: BenchmarkRow, name: str) -> str:
    """A cost as text; means over seeds with a decimal where they are no whole number."""
    if not row.finished:
        return ""
    if not row.seeds:  # of others' files, which do not say it
        return "–"
    value = getattr(row, name)
    if name == "seconds":
        return spent(value)
    if name == "forward_equivalents":
        return f"{value:,.0f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def home(found: Benchmark) -> str:
    """The column of in-distribution scores: the first test set that is not shifted, else the held-out data."""
    return next((name for name in found.sets if name not in found.shifts), HELD_OUT)


def placed(found: Benchmark) -> list[BenchmarkRow]:
    """The rows that the scatter shows: those with scores at home and under shift."""
    column = home(found)
    return [row for row in found.rows if row.finished and _scored(row.value(column), row.shifted)]


def single_scores(found: Benchmark) -> list[tuple[float, float]]:
    """Pairs every single model's score at home with its mean under shift."""
    column = home(found)
    pairs = [(s.held_out if column == HELD_OUT else s.tests.get(column), s.shifted) for s in found.singles]
    return [(x, y) for x, y in pairs if x is not None and y is not None and _scored(x, y)]


def _scored(*values: float | None) -> bool:
    return all(value is not None and is_score(value) for value in values)


def main(found: Benchmark) -> list[str]:
    """The columns that conclusions are drawn from: test sets that are not shifted, and the average of the others."""
    tests = [name for name in found.sets if name not in found.shifts] or [HELD_OUT, *found.held]
    return [*tests, *([SHIFTED] if found.shifts else []), *found.averages]


def verdicts(found: Benchmark, reference: str, columns: Sequence[str] = ()) -> Iterator[tuple[BenchmarkRow, Verdict]]:
    """All verdicts against a reference, row by row; of some columns only, where they are given."""
    for row in found.rows:
        for column in columns or found.columns:
            verdict = row.verdict(reference, column)
            if verdict is not None:
                yield row, verdict


def compared(found: Benchmark, reference: str) -> tuple[list[str], dict[str, list[Verdict | None]]]:
    """The columns that have verdicts against a reference; and label → verdicts there, of rows that have any."""
    columns = shown(found)
    told = {row.label: [row.verdict(reference, column) for column in columns] for row in found.rows}
    keep = [k for k in range(len(columns)) if any(verdicts[k] for verdicts in told.values())]
    rows = {label: [verdicts[k] for k in keep] for label, verdicts in told.items() if any(verdicts)}
    return [columns[k] for k in keep], rows


def legend_of(found: Benchmark, ranked: str = RANKED) -> str:
    """Explains the marks beside the scores, how the tests were corrected, and whose merges held-out data chose.

    Args:
        found: the benchmark.
        ranked: how the best scores are marked; empty where that stands before already.
    """
    told = [verdict for _, verdict in verdicts(found, "best")]
    marks = [legend(found.against("best")), correction(told)] if told else []
    methods = {row.label: row.verdicts for row in found.rows if row.verdicts and row.strategy != "best"}
    dear = any(row.inference_cost > 1 for row in found.rows)
    apart = " among single models; ensembles, which cost several passes a sample, stand apart" if dear else ""
    return " ".join(filter(None, [f"{ranked} of each set{apart}.".strip(), *marks, selection(methods)]))


def unit(found: Benchmark) -> str:
    """Names the unit in which a table shows differences."""
    return unit_of(found.measure) if is_percent(found.measure) else found.objective


def correction_of(found: Benchmark, reference: str) -> str:
    """Explains how the tests against a reference were corrected, and the unit of their differences."""
    told = [verdict for _, verdict in verdicts(found, reference)]
    return f"Differences in {unit(found)} on the same samples, with intervals. {correction(told)}".strip()


def corrected_by(found: Benchmark, reference: str) -> str:
    """Says in few words how the tests of the main columns were corrected."""
    tests = max((verdict.tests for _, verdict in verdicts(found, reference, main(found))), default=0)
    both = f", both corrected by Holm over {tests} tests" if tests > 1 else ""
    return f"difference in {unit(found)}, its interval and p{both}"
