"""The card of a benchmark: the method to take, its differences use by use, and what is lost with it."""

from __future__ import annotations

from collections.abc import Iterator

from merging.benchmarking.rendering.answer import Compared, answer
from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.values.answer import Answer
from merging.values.states import RunState, ended
from merging.values.verdict import Verdict
from merging.values.verdict_card import TILES, Tile, VerdictCard, losses


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
            yield Tile.of(verdict, table.place(column), "" if row is not None else nearest.label)


def _size(verdict: Verdict) -> float:
    return float("-inf") if verdict.difference is None else verdict.difference
