"""The table of scores in a run's report: lines, marks and legend, as terminal and model card show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from merging.values.report import HELD_OUT, UNTESTED, Report, Row, best_single, number
from merging.values.units import heading
from merging.values.verdict import ACCURACY, Family, Role, Verdict, correction, distinct, legend, selection


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a report, set by set and row by row, each with its verdict.

    Attributes:
        report: the run's report.
    """

    report: Report

    @property
    def percent(self) -> bool:
        """Whether the scores are accuracies, shown in percent."""
        return self.report.measure == ACCURACY

    @property
    def reference(self) -> str:
        """Says in words what the strategy is compared with."""
        return best_single(self.report.best_single_name)

    @property
    def heading(self) -> str:
        """Says what the scores are, and in which unit."""
        return heading(self.report.measure, self.report.objective)

    def lines(self) -> list[tuple[str, list[str], list[Verdict | None]]]:
        """The table of scores, a set a line: heading, then for each row the number and its verdict."""
        sets = list(self.report.rows[-1].tests) if self.report.rows else []
        several = len(self.report.shifts) > 1  # one shifted set is its own average
        wanted: list[tuple[str, str, Callable[[Row], float | None], bool]]
        wanted = [(HELD_OUT, HELD_OUT, lambda row: row.held_out, False)]
        wanted += [(name, name, lambda row, name=name: row.tests.get(name), False) for name in sets]  # type: ignore[misc]
        shifted = str(Role.AVERAGE)
        if several and sets:
            wanted += [(shifted, shifted, lambda row: row.shifted, False)]
        beside = {name for row in self.report.rows for name in row.accuracies}
        for name in [name for name in (HELD_OUT, *sets, *([shifted] if several else [])) if name in beside]:
            wanted += [(f"{name} ({ACCURACY})", name, lambda row, name=name: row.accuracies.get(name), True)]  # type: ignore[misc]
        return [
            (
                head,
                [
                    number(value(row), percent=self.percent or extra, measure=self.report.measure)
                    for row in self.report.rows
                ],
                [self.told(row, name, extra=extra) for row in self.report.rows],
            )
            for head, name, value, extra in wanted
        ]

    def told(self, row: Row, name: str, *, extra: bool = False) -> Verdict | None:
        """A row's verdict on a set; one that says that it was not tested of rows that are not compared."""
        if row.strategy == "best":
            return None
        asked = row.strategy == self.report.strategy
        found = [v for v in distinct(self.report.verdicts) if v.set == name and v.extra == extra] if asked else []
        if found:
            return found[0]
        return Verdict(
            set=name,
            role=Role.TEST,
            reference="best",
            against=self.reference,
            measure=self.report.measure,
            family=Family.PRIMARY,
            extra=extra,
            why=UNTESTED,
        )

    @property
    def legend(self) -> str:
        """Explains the marks, and how the tests were corrected."""
        told = self.report.verdicts
        return " ".join(filter(None, (legend(self.reference), correction(told), selection({"": told}))))
