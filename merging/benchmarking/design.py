"""What a benchmark compares, and which settings of a single run it does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from merging.partitioners.whole import Whole
from merging.plugins.objective import Objective
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.task import Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.settings import GROUPS

NOT_TAKEN = (
    *("seed", "baselines", "tests", "pool_tests", "certify_split", "resume"),
    *GROUPS["writing"].__dataclass_fields__,
)
"""Settings of a single run that a comparison has in another form, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The design of a benchmark: its data, what varies besides the methods, and what is tested against what."""

    task: Task | None = field(default=None, metadata={"help": "The model and its data; a benchmark needs them."})
    partitioners: Sequence[Partitioner] | Mapping[str, Partitioner] = field(
        default=(Whole(),), metadata={"help": "Which tensors share a mixing factor; a mapping names them."}
    )
    seeds: Sequence[int] = field(default=(0,), metadata={"help": "Of strategy and optimizer."})
    objective: Objective | WholeModelObjective | None = field(
        default=None, metadata={"help": "What a search maximises; default: top-1 accuracy."}
    )
    optimizer: Optimizer | None = field(
        default=None, metadata={"help": "Of every search; default: each strategy's own."}
    )
    singles: bool = field(
        default=True, metadata={"help": "Score every single model on the test sets too, for the scatter."}
    )
    against: Sequence[str] = field(
        default=(), metadata={"help": "Methods that the others are tested against, besides best and greedy."}
    )
