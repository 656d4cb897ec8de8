"""The card of a benchmark: the method to take, its differences use by use, and what is lost with it."""

from __future__ import annotations

from collections.abc import Iterator

from merging.benchmarking.rendering.answer import Compared, answer
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.values.answer import Answer
from merging.values.states import RunState, ended
from merging.values.verdict import Verdict
from merging.values.verdict_card import INGREDIENTS, TILES, Tile, VerdictCard, losses
from merging.values.wording import plural, some

SHIFTS = 3
"""Shifted sets that a tile names."""


def card(found: Benchmark, said: Answer | None = None) -> VerdictCard:
    """Makes the card of a benchmark.

    Where there is no method to take, the tiles are those of the method that comes nearest to it, use by use.

    Args:
        found: the benchmark.
        said: its answer, where that was made already.
    """
    said = said or answer(found)
    unfinished = "" if found.state is RunState.FINISHED else ended(found.state, found.limit)
    reference = next(iter(found.references), None)
    rows = [row for row in found.rows if any(verdict.reference == reference for verdict in row.verdicts)]
    if reference is None or not rows:
        return VerdictCard(answer=said, unfinished=unfinished)
    table = Compared(found, reference, rows)
    best = table.winner()
    row = None if best is None else best[0]
    return VerdictCard(
        answer=said,
        against=table.against,
        tiles=tuple(_tiles(table, row))[:TILES],
        made_of="" if row is None else _made_of(found, row),
        lost="" if row is None else losses(table.verdicts(row)),
        unfinished=unfinished,
    )


def _tiles(table: Compared, row: BenchmarkRow | None) -> Iterator[Tile]:
    """The differences column by column: of the method to take, else of the one with the largest difference there."""
    rows = table.rows if row is None else [row]
    for column in table.columns:
        pairs = [(other, other.verdict(table.reference, column)) for other in rows]
        known = [(other, verdict) for other, verdict in pairs if verdict is not None]
        if known:
            nearest, verdict = max(known, key=lambda pair: _size(pair[1]))
            yield Tile.of(verdict, _place(table, column), "" if row is not None else nearest.label)


def _place(table: Compared, column: str) -> str:
    """A use, and the sets that stand for it."""
    place, found = table.place(column), table.found
    if column == SHIFTED:
        many = len(found.shifts) > 1
        return f"{place}: {'the average of ' if many else ''}{some(found.shifts, SHIFTS)}"
    return f"{place}: {column}" if column not in place and column in found.sets else place


def _size(verdict: Verdict) -> float:
    return float("-inf") if verdict.difference is None else verdict.difference


def _made_of(found: Benchmark, row: BenchmarkRow) -> str:
    """Says which models are in the merge to take."""
    own = [name for name in row.ingredients if name in found.pool]
    many = f"{len(own)} of {plural(len(found.pool), 'model')}"
    return many if len(own) in (0, len(found.pool)) else f"{many}: {some(own, INGREDIENTS)}"
