"""The cells of a benchmark's tables, as every renderer shows them: numbers, ranks, what is not significant."""

from __future__ import annotations

from dataclasses import dataclass

from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.plugins.task import HELD_OUT
from merging.values.outcome import is_score
from merging.values.statistics import Comparison

COSTS = {
    "models": "models in it",
    "inference_cost": "passes a sample",
    "evaluations": "evaluations",
    "forward_equivalents": "forward-equivalents",
    "seconds": "seconds",
}
"""Field of a row → heading, after the scores."""
LEGEND = (
    "Best and second best of each column among single models; ensembles, which cost several passes a sample, stand "
    "apart. ≈: no significant difference from the best single model (paired test, Holm's correction over the methods "
    "of the column, 5 % level). Held-out data chose the merges: that column is optimistic."
)
COST_LEGEND = (
    "Evaluations, forward-equivalents (passes over the held-out data, with a backward pass 3) and seconds are what "
    "each method needs alone; what one of them had scored was not scored again for the others."
)


@dataclass(frozen=True)
class Cell:
    """A score.

    Attributes:
        text: the number, or a dash.
        rank: 1 best, 2 second best of its column, 0 neither.
        alike: not significantly different from the best single model.
        interval: its 95 % interval as text, or nothing.
        half: half of that interval as text.
        spread: standard deviation over the seeds as text, or nothing where they agree.
    """

    text: str
    rank: int = 0
    alike: bool = False
    interval: str = ""
    half: str = ""
    spread: str = ""


def heading(found: Benchmark, column: str) -> str:
    """A column's name; the shortest one that is not a set's."""
    if column == HELD_OUT and not found.percent(column):
        return f"{HELD_OUT} ({found.objective})"
    return "average" if column == SHIFTED and "average" not in found.samples else column


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
        return Cell("–")
    percent = found.percent(column)
    rank = ranks.index(round(value, 6)) + 1 if row.inference_cost == 1 and round(value, 6) in ranks else 0
    test = row.against.get("best", {}).get(column)
    interval = row.intervals.get(column)
    spread = row.spread.get(column)
    return Cell(
        number(value, percent=percent),
        rank,
        test is not None and not test.significant,
        f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}" if interval else "",
        f"{50 * (interval[1] - interval[0]):.1f}" if interval else "",
        number(spread, percent=percent) if spread else "",
    )


def number(value: float, *, percent: bool) -> str:
    """A fraction in percent with two decimals; other scores with four digits; NaN where there is none."""
    if not is_score(value):
        return "NaN"
    return f"{100 * value:.2f}" if percent else f"{value:.4g}"


def cost(row: BenchmarkRow, name: str) -> str:
    """A cost as text; means over seeds with a decimal where they are no whole number."""
    if not row.finished:
        return ""
    value = getattr(row, name)
    if name == "seconds":
        return f"{value:.1f}"
    if name == "forward_equivalents":
        return f"{value:,.0f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def difference(test: Comparison) -> str:
    """A paired difference in points with its interval."""
    low, high = test.interval
    return f"{100 * test.difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def significance(test: Comparison) -> str:
    """The corrected p value, or that there is nothing."""
    return p_value(test.adjusted) if test.significant else f"not significant ({p_value(test.adjusted)})"


def p_value(p: float) -> str:
    """Two digits, and no more zeros than help.

    >>> p_value(0.0312), p_value(1e-7), p_value(1.0)
    ('p = 0.031', 'p < 0.001', 'p = 1.0')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1.0"


def home(found: Benchmark) -> str:
    """The column of in-distribution accuracy: the first test set that is not shifted, else the held-out data."""
    return next((name for name in found.sets if name not in found.shifts), HELD_OUT)


def against(found: Benchmark, reference: str) -> str:
    """A reference in words."""
    return {"best": "the best single model", "greedy": "the greedy soup"}.get(reference, reference)


def findings(found: Benchmark) -> list[str]:
    """What the tests say, a sentence for each reference and main column."""
    lines = []
    for reference in found.references:
        for column in dict.fromkeys((home(found), *([SHIFTED] if found.shifts else []))):
            tests = {row.label: row.against[reference][column] for row in found.rows
                     if column in row.against.get(reference, {})}  # fmt: skip
            if not tests:
                continue
            better = [name for name, test in tests.items() if test.significant and test.difference > 0]
            worse = [name for name, test in tests.items() if test.significant and test.difference < 0]
            where = f"{column}, against {against(found, reference)}"
            rest = len(tests) - len(better) - len(worse)
            parts = [f"better: {', '.join(better)}"] * bool(better) + [f"worse: {', '.join(worse)}"] * bool(worse)
            if not parts:
                lines.append(f"{where}: none of {len(tests)} methods differs significantly")
            else:
                parts += [f"{rest} not significantly different"] * bool(rest)
                lines.append(f"{where}: {'; '.join(parts)}")
    return lines
