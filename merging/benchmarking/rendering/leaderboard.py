"""The models of a benchmark's pool, each alone: as every renderer shows them, and as CSV."""

from __future__ import annotations

import csv
import io

from merging.benchmarking.results import SHIFTED, Benchmark, placed_in
from merging.errors import showable
from merging.plugins.task import HELD_OUT
from merging.values.leaderboard import ranked
from merging.values.leaderboard_table import ALL, Leaderboard
from merging.values.verdict import ACCURACY


def board(found: Benchmark, most: int = ALL) -> Leaderboard:
    """The models of the pool, best held-out score first, with the methods whose merge they are in.

    Args:
        found: the benchmark.
        most: a pool of so many models, or fewer, is shown whole.
    """
    singles = placed_in(found.singles, found.rows)  # also of an earlier version, which did not keep that
    return Leaderboard(
        singles=ranked(singles) if len(singles) > 1 else (),
        labels={row.label: row.label for row in found.rows if row.finished and row.strategy != "best"},
        tests=(*found.held, *found.sets, *found.averages),
        shifts=found.shifts,
        percent=found.measure == ACCURACY,
        measure=found.measure,
        most=most,
    )


def pool_csv(found: Benchmark) -> str:
    """A line a model of the pool, best first, for other programs: fractions, methods, hyper-parameters."""
    singles = ranked(placed_in(found.singles, found.rows))
    trained = list(dict.fromkeys(name for single in singles for name in single.trained))
    tests, shifted = (*found.held, *found.sets, *found.averages), [SHIFTED] if found.shifts else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, ["model", HELD_OUT, *tests, *shifted, "in soups", *trained]))
    for single in singles:
        scores = [
            single.held_out,
            *(single.tests.get(name) for name in tests),
            *([single.shifted] if shifted else []),
        ]
        values = [single.trained.get(name) for name in trained]
        writer.writerow(map(csv_cell, [single.name, *scores, "; ".join(single.soups), *values]))
    return out.getvalue()


def csv_cell(value: object) -> object:
    """Writes a cell of CSV: a text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return "" if value is None else value
    return f"'{showable(value)}" if value.lstrip()[:1] in FORMULAS else showable(value)


FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that begin a formula in a spreadsheet, wide ones, too."""
