"""A run before it begins: everything opened and checked, the model divided, nothing evaluated or written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merging import machine
from merging.errors import PoolError, RequirementError
from merging.objectives.accuracy import Accuracy
from merging.optimizers import nevergrad as _nevergrad  # noqa: F401 (registers the default)
from merging.partitioners.whole import Whole
from merging.plugins.objective import Objective, WholeModelObjective, check_labels
from merging.plugins.optimizer import Optimizer
from merging.plugins.options import Plugin
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, Silent
from merging.plugins.registry import optimizers
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import CERTIFY, HELD_OUT, UNLABELLED, Task
from merging.running.needs import check_needs, check_numbers, ranks_models
from merging.storage.factors import check_factors
from merging.storage.pool import ModelPool
from merging.values.partition import Partition

if TYPE_CHECKING:
    from torch import nn

    from merging.forward.live import LiveModel
    from merging.forward.numerics import Numerics


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run as it will be: everything opened and checked, nothing evaluated or written."""

    pool: ModelPool
    strategy: MixStrategy
    partitioner: Partitioner
    objective: Objective | WholeModelObjective
    optimizer: Optimizer
    task: Task | None
    partition: Partition
    numerics: Numerics | None
    live: LiveModel | None
    seed: int
    budget: int | None
    max_evaluations: int | None
    freeze: tuple[str, ...]
    baselines: bool
    tests: bool
    certify_split: float | None
    recalibrate: bool
    notes: tuple[str, ...] = ()

    def header(self, request: Mapping[str, Any] | None) -> dict[str, Any]:
        """What must be the same for a run to be resumed: all but how long it may go on."""
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
            "seed": self.seed,
            "budget": self.budget,
            "freeze": list(self.freeze),
            "baselines": self.baselines,
            "tests": self.tests,
            "certify_split": self.certify_split,
            "recalibrate": self.recalibrate,
            "numerics": self.numerics.to_json() if self.numerics else None,
        }
        return json.loads(json.dumps(header))  # type: ignore[no-any-return]


def plan(
    pool: ModelPool,
    strategy: MixStrategy,
    *,
    partitioner: Partitioner | None = None,
    objective: Objective | WholeModelObjective | None = None,
    optimizer: Optimizer | None = None,
    task: Task | None = None,
    seed: int = 0,
    budget: int | None = None,
    max_evaluations: int | None = None,
    freeze: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    tune: bool | Numerics = False,
    compile: bool = False,
    threads: int | None = None,
    baselines: bool = True,
    tests: bool = True,
    certify_split: float | None = None,
    recalibrate: bool | None = None,
    as_stored: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Opens and checks everything that :func:`merge` would use (same arguments), and divides the model.

    ``tune`` may also be what an earlier run has measured.

    Raises:
        MergingError: whatever would make the run fail, said before any work.
    """
    for value, kind in ((strategy, MixStrategy), (partitioner or Whole(), Partitioner)):
        if not isinstance(value, kind):
            raise RequirementError(f"{value!r} is not a {kind.__name__}; pass an object such as ManifoldMix(tau=0.99)")
    partitioner, objective = partitioner or Whole(), objective or Accuracy()
    ranks = (task is not None and (baselines or certify_split is not None)) or ranks_models(strategy)
    check_numbers(seed, budget, max_evaluations, len(pool), ranks)
    if threads is not None:
        from merging.forward.numerics import check_threads

        check_threads(threads)
    check_needs(strategy, pool, task)
    if task is not None:
        check_labels(objective, task, (HELD_OUT, *(task.tests if tests else ())))
    stored = check_factors(pool.with_base, as_stored=as_stored)
    task = _divided(task, certify_split, seed)
    module = task.build(pool) if task else None
    partition = divide(pool, partitioner, module, freeze)
    live = numerics = None
    if task is not None and module is not None:
        from merging.forward.placement import place  # loads torch, which merging weights alone does without

        live, numerics = place(
            module,
            task,
            pool,
            partition,
            device=device,
            precision=precision,
            tune=tune,
            compile=compile,
            progress=progress or Silent(),
            threads=threads,
        )
        partition = live.partition
    optimizer = optimizer or optimizers[strategy.default_optimizer()]()
    measured, notes = _recalibrates(recalibrate, task, pool)
    return Plan(
        pool=pool,
        strategy=strategy,
        partitioner=partitioner,
        objective=objective,
        optimizer=optimizer,
        task=task,
        partition=partition,
        numerics=numerics,
        live=live,
        seed=seed,
        budget=budget,
        max_evaluations=max_evaluations,
        freeze=tuple(freeze),
        baselines=baselines and task is not None,
        tests=tests,
        certify_split=certify_split,
        recalibrate=measured,
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
    partition = partitioner.split(pool.tensors, module)
    partition.check_covers(pool.tensors)
    ties = _ties(pool, module)
    # Frozen before marked: a part that is split off may be inert. Ties again: one storage cannot be frozen in part.
    return partition.with_ties(ties).with_frozen(freeze).with_ties(ties)


def _divided(task: Task | None, share: float | None, seed: int) -> Task | None:
    """The task with its held-out data in two, where that is asked for."""
    if share is None:
        return task
    if not 0 < share < 1:
        raise RequirementError(f"`certify_split` is {share:g}; it is the share of held-out data that accepts, 0 to 1")
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
            "`recalibrate` measures BatchNorm statistics on training data, and there is none; give [task] train (or "
            "unlabelled)"
        )
    there = any(name.endswith(".running_mean") for name in pool.tensors)
    notes = () if there or not wanted else ("nothing to recalibrate: the models have no BatchNorm statistics",)
    return wanted is not False and data and there, notes


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
