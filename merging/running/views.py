"""What the result of a run can be turned into, whether it was made a moment ago or is read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import RecipeError, StrategyError
from merging.values.recipe import Ensemble, Merge, Recipe, Weights
from merging.values.shown import Sheet, Shown
from merging.values.told import sheet_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from merging.drawing import Picture
    from merging.values.report import Report


class RunViews(Shown):
    """The ways in which the result of a run is shown; ``merge``, ``report`` and ``folder`` are its subclass's."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def merge(self) -> Merge:
            """What was saved."""

        @property
        def report(self) -> Report:
            """What is known of the run."""

        @property
        def folder(self) -> Path | None:
            """Where it was written."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of a linear merge: its ingredients, components and coefficients.

        Raises:
            RecipeError: the merge has none: its weights are no weighted sum, or it is an ensemble.
        """
        merged = self.merge
        if isinstance(merged, Recipe):
            return merged
        if isinstance(merged, Ensemble):
            raise RecipeError(f"an ensemble has a recipe for each of {len(merged.members)} members: see its members")
        raise RecipeError(f"{merged.strategy} is no weighted sum of the models: it has no recipe")

    def _single(self) -> Recipe | Weights:
        """What was saved, where it is one model.

        Raises:
            StrategyError: it is an ensemble.
        """
        if isinstance(self.merge, Ensemble):
            raise StrategyError(f"an ensemble of {len(self.merge.members)} members is no single model")
        return self.merge

    def to_frame(self) -> DataFrame:
        """The scores as a long data frame, see :meth:`merging.Report.to_frame`."""
        return self.report.to_frame()

    def plot(self) -> Picture:
        """Draws the differences from the best single model, see :meth:`merging.Report.plot`."""
        return self.report.plot()

    def _sheet(self) -> Sheet:
        return sheet_of(self.report, "Result", self._where)

    def _repr_html_(self) -> str:
        from merging.values.fragment import fragment

        return fragment(self.report, "Result", self._where)

    @property
    def _where(self) -> tuple[str, ...]:
        return (f"in {self.folder}",) if self.folder is not None else ()
