"""A run before it begins: everything opened and checked, the model divided, nothing evaluated or written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merging import machine
from merging.errors import PoolError, RequirementError
from merging.evaluation.usual import usual_objective
from merging.mixing.blocks import blocks
from merging.optimizers import nevergrad as _nevergrad  # noqa: F401 (registers the default)
from merging.partitioners import whole as _whole  # noqa: F401 (registers the default)
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.naming import Meant, meant
from merging.plugins.objective import Objective, check_labels, measure_of
from merging.plugins.optimizer import Optimizer
from merging.plugins.options import Plugin
from merging.plugins.partitioner import Partitioner, divided
from merging.plugins.progress import Progress, Silent
from merging.plugins.registry import optimizers, partitioners, strategies
from merging.plugins.searched import check_places
from merging.plugins.spreading import Places
from merging.plugins.strategy import MixStrategy, own_optimizer, own_partitioner
from merging.plugins.task import CERTIFY, HELD_OUT, UNLABELLED, Task, built
from merging.plugins.watcher import Watcher
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.given import Parts
from merging.running.needs import check_limit, check_needs, planned_evaluations, ranks_models
from merging.running.settings import Settings
from merging.storage.alignment import check_one_vocabulary
from merging.storage.factors import check_factors
from merging.storage.pool import ModelPool
from merging.values.partition import Partition

if TYPE_CHECKING:
    from torch import nn

    from merging.forward.live import LiveModel
    from merging.forward.numerics import Numerics
    from merging.storage.ingredients import Models


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run as it will be: everything opened and checked, nothing evaluated or written.

    Attributes:
        settings: The settings as they apply: baselines are off without a task, and whether statistics are measured is
            decided.
        numerics: How passes are made; None without a task.
        live: The task's model on its device; None without a task.
        notes: Sentences about the models, what lies beside them and their statistics, for the report.
    """

    pool: ModelPool
    strategy: MixStrategy
    partitioner: Partitioner
    objective: Objective | WholeModelObjective
    optimizer: Optimizer
    task: Task | None
    partition: Partition
    settings: Settings
    numerics: Numerics | None = None
    live: LiveModel | None = None
    notes: tuple[str, ...] = ()

    @property
    def measure(self) -> str:
        """Says as what people read the scores (:mod:`merging.values.units`)."""
        return self.objective.name if self.task is None else measure_of(self.objective, self.task)

    def header(self, request: Mapping[str, Any] | None) -> dict[str, Any]:
        """Makes the journal's first event: all that must be the same for a run to be resumed.

        How long the run may go on, and how its result is written, may change and are not in it.

        Args:
            request: what the command was asked for, kept for ``merge run --resume``; None from Python.
        """
        splits = {} if self.task is None else {HELD_OUT: self.task.held_out, **self.task.tests}
        if self.task is not None and self.task.train is not None:
            splits["train"] = self.task.train
        if self.task is not None and self.task.unlabelled is not None:
            splits[UNLABELLED] = self.task.unlabelled
        if self.task is not None and self.task.certify is not None:
            splits[CERTIFY] = self.task.certify
        plugins: dict[str, Plugin] = {
            "strategy": self.strategy,
            "partitioner": self.partitioner,
            "optimizer": self.optimizer,
            "objective": self.objective,
        }
        header = {
            "request": request,
            "versions": versions(),
            "inputs": {i.name: i.hash for i in self.pool.ingredients},
            "base": self.pool.base_ingredient.hash if self.pool.base else None,
            "task": self.task.name if self.task else None,
            "data": {name: split.fingerprint for name, split in splits.items()},
            **{kind: {"name": plugin.name, "options": plugin.options()} for kind, plugin in plugins.items()},
            **self.settings.header(),
            "numerics": self.numerics.to_json() if self.numerics else None,
        }
        return json.loads(json.dumps(header))  # type: ignore[no-any-return]


