"""What a benchmark's results can be turned into in Python: shown, tabled, drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from merging.errors import OptionError, unknown
from merging.plugins.task import HELD_OUT
from merging.values.frames import frame
from merging.values.outcome import is_score
from merging.values.shown import Sheet, Shown, named
from merging.values.states import ended
from merging.values.told import COLUMNS, columns
from merging.values.wording import plural

if TYPE_CHECKING:
    from pandas import DataFrame

    from merging.benchmarking.results import Benchmark, BenchmarkRow
    from merging.drawing import Picture

HEADS = ("row", "strategy", "partitioner", "status", "set", "score", "score_low", "score_high", "spread", "samples")
TOOK = ("models", "inference_cost", "evaluations", "forward_equivalents", "seconds")
MAP = "coefficients-"
"""Begins the name of a picture of coefficients."""


class BenchmarkViews(Shown):
    """The ways in which a :class:`merging.Benchmark` is shown."""

    __slots__ = ()

    def to_frame(self, against: str = "best") -> DataFrame:
        """The scores as a long data frame, a method and a set a line.

        Columns: ``row``, ``strategy``, ``partitioner``, ``status``; ``set`` (``held-out``, a test set, ``average of
        shifts``, or one of these with ``(accuracy)`` beside another objective), ``score`` (a fraction for accuracies)
        with its own interval ``score_low`` to ``score_high``, ``spread`` over the seeds, ``samples``; then the
        verdict: ``against``, ``difference`` with its interval ``low`` to ``high``, ``p`` (corrected) and
        ``p_alone``, ``standing`` in a word and ``mark``; then what the method took.

        Args:
            against: the row that the others are compared with, such as ``greedy``.

        Raises:
            UnknownNameError: nothing was compared with that row.
            RequirementError: there is no pandas.
        """
        found = self._found
        if against != "best" and against not in found.references:
            raise unknown("row to compare with:", against, found.references)
        return frame(_observations(found, against), (*HEADS, *COLUMNS, *TOOK))

    def plot(self, kind: str | None = None, method: str | None = None) -> Picture:
        """Draws one of the pictures of a benchmark's folder.

        Args:
            kind: ``forest`` (differences from the best single model, with intervals), ``scatter`` (in-distribution
                against shifted), ``search`` (the best score over what it cost), or ``coefficients`` (of a method);
                default: the first one that there is something to draw for.
            method: label of the row whose coefficients are drawn; default: the first one that has any.

        Returns:
            The picture: shown in a notebook, or saved by ``save("x.svg")``.

        Raises:
            UnknownNameError: another kind, or a method without coefficients.
            OptionError: there is nothing to draw.
        """
        from merging.benchmarking.rendering.pictures import drawings as of
        from merging.drawing import picture

        drawings = of(self._found)
        if kind is None:
            kind = next(iter(drawings), "")
        if kind == "coefficients":
            maps = {name: label for name, label in _maps(self._found).items() if name in drawings}
            if method is not None and method not in maps.values():
                raise unknown("method with coefficients:", method, maps.values())
            kind = next((name for name, label in maps.items() if method in (None, label)), kind)
        if not drawings:
            raise OptionError("there is nothing to draw: no method has a score, a search or coefficients")
        if kind not in drawings:
            known = dict.fromkeys("coefficients" if name.startswith(MAP) else name for name in drawings)
            raise unknown("picture of this benchmark:", kind, known)
        return picture(drawings[kind], name=kind)

    @property
    def _found(self) -> Benchmark:
        return cast("Benchmark", self)

    def _sheet(self) -> Sheet:
        found = self._found
        done = [row.label for row in found.rows if row.finished]
        sets = f"{plural(len(found.sets), 'test set')}, {found.samples.get(HELD_OUT, 0):,} held-out samples"
        return Sheet(
            name="Benchmark", facts=(found.task, f"{named(done, 'method', 4)}", sets, ended(found.state, found.limit))
        )

    def _repr_html_(self) -> str:
        from merging.benchmarking.rendering.fragment import fragment

        return fragment(self._found)


def _maps(found: Benchmark) -> dict[str, str]:
    """Name of a picture of coefficients → the label of its row."""
    from merging.benchmarking.rendering.pictures import map_name

    return {map_name(row): row.label for row in found.rows if row.coefficients is not None}


def _observations(found: Benchmark, against: str) -> Iterator[dict[str, Any]]:
    for row in found.rows:
        for column in found.columns if row.finished else (HELD_OUT,):
            value, verdict = row.value(column), row.verdict(against, column)
            low, high = row.intervals.get(column, (None, None))
            known = value is not None and is_score(value)
            yield {
                "row": row.label,
                "strategy": row.strategy,
                "partitioner": row.partitioner,
                "status": str(row.status),
                "set": column,
                "score": value if known else None,
                "score_low": low,
                "score_high": high,
                "spread": row.spread.get(column),
                "samples": _samples(found, row, column),
                **columns(verdict),
                **{name: getattr(row, name) if row.finished else None for name in TOOK},
            }


def _samples(found: Benchmark, row: BenchmarkRow, column: str) -> int | None:
    return found.samples.get(column) if row.finished else None
