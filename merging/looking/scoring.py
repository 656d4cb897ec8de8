"""``merging.evaluate``: what one model, merged or not, scores on a task's sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import MergingError, unknown
from merging.evaluation.chance import unnamed
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.evaluation.steps import Steps
from merging.evaluation.usual import usual_objective
from merging.forward.fitting import check_fits, probe
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.looking.estimate import forward
from merging.looking.opened import open_model
from merging.partitioners.whole import Whole
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.naming import Meant, meant_or_none
from merging.plugins.objective import Objective
from merging.plugins.registry import objectives
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, Task, built
from merging.plugins.watcher import Watcher
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.cache import as_told
from merging.running.settings import Settings, all_but
from merging.storage.checkpoint import Checkpoint
from merging.storage.class_names import Model, Names
from merging.storage.class_order import agree_on_classes
from merging.storage.ingredients import check_models
from merging.storage.journal import Journal
from merging.storage.model_folder import is_model_folder
from merging.storage.pool import ModelPool
from merging.storage.result import MODELS
from merging.storage.sources import place_of
from merging.storage.token_maps import known_map
from merging.tasks.meant import task_of
from merging.values.outcome import Outcome
from merging.values.partition import TensorInfo
from merging.values.recipe import Merge
from merging.values.wording import shown

if TYPE_CHECKING:
    from torch import nn

    from merging.running.applying import Applied
    from merging.running.run import Result
    from merging.running.saved import SavedRun
    from merging.storage.in_memory import InMemory
    from merging.storage.ingredients import Models
    from merging.tasks.meant import TaskLike

OTHERS = all_but("device", "threads", "remember", "verify")
"""Settings that decide no score of record."""


@by_keyword(Settings, Watcher, without=OTHERS)
@as_told
def evaluate(
    model: Checkpoint | Path | str | Result | SavedRun | Applied | InMemory,
    task: TaskLike,
    *,
    splits: Sequence[str] = (),
    objective: Meant[Objective] | Meant[WholeModelObjective] | None = None,
    models: ModelPool | Models = (),
    settings: Settings = Settings(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> dict[str, Outcome]:
    """Scores a checkpoint, a recipe or a run's result; nothing is written.

    Args:
        model: a checkpoint; a ``recipe.json``, which is rebuilt first; a run's folder (its model file); or a module or
            state dict in memory; or the result of a merge.
        task: the architecture and the data; a task, or its name.
        splits: which sets; default: the held-out data and every test set.
        objective: what the score is, an object or its name; default: top-1 accuracy.
        models: what holds a recipe's ingredients, as a pool takes it; default: the files it was made from.
        settings: device and threads of passes; a score of record is in fp32, whatever a search is told.
        watcher: who is told, and is asked between batches.
        keywords: fields of these values by their own names, instead.

    Returns:
        Set → outcome. Two of them on one task can be paired: :func:`merging.values.statistics.compare`.

    Raises:
        MergingError: no such model or set, or a model that the task's architecture cannot take.
        Stopped: ``should_stop`` said so.
    """
    settings, watcher = given("evaluate", keywords, settings, watcher, without=OTHERS)
    progress = watcher.progress
    task = task_of(task, progress)
    scored = meant_or_none(objectives, objective) or usual_objective(task)
    names = check_splits(task, splits)
    check_models(models)
    progress.stage(f"opening {model.name if isinstance(model, Checkpoint) else shown(model)}")
    opened = open_model(model, models)
    scorer = Scorer(task, scored, settings, watcher)
    merged = opened.merge()
    scorer.fitted(opened.pool)
    return scorer.score(opened.pool, merged, names, stage="scoring")


class Scorer:
    """Scores one model after the other on a task's sets; a module is built once for models of the same shapes.

    Args:
        task: the architecture and the data.
        objective: what the score is.
        settings: device and threads of passes.
        watcher: who is told, and is asked between batches.

    Attributes:
        known: how many scores other commands had measured, of models that were scored as part of a larger piece.
    """

    def __init__(
        self, task: Task, objective: Objective | WholeModelObjective, settings: Settings, watcher: Watcher
    ) -> None:
        self.task, self.objective, self.watcher = task, objective, watcher
        self._passes = settings.passes
        self._modules: dict[tuple[frozenset[tuple[str, TensorInfo]], Set[Any]], nn.Module] = {}
        self._said: set[str] = set()
        self.known = 0

    def fitted(self, pool: ModelPool) -> nn.Module:
        """The task's module for the shapes of a pool, which it fits.

        Raises:
            MergingError: it does not.
        """
        shapes = frozenset(pool.tensors.items()), self._vocabularies(pool)
        if shapes not in self._modules:
            module = built(self.task, pool)
            check_fits(module, pool)
            self._modules[shapes] = module
        return self._modules[shapes]

    def _vocabularies(self, pool: ModelPool) -> Set[Any]:
        """The tokens that models of language have rows for: a source may refuse others of the same shapes."""
        if not isinstance(self.task.held_out.inputs, Sequences):
            return frozenset()
        known = [known_map(model) for model in pool.checkpoints]
        return frozenset(frozenset(each.ids.items()) for each in known if each is not None)

    def check(self, pool: ModelPool, wrong: list[str]) -> None:
        """Builds the module for a pool, or adds to ``wrong`` why it does not fit."""
        try:
            self.fitted(pool)
        except MergingError as error:
            wrong.append(str(error))

    def score(self, pool: ModelPool, merged: Merge, names: Sequence[str], stage: str = "") -> dict[str, Outcome]:
        """A model's outcomes of record.

        Args:
            pool: the checkpoints that it can be read from.
            merged: the model.
            names: the sets; the progress advances by each.
            stage: begins a piece of work of this name; empty: the model is part of a larger one.

        Raises:
            Stopped: ``should_stop`` said so.
        """
        task, module, passes = self.task, self.fitted(pool), self._passes
        numerics = Numerics.choose(passes.device, module, task.held_out.inputs[0], "fp32", threads=passes.threads)
        found = {}
        with numerics.applied():
            probe(module, task, numerics)
            live = LiveModel(module, pool, Whole().split(pool.tensors), numerics.device, numerics.layout)
            ledger = Ledger(Journal(None), should_stop=self.watcher.should_stop)
            evaluator = Evaluator.over(live, task, self.objective, numerics, ledger)
            said = unnamed(task, forward(live, numerics, task, task.held_out.inputs[:2]))
            if said is not None and said not in self._said:
                self._said.add(said)
                self.watcher.progress.say(f"warning: {said}")
            memory = evaluator.remembered
            if stage:
                steps = Steps(evaluator, self.watcher.progress, stage, [merged], names, record=True)
            elif memory is not None:
                self.known += sum(memory.knows(merged, name, record=True) for name in names)
            for name in names:
                found[name] = evaluator.record(merged, name)
                steps.done() if stage else self.watcher.progress.advance()
        return found


def same_classes(models: Mapping[str, Any]) -> tuple[str, ...]:
    """Compares the classes of models that are to be scored on the same labels, where their files say them.

    Args:
        models: name → what :func:`evaluate` takes.

    Returns:
        What is to be said of them.

    Raises:
        PoolError: two have other classes, or the same ones in another order.
        CheckpointError: one is none.
    """
    return agree_on_classes({name: _place(model) for name, model in models.items()})


@dataclass(frozen=True)
class _Place:
    """A recipe's or an ensemble's folder: what lies there says the classes, too."""

    path: Path
    files: tuple[Path, ...] = ()
    classes: Mapping[str, Names] = field(default_factory=dict)

    @property
    def home(self) -> _Place:
        """What lies there says it."""
        return self


def _place(model: Checkpoint | Path | str | InMemory) -> Model:
    if isinstance(model, Checkpoint):
        return model
    if not isinstance(model, str | os.PathLike):
        return _Place(Path())  # in memory, where nothing lies beside
    path = place_of(model)
    written = [path / name for name in MODELS.values() if (path / name).is_file()]
    is_one = path.suffix != ".json" and (path.is_file() or written or is_model_folder(path))
    return Checkpoint((*written, path)[0]) if is_one else _Place(path)


def check_splits(task: Task, wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of a task's sets that are asked for; all that score when none is.

    Raises:
        UnknownNameError: the task has no such set.
    """
    scored = (HELD_OUT, *task.tests)
    known = (*scored, *(["train"] if task.train is not None else []))
    expected("splits", wanted, (list, tuple, Set), f"a list of names of sets: {', '.join(known)}")
    for name in wanted:
        expected("an entry of splits", name, str, "the name of a set")
        if name not in known:
            raise unknown(f"set of task '{task.name}':", name, known)
    return tuple(dict.fromkeys(wanted)) or scored
