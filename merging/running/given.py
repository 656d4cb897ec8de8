"""What a run is given besides its settings and who watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.plugins.objective import Objective
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.task import Task
from merging.plugins.whole_model_objective import WholeModelObjective


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The plug-ins and the task that a strategy works with, besides the pool."""

    partitioner: Partitioner | None = field(
        default=None, metadata={"help": "Which tensors share a mixing factor; default: the whole model."}
    )
    objective: Objective | WholeModelObjective | None = field(
        default=None, metadata={"help": "What a search maximises; default: top-1 accuracy."}
    )
    optimizer: Optimizer | None = field(
        default=None,
        metadata={"help": "The search's backend; default: the strategy's own, which is Nevergrad's Cobyla for most."},
    )
    task: Task | None = field(
        default=None, metadata={"help": "The model and its data; strategies that only average weights need none."}
    )


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The folder that a result goes to, and what may happen to an earlier one there."""

    output: Path | str | None = field(default=None, metadata={"help": "Folder for the result; None writes nothing."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier run in that folder."})
    resume: bool = field(
        default=False, metadata={"help": "Go on with the run in that folder; what decides its result must be the same."}
    )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of a run: what is kept of the command that started it."""

    request: Mapping[str, Any] | None = field(
        default=None, metadata={"help": "Kept in the journal, for a run that goes on."}
    )
    command: str = field(default="", metadata={"help": "Kept in the model card."})
    started: float | None = field(
        default=None, metadata={"help": "`time.time()` of the start, where that was before this call."}
    )
