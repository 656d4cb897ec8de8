"""Whether held-out data had a say in a model: the report of the run that wrote it knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import DAMAGED
from merging.plugins.task import HELD_OUT
from merging.running.run import Result
from merging.running.saved import SavedRun
from merging.storage.checkpoint import Checkpoint
from merging.storage.result import MODELS, RECIPE, REPORT
from merging.values.formats import parsed
from merging.values.verdict import Family

if TYPE_CHECKING:
    from merging.looking.ranking import Scorable


def chosen_by_held_out(model: Scorable, task: str) -> bool:
    """Whether the held-out data of a task have chosen a model, as the report beside it says; without one, no.

    Args:
        model: a run, its folder, or the model or recipe in it; of any other model nothing is known.
        task: the task's name; the held-out data of another one had no say.
    """
    try:
        report = _report(model)
        if report is None or report["task"] != task:
            return False
        saved = report.get("saved") or report["strategy"]
        if saved != report["strategy"] or saved == "best":
            return bool(saved != "uniform")  # of the models that may be written instead, an average asks for no score
        own = [verdict for verdict in report["verdicts"] if verdict["set"] == HELD_OUT]
        return any(verdict["family"] == Family.SELECTION for verdict in own)
    except DAMAGED:  # none, or another program's
        return False


def _report(model: Scorable) -> Any:
    """The report of the run that has written a model, as its JSON; None where no run has."""
    if isinstance(model, Result | SavedRun):
        return model.report.to_json()
    if isinstance(model, Checkpoint):
        path = None if model.in_memory else model.path
    else:
        path = Path(model).expanduser() if isinstance(model, str | os.PathLike) else None
    if path is None or not (path.is_dir() or path.name in (RECIPE, *MODELS.values())):
        return None
    return parsed(((path if path.is_dir() else path.parent) / REPORT).read_bytes())
