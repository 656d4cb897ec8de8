"""What a report can be turned into: read back from its file, shown, tabled, drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from merging.errors import DAMAGED, FolderError, FormatError, OptionError, raised, reason_of
from merging.values.formats import parsed
from merging.values.frames import frame
from merging.values.shown import Sheet, Shown
from merging.values.wording import beginning, kind_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from merging.drawing import Picture
    from merging.values.report import Report

FILE = "report.json"


class ReportViews(Shown):
    """The ways in which a :class:`merging.Report` is read and shown."""

    __slots__ = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Path | str) -> Report:
        """Makes the report from what ``to_json`` gave, of this version or an earlier one.

        Args:
            data: the JSON's values; or a ``report.json``, or the folder that it stands in.

        Raises:
            FolderError: there is none, or it is damaged.
        """
        from merging.values.earlier import report_from

        where = "this"
        if not isinstance(data, Mapping | str | os.PathLike):
            raise FolderError(f"{kind_of(data)} is no report; give the path of a report.json, or the JSON's values")
        if not isinstance(data, Mapping):
            path = Path(data).expanduser()
            where = str(path / FILE if path.is_dir() else path)
        try:
            return report_from(data if isinstance(data, Mapping) else parsed(Path(where).read_bytes()))
        except FileNotFoundError:
            raise FolderError(f"there is no report at {where}") from None
        except FormatError as error:
            raise FolderError(f"{where}: {error}") from None
        except OSError as error:
            raise FolderError(f"cannot read a report at {beginning(where, 60)}: {reason_of(error)}") from None
        except (*DAMAGED, TypeError, AttributeError) as error:
            raise FolderError(f"{where} is no run's report, or damaged: {raised(error, whole=True)}") from None

    def to_frame(self) -> DataFrame:
        """The scores as a long data frame, a row of the table and a set a line.

        Columns: ``row`` and ``strategy``; ``set`` (``held-out``, a test set, or ``average of shifts``), ``measure``,
        ``score`` (a fraction for accuracies), ``samples``; then the verdict: ``against``, ``difference`` with
        its interval ``low`` to ``high``, ``p`` (corrected) and ``p_alone``, ``standing`` in a word and ``mark``; then
        what the row took: ``models``, ``evaluations``, ``seconds``.

        Raises:
            RequirementError: there is no pandas.
        """
        from merging.values.told import COLUMNS, observations

        heads = ("row", "strategy", "set", "measure", "score", "samples")
        return frame(observations(self._report), (*heads, *COLUMNS, "models", "evaluations", "seconds"))

    def plot(self) -> Picture:
        """Draws the differences from the best single model, set by set, with their intervals.

        Returns:
            The picture: shown in a notebook, or saved by ``save("x.svg")``.

        Raises:
            OptionError: nothing was compared.
        """
        from merging.drawing import picture
        from merging.values.forest import forest, of_report

        entries = of_report(self._report)
        if not any(entry.verdict.tested for entry in entries):
            raise OptionError("there is nothing to draw: the report compares nothing with the best single model")
        return picture(partial(forest, entries, self._report.strategy), name="forest")

    @property
    def _report(self) -> Report:
        return cast("Report", self)

    def _sheet(self) -> Sheet:
        from merging.values.told import sheet_of

        return sheet_of(self._report)

    def _repr_html_(self) -> str:
        from merging.values.fragment import fragment

        return fragment(self._report)
