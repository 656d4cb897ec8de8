"""``merging.inspect``: what a partition makes of a model, and how the models of a pool lie to each other.

Barriers (Frankle et al. 2020, https://arxiv.org/abs/1912.05671) need a task: how far the midpoint of two models falls
below the mean of the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from merging.errors import OptionError, TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.evaluation.steps import Steps
from merging.evaluation.usual import usual_objective
from merging.forward.fitting import check_fits, probe, untouched
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.looking.geometry import Geometry, measure
from merging.looking.views import InspectionViews
from merging.plugins.keywords import by_keyword, check_kinds, expected, given
from merging.plugins.naming import Meant, meant
from merging.plugins.partitioner import Partitioner, divided
from merging.plugins.progress import Progress
from merging.plugins.registry import partitioners
from merging.plugins.task import built
from merging.plugins.user_code import running
from merging.plugins.watcher import Watcher
from merging.running.cache import as_told
from merging.running.given import Parts
from merging.running.plan import divide
from merging.running.settings import Settings, all_but
from merging.storage.dtypes import info_of
from merging.storage.factors import factor_faults
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.values.partition import Component, Partition, TensorInfo
from merging.values.recipe import Recipe
from merging.values.verdict import ACCURACY
from merging.values.wording import of_each, plural, shown

if TYPE_CHECKING:
    from torch import nn

    from merging.storage.ingredients import Models


@dataclass(frozen=True)
class Barrier:
    """Two models and the average of them, scored on the held-out data.

    Attributes:
        first, second: names of the two models.
        ends: scores of the two models.
        midpoint: the score of ``(first + second) / 2``.
    """

    first: str
    second: str
    ends: tuple[float, float]
    midpoint: float

    @property
    def height(self) -> float:
        """Measures how far the midpoint lies below the mean of the ends; negative where averaging helps."""
        return sum(self.ends) / 2 - self.midpoint


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Inspection(InspectionViews):
    """All that :func:`inspect_module` or :func:`inspect_pool` found of a model or a pool.

    Attributes:
        partition: the partition, with inert and constant components marked, as far as they are known.
        tensors: name → (shape, dtype name).
        marked: whether the model was there to tell inert components.
        pool: names of the checkpoints, in order; empty for a bare architecture.
        duplicates: groups of checkpoints with the same weights.
        ties: groups of tensors that are one.
        geometry: distances in the pool, from two checkpoints on.
        scores: held-out score of each checkpoint, where a task is there.
        barriers: barriers of the pairs that were asked for.
        notes: what the partition, the files and what lies beside them say.
        objective: what the scores are.
    """

    partition: Partition
    tensors: dict[str, TensorInfo]
    marked: bool
    pool: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    geometry: Geometry | None = None
    scores: tuple[float, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    notes: tuple[str, ...] = ()
    objective: str = ACCURACY

    def parameters(self, component: Component) -> int:
        """Number of elements of a component's tensors."""
        return sum(int(np.prod(self.tensors[name][0], dtype=np.int64)) for name in component.tensors)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; ``inert`` and ``active`` are null where no model was there to tell."""
        components: list[dict[str, Any]] = [
            {
                "name": c.name,
                "tensors": len(c.tensors),
                "parameters": self.parameters(c),
                "inert": c.inert if self.marked else None,
                "constant": c.constant,
                "frozen": c.frozen,
                "active": c.active if self.marked else None,
                "tensor_names": list(c.tensors),
            }
            for c in self.partition.components
        ]
        found: dict[str, Any] = {
            "components": components,
            "tensors": len(self.tensors),
            "parameters": sum(self.parameters(c) for c in self.partition.components),
            "active_components": len(self.partition.active) if self.marked else None,
            "ties": [list(group) for group in self.ties],
            "notes": list(self.notes),
        }
        if not self.pool:
            return found
        found |= {"pool": list(self.pool), "duplicates": [list(group) for group in self.duplicates]}
        if self.geometry is not None:
            geometry = self.geometry
            for entry, spread in zip(components, geometry.spread, strict=True):
                entry["spread"] = float(spread)
            found |= {"norm": geometry.norm, "distances": geometry.distances.tolist()}
            if geometry.from_base is not None and geometry.cosines is not None:
                cosines = [[None if np.isnan(v) else float(v) for v in row] for row in geometry.cosines]
                found |= {"from_base": geometry.from_base.tolist(), "cosines": cosines}
        if self.scores:
            found["objective"] = self.objective
            found["scores"] = dict(zip(self.pool, self.scores, strict=True))
        if self.barriers:
            found["barriers"] = [
                {"first": b.first, "second": b.second, "ends": list(b.ends), "midpoint": b.midpoint, "height": b.height}
                for b in self.barriers
            ]
        return found


def inspect_module(module: nn.Module, partitioner: Meant[Partitioner], example: torch.Tensor) -> Inspection:
    """Divides a bare architecture; no checkpoint is needed.

    Args:
        module: may lie on the ``meta`` device: nothing but shapes is computed there.
        partitioner: which tensors share a factor; an object, its class or its name.
        example: a small batch as the model takes it, on the module's device.

    Raises:
        PartitionError: the partitioner does not understand these names, or misses some.
        OptionError: something of another type.
    """
    partitioner = meant(partitioners, partitioner)
    expected("module", module, torch.nn.Module, "a module")
    expected("example", example, torch.Tensor, "a small batch, a tensor")
    state = module.state_dict(keep_vars=True)
    tensors = {name: info_of(t) for name, t in state.items()}
    homes: dict[int, list[str]] = {}
    for name, tensor in state.items():
        homes.setdefault(id(tensor), []).append(name)
    ties = tuple(tuple(names) for names in homes.values() if len(names) > 1)
    partition = divided(partitioner, tensors, module)
    with running("the module", type(module), "on the example", TaskError):
        idle, _ = untouched(module.eval(), example)
    partition = partition.with_ties(ties).with_marks(untouched=idle)
    return Inspection(partition=partition, tensors=tensors, marked=True, ties=ties, notes=partition.notes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Architecture:
    """A model without a task."""

    module: nn.Module | None = field(
        default=None,
        metadata={
            "help": "An architecture, which tells inert components where there is no task.",
            "takes": ((torch.nn.Module, NoneType), "a module, or None"),
        },
    )
    example: torch.Tensor | None = field(
        default=None, metadata={"help": "A batch for it.", "takes": ((torch.Tensor, NoneType), "a tensor, or None")}
    )

    def __post_init__(self) -> None:
        check_kinds(self)


OTHERS = ("partitioner", "optimizer", *all_but("freeze", "device", "threads", "remember", "verify"))
"""Parts and settings that mean nothing to an inspection."""


@by_keyword(Parts, Architecture, Settings, Watcher, without=OTHERS)
@as_told
def inspect_pool(
    pool: ModelPool | Models,
    partitioner: Meant[Partitioner],
    *,
    barriers: Literal["none", "best", "all"] = "best",
    parts: Parts = Parts(),
    architecture: Architecture = Architecture(),
    settings: Settings = Settings(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Inspection:
    """Divides a pool's model and compares its checkpoints.

    Args:
        pool: the checkpoints, or what :meth:`ModelPool.open` makes them from.
        partitioner: which tensors share a factor; an object, its class or its name.
        barriers: pairs whose barriers are measured: the best model with every other, all pairs, or none; without a
            task there are none.
        parts: the task, which tells inert components and whose held-out data scores models and midpoints, and the
            objective, which barriers are measured in.
        architecture: tells inert components where there is no task.
        settings: what is frozen, and device and threads of passes, which are made in fp32.
        watcher: is told what happens, and asked between batches whether to stop.
        keywords: fields of these values by their own names, instead.

    Raises:
        MergingError: pool, partitioner, task and model do not fit together.
        Stopped: ``should_stop`` said so.
    """
    parts, architecture, settings, watcher = given(
        "inspect_pool", keywords, parts, architecture, settings, watcher, without=OTHERS
    )
    if not isinstance(barriers, str) or barriers not in ("none", "best", "all"):
        raise OptionError(f"barriers is {shown(barriers)}; it is none, best or all")
    pool, partitioner = ModelPool.open(pool, parts.base), meant(partitioners, partitioner)
    task, progress, passes = parts.task, watcher.progress, settings.passes
    objective = parts.objective or usual_objective(task)
    example = architecture.example
    progress.stage("reading the models")
    module = built(task, pool) if task is not None else architecture.module
    partition = divide(pool, partitioner, module, settings.search.freeze)
    equal = pool.constant if len(pool) > 1 else frozenset()
    scores: tuple[float, ...] = ()
    found: tuple[Barrier, ...] = ()
    idle: Any = ()
    if module is not None:
        check_fits(module, pool)
    if task is not None and module is not None:
        numerics = Numerics.choose(passes.device, module, task.held_out.inputs[0], "fp32", threads=passes.threads)
        with numerics.applied():
            idle = probe(module, task, numerics)
            partition = partition.with_marks(untouched=idle, equal=equal)
            if barriers != "none":
                live = LiveModel(module, pool, partition, numerics.device, numerics.layout)
                ledger = Ledger(Journal(None), should_stop=watcher.should_stop)
                evaluator = Evaluator.over(live, task, objective, numerics, ledger)
                scores, found = _barriers(evaluator, pool, partition, barriers == "all", progress)
    else:
        if module is not None and example is not None:
            with running("the module", type(module), "on the example", TaskError):
                idle, _ = untouched(module.eval(), example)
        partition = partition.with_marks(untouched=idle, equal=equal)
    progress.stage("comparing the models")
    geometry = measure(pool, partition) if len(pool) > 1 else None
    files = of_each({checkpoint.name: checkpoint.notes for checkpoint in pool.checkpoints}, "checkpoint")
    files += [fault for _, fault in factor_faults(pool.with_base)]
    return Inspection(
        partition=partition,
        tensors=dict(pool.tensors),
        marked=module is not None,
        pool=pool.names,
        duplicates=pool.duplicates,
        ties=pool.ties,
        geometry=geometry,
        scores=scores,
        barriers=found,
        notes=(*partition.notes, *files, *pool.beside),
        objective=objective.name,
    )


def _barriers(
    evaluator: Evaluator, pool: ModelPool, partition: Partition, every: bool, progress: Progress
) -> tuple[tuple[float, ...], tuple[Barrier, ...]]:
    """Scores of the models, and of the midpoints of all pairs or of those with the best model."""
    n = len(pool)
    count = n * (n - 1) // 2 if every else n - 1
    what = [plural(n, "model"), *([plural(count, "midpoint", ",")] if count else [])]
    samples = plural(len(evaluator.task.held_out), "held-out sample", ",")
    passes = f"{n + count:,} passes; `barriers=none` makes none"
    progress.say(f"scoring {' and '.join(what)} on {samples}: {passes}")

    def scores(text: str, mixes: Sequence[tuple[int, ...]]) -> list[float]:
        wanted = [Recipe.mean([pool.ingredients[i] for i in mix], partition) for mix in mixes]
        steps, found = Steps(evaluator, progress, text, wanted), []
        for recipe in wanted:
            found.append(evaluator.evaluate(recipe).score)
            steps.done()
        return found

    ends = tuple(scores("scoring the models", [(i,) for i in range(n)]))
    best = max(range(n), key=lambda i: (ends[i], -i))
    pairs = list(itertools.combinations(range(n), 2)) if every else [(best, i) for i in range(n) if i != best]
    middles = scores("scoring midpoints", pairs) if pairs else []
    names = pool.names
    return ends, tuple(
        Barrier(names[i], names[j], (ends[i], ends[j]), middle) for (i, j), middle in zip(pairs, middles, strict=True)
    )