@by_keyword(Parts, Settings)
def plan(
    pool: ModelPool | Models,
    strategy: Meant[MixStrategy],
    *,
    parts: Parts = Parts(),
    settings: Settings = Settings(),
    progress: Progress | None = None,
    measured: Numerics | None = None,
    resumed: bool = False,
    **keywords: Any,
) -> Plan:
    """Opens and checks everything that :func:`merging.merge` would use, and divides the model.

    Args:
        pool: the checkpoints, or what :meth:`ModelPool.open` makes them from.
        strategy: how they are merged; an object, its class or its name.
        parts: partitioner, objective, optimizer, task, base.
        settings: what the run is told.
        progress: told what happens.
        measured: how passes were made in an earlier session of the run, which may have measured that (``tune``).
        resumed: whether the run goes on, whose models' vocabularies were compared when it began.
        keywords: fields of these values by their own names, instead.

    Raises:
        MergingError: whatever would make the run fail, said before any work.
    """
    parts, settings = given("plan", keywords, parts, settings)
    expected("resumed", resumed, bool, "True or False")
    told = Watcher(progress=Silent() if progress is None else progress).progress
    if measured is not None:
        from merging.forward.numerics import Numerics  # loads torch

        expected("measured", measured, Numerics, "what an earlier session has used")
    task = parts.task
    objective = parts.objective or usual_objective(task)
    pool = ModelPool.open(pool, parts.base, **settings.vocabulary.options())
    strategy = meant(strategies, strategy)
    partitioner = parts.partitioner or meant(partitioners, own_partitioner(strategy))
    search, passes, rules = settings.search, settings.passes, settings.rules
    if ranks_models(strategy) or (task is not None and (rules.baselines or rules.certify_split is not None)):
        check_limit(search.max_evaluations, len(pool))
    check_needs(strategy, pool, task)
    if task is not None:
        check_labels(objective, task, (HELD_OUT, *(task.tests if rules.tests else ())))
    if pool.alignment is None and not resumed:
        check_one_vocabulary(pool.with_base)
    stored = check_factors(pool.with_base, as_stored=rules.as_stored)
    task = _divided(task, rules.certify_split, search.seed)
    module = built(task, pool) if task else None
    partition = divide(pool, partitioner, module, search.freeze)
    live = numerics = None
    if task is not None and module is not None:
        from merging.forward.placement import place  # loads torch, which merging weights alone does without

        planned = planned_evaluations(strategy, search, len(pool), len(partition))
        live, numerics = place(
            module, task, pool, partition, passes=passes, progress=told, earlier=measured, evaluations=planned
        )
        partition = live.partition
    check_places(strategy, lambda: Places.between(pool, partition, in_depth(pool, module)))
    recalibrate, notes = _recalibrates(rules.recalibrate, task, pool)
    return Plan(
        pool=pool,
        strategy=strategy,
        partitioner=partitioner,
        objective=objective,
        optimizer=parts.optimizer or optimizers[own_optimizer(strategy)](),
        task=task,
        partition=partition,
        settings=settings.changed({"baselines": rules.baselines and task is not None, "recalibrate": recalibrate}),
        numerics=numerics,
        live=live,
        notes=(*pool.beside, *stored, *notes),
    )


def divide(
    pool: ModelPool, partitioner: Partitioner, module: nn.Module | None = None, freeze: Sequence[str] = ()
) -> Partition:
    """The components of a pool: all tensors covered, tied ones together, the frozen ones set apart; no marks yet.

    Raises:
        PartitionError: the partitioner does not understand these names, or misses some.
        PoolError: the module ties what a checkpoint holds as two different tensors.
    """
    partition = divided(partitioner, pool.tensors, module)
    ties = _ties(pool, module)
    # Frozen before marked: a part that is split off may be inert. Ties again: one storage cannot be frozen in part.
    return partition.with_ties(ties).with_frozen(freeze).with_ties(ties)


def _divided(task: Task | None, share: float | None, seed: int) -> Task | None:
    """The task with its held-out data in two, where that is asked for."""
    if share is None:
        return task
    if task is None:
        raise RequirementError("`certify_split` divides held-out data, but there is no task; give one with `task`")
    return task.certified(share, seed)


def _recalibrates(wanted: bool | None, task: Task | None, pool: ModelPool) -> tuple[bool, tuple[str, ...]]:
    """Whether BatchNorm statistics of averages are measured again: where there are any, and data to measure them on.

    Returns that, and what is to be said of it.

    Raises:
        RequirementError: it is asked for, and there is neither training nor unlabelled data.
    """
    data = task is not None and task.calibrates is not None
    if wanted and not data:
        raise RequirementError(
            "`recalibrate` measures BatchNorm statistics on training data, and there is none; give the task some "
            "(train, or unlabelled)"
        )
    there = any(name.endswith(".running_mean") for name in pool.tensors)
    notes = () if there or not wanted else ("nothing to recalibrate: the models have no BatchNorm statistics",)
    return wanted is not False and data and there, notes


def in_depth(pool: ModelPool, module: nn.Module | None = None) -> dict[str, tuple[str, ...]]:
    """The network's blocks in the order of its depth: name → its tensors, tied ones where their first is.

    Args:
        pool: the models.
        module: what they are loaded into, whose order of definition counts; without it, the tensors' names.
    """
    whole = Partition.of_groups(blocks(pool.tensors, module)).with_ties(_ties(pool, module))
    return {component.name: component.tensors for component in whole.components}


def _ties(pool: ModelPool, module: nn.Module | None) -> tuple[tuple[str, ...], ...]:
    """Names that are one tensor: in the checkpoints, or in the module that they are loaded into.

    Raises:
        PoolError: the module ties what a checkpoint holds as two different tensors.
    """
    if module is None:
        return pool.ties
    import torch

    groups: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    tied = [tuple(names) for names in groups.values() if len(names) > 1 and all(n in pool.tensors for n in names)]
    for names in tied:
        for checkpoint in pool.checkpoints:
            if not all(torch.equal(checkpoint.read(names[0]), checkpoint.read(name)) for name in names[1:]):
                raise PoolError(
                    f"{checkpoint.path}: '{names[0]}' and '{names[1]}' differ, but are one tensor in the task's model"
                )
    known = {frozenset(names) for names in tied}
    return (*tied, *(names for names in pool.ties if frozenset(names) not in known))


def versions() -> dict[str, str]:
    """Versions of what decides the bits of a run."""
    return machine.versions("merging", "torch", "open_clip_torch", "numpy", "scipy", "nevergrad")
