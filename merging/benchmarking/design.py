"""What a benchmark compares, and which settings of a single run it does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from merging.partitioners.whole import Whole
from merging.plugins.keywords import check_kinds, expected
from merging.plugins.naming import meant, named
from merging.plugins.objective import Objective
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.plugins.strategy import WHOLE, MixStrategy, own_partitioner
from merging.plugins.task import Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.given import Parts
from merging.running.settings import GROUPS

if TYPE_CHECKING:
    from merging.plugins.naming import Meant, Several
    from merging.storage.ingredients import Model
    from merging.tasks.meant import TaskLike

NOT_TAKEN = (
    *("seed", "baselines", "tests", "pool_tests", "certify_split", "resume"),
    *GROUPS["writing"].__dataclass_fields__,
    *GROUPS["vocabulary"].__dataclass_fields__,
)
"""Settings of a single run that a comparison has in another form, or not at all."""


@dataclass(frozen=True)
class Own:
    """Each strategy's own partitioner.

    Attributes:
        otherwise: partitioner of the strategies that have none of their own.
    """

    otherwise: Partitioner = field(default=Whole())


@dataclass(frozen=True, kw_only=True)
class Design:
    """The design of a benchmark: its data, what varies besides the methods, and what is tested against what."""

    task: Task | None = field(default=None, metadata={"help": "The model and its data; a benchmark needs them."})
    partitioners: Sequence[Partitioner] | Mapping[str, Partitioner] | Own = field(
        default=Own(),
        metadata={"help": "Which tensors share a mixing factor; a mapping names them; default: each strategy's own."},
    )
    seeds: Sequence[int] = field(
        default=(0,),
        metadata={"help": "Of strategy and optimizer.", "takes": ((list, tuple, range), "a list of whole numbers")},
    )
    objective: Objective | WholeModelObjective | None = field(
        default=None, metadata={"help": "What a search maximises; default: top-1 accuracy."}
    )
    optimizer: Optimizer | None = field(
        default=None, metadata={"help": "Of every search; default: each strategy's own."}
    )
    singles: bool = field(
        default=True,
        metadata={
            "help": "Score every single model on the test sets too, for the scatter.",
            "takes": (bool, "True or False"),
        },
    )
    against: Sequence[str] = field(
        default=(),
        metadata={
            "help": "Methods that the others are tested against, besides best and greedy.",
            "takes": ((list, tuple), "a list of methods"),
        },
    )
    base: Model | None = field(
        default=None, metadata={"help": "The model that they were fine-tuned from; default: the pool's, if it has one."}
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            task: TaskLike | None = None,
            partitioners: Several[Partitioner] | Own = Own(),
            seeds: Sequence[int] = (0,),
            objective: Meant[Objective] | Meant[WholeModelObjective] | None = None,
            optimizer: Meant[Optimizer] | None = None,
            singles: bool = True,
            against: Sequence[str] = (),
            base: Model | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_kinds(self)
        for seed in self.seeds:
            expected("an entry of `seeds`", seed, int, "a whole number")
        for name in self.against:
            expected("an entry of `against`", name, str, "the name of a method")
        parts = Parts(task=self.task, objective=self.objective, optimizer=self.optimizer)
        for name in ("task", "objective", "optimizer"):
            object.__setattr__(self, name, getattr(parts, name))
        if not isinstance(self.partitioners, Own):
            object.__setattr__(self, "partitioners", named(partitioners, self.partitioners))

    def divided(self, methods: Mapping[str, MixStrategy]) -> dict[str, dict[str, Partitioner]]:
        """Says for each method under which partitions it is run, by their names.

        Args:
            methods: strategies by the names of the methods.
        """
        given = self.partitioners
        if not isinstance(given, Own):
            return {method: named(partitioners, given) for method in methods}
        found: dict[str, dict[str, Partitioner]] = {}
        for method, strategy in methods.items():
            own = own_partitioner(strategy)
            partitioner = given.otherwise if own == WHOLE else meant(partitioners, own)
            found[method] = {partitioner.name: partitioner}
        return found
