"""What a run is given besides its settings and who watches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError
from merging.plugins.keywords import check_kinds
from merging.plugins.naming import meant_or_none
from merging.plugins.registry import objectives, optimizers, partitioners
from merging.plugins.task import Task

if TYPE_CHECKING:
    from merging.plugins.naming import Meant
    from merging.plugins.objective import Objective
    from merging.plugins.optimizer import Optimizer
    from merging.plugins.partitioner import Partitioner
    from merging.plugins.whole_model_objective import WholeModelObjective
    from merging.storage.ingredients import Model
    from merging.tasks.meant import TaskLike


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The plug-ins, the task and the base that a strategy works with, besides the pool.

    Plug-ins may be given by name or class, a task by name or by the path of a merge.toml; here they are objects.

    Raises:
        MergingError: something is none of these; the nearest name is said.
    """

    partitioner: Partitioner | None = field(
        default=None,
        metadata={"help": "Which tensors share a mixing factor; default: the strategy's; whole for most."},
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
    base: Model | None = field(
        default=None, metadata={"help": "The model that they were fine-tuned from; default: the pool's, if it has one."}
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            partitioner: Meant[Partitioner] | None = None,
            objective: Meant[Objective] | Meant[WholeModelObjective] | None = None,
            optimizer: Meant[Optimizer] | None = None,
            task: TaskLike | None = None,
            base: Model | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, registry in (("partitioner", partitioners), ("objective", objectives), ("optimizer", optimizers)):
            object.__setattr__(self, name, meant_or_none(registry, getattr(self, name)))
        task: Any = self.task
        if task is not None and not isinstance(task, Task):
            from merging.tasks.meant import task_of  # knows every form of data

            object.__setattr__(self, "task", task_of(task))


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The folder that a result goes to, and what may happen to an earlier one there."""

    output: Path | str | None = field(
        default=None,
        metadata={
            "help": "Folder for the result; None writes nothing.",
            "takes": ((str, os.PathLike, NoneType), "the path of a folder, or None"),
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace an earlier run in that folder.", "takes": (bool, "True or False")}
    )
    resume: bool = field(
        default=False,
        metadata={
            "help": "Go on with the run in that folder; what decides its result must be the same.",
            "takes": (bool, "True or False"),
        },
    )

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.output is not None and not str(self.output):
            raise OptionError("`output` is empty; it is the path of a folder, or None")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of a run: what is kept of the command that started it."""

    request: Mapping[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Kept in the journal, for a run that goes on.",
            "takes": ((Mapping, NoneType), "a mapping that JSON can hold, or None"),
        },
    )
    command: str = field(default="", metadata={"help": "Kept in the model card.", "takes": (str, "a text")})
    started: float | None = field(
        default=None,
        metadata={
            "help": "`time.time()` of the start, where that was before this call.",
            "takes": ((int, float, NoneType), "a time in seconds, or None"),
        },
    )

    def __post_init__(self) -> None:
        check_kinds(self)
