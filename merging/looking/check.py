"""``merge check``: everything a run would use, opened and looked at before any work; all mistakes, not the first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from merging.errors import MergingError, Stopped, StopReason
from merging.evaluation.chance import against_chance
from merging.forward.fitting import check_fits
from merging.looking.absent import absent, disagreements, numbers, rest, told
from merging.looking.estimate import Cost, estimate, forward
from merging.looking.geometry import kinship
from merging.looking.sets import CheckedSet, look_at
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.naming import Meant, meant
from merging.plugins.progress import Progress
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task, built, own_pool
from merging.plugins.watcher import Watcher
from merging.running.cache import as_told
from merging.running.given import Parts
from merging.running.leaks import Shared, sets_of
from merging.running.plan import Plan, plan
from merging.running.settings import Settings, Vocabularies
from merging.storage.agreement import check_agreement, kinds
from merging.storage.checkpoint import Checkpoint, stem
from merging.storage.class_order import agree_on_classes, names_classes
from merging.storage.factors import factor_faults
from merging.storage.ingredients import checked, is_model, things_in
from merging.storage.pool import ModelPool
from merging.storage.sources import divided, identity, natural_key, place_of, selected, short_names
from merging.values.shown import Sheet, Shown, grid
from merging.values.wording import plural

if TYPE_CHECKING:
    from torch import nn

    from merging.storage.hub.ahead import Ahead
    from merging.storage.ingredients import Model, Models

STRANGER = 0.3
"""Cosine of weights below which two models hardly share a pretrained model; fine-tuning leaves it near 1."""


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """One checkpoint, as it was found: tensors, dtypes, content hash, and what is wrong with it.

    Attributes:
        name: its name in reports.
        path: file or folder.
        tensors: how many.
        parameters: numbers in them.
        dtypes: dtypes of its tensors.
        hash: content hash; None where it could not be read to the end.
        error: what is wrong with it.
        adapter: kind and rank of an adapter; empty of a full model.
    """

    name: str
    path: str
    tensors: int = 0
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    hash: str | None = None
    error: str | None = None
    adapter: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Checked(Shown):
    """All that was found of a pool and a task; ``errors`` would make a run fail, ``warnings`` would not.

    Attributes:
        models: the pool's checkpoints, in its order.
        base: what they were fine-tuned from, where it was named.
        sets: sets of the task.
        shared: contents in more than one set.
        outputs: number of the model's outputs, where it could be run.
        cost: cost of the run, where nothing is wrong.
        task: the task with its data, for pictures.
    """

    models: tuple[CheckedModel, ...]
    base: CheckedModel | None
    sets: tuple[CheckedSet, ...]
    shared: tuple[Shared, ...]
    outputs: int | None
    cost: Cost | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    task: Task | None = field(repr=False, default=None)

    def _sheet(self) -> Sheet:
        found = "everything fits" if not self.errors else plural(len(self.errors), "error")
        facts = (plural(len(self.models), "model"), plural(len(self.sets), "set"), found)
        warned = plural(len(self.warnings), "warning") if self.warnings else ""
        cost = "" if self.cost is None else _lasting(self.cost.minutes)
        if self.cost is not None and self.cost.known:
            cost += f", {self.cost.known} of {plural(self.cost.scores, 'score')} known"
        rows = [[model.name, model.tensors, model.parameters, model.error or ""] for model in self.models]
        return Sheet(
            name="Checked",
            facts=(*facts, warned, cost),
            lines=(*self.errors, *self.warnings),
            grids=(grid(("model", "tensors", "parameters", ""), rows),),
        )

    def to_json(self) -> dict[str, Any]:
        """Gives everything but the task as JSON-ready values."""
        return {
            "models": [asdict(model) for model in self.models],
            "base": asdict(self.base) if self.base else None,
            "sets": [asdict(each) for each in self.sets],
            "shared": [asdict(each) for each in self.shared],
            "outputs": self.outputs,
            "cost": asdict(self.cost) if self.cost else None,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }


@by_keyword(Parts, Settings, Watcher)
@as_told
def check(
    models: ModelPool | Models,
    strategy: Meant[MixStrategy],
    *,
    errors: Sequence[str] = (),
    parts: Parts = Parts(),
    settings: Settings = Settings(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Checked:
    """Opens every checkpoint and every split, scores a few samples of one model, and estimates the run.

    Args:
        models: a pool, or what :meth:`ModelPool.open` makes one from; an empty list: the task's own pool.
        strategy: strategy of the run, an object, its class or its name.
        errors: what is known to be wrong already; nothing is estimated then.
        parts: task and base, where there are any; partitioner, objective, optimizer.
        settings: what the run would be told.
        watcher: who is told, and is asked between files and sets.
        keywords: fields of these values by their own names, instead.

    Returns:
        All that was found: models, sets, cost of the run, and sentences on what is wrong (``errors``) or doubtful
        (``warnings``).

    Raises:
        MergingError: an argument that is none; what is wrong with models and data is no error, but is listed.
        Stopped: ``should_stop`` said so.
    """
    parts, settings, watcher = given("check", keywords, parts, settings, watcher)
    expected("errors", errors, (list, tuple), "a list of sentences")
    strategy, base, parts = meant(strategies, strategy), parts.base, replace(parts, base=None)
    progress, should_stop, task = watcher.progress, watcher.should_stop, parts.task
    wrong, warnings = list(errors), list[str]()
    away = absent(models, base)
    if away and not isinstance(models, ModelPool):
        wrong += disagreements(away, models, aligned=settings.vocabulary.tokenizer_source is not None)
        return _without(away, models, base, wrong, (task, watcher))
    found, start, opened = _open(models, base, task, wrong, progress, should_stop)
    module, pool = _fit(opened, found, start, task, wrong, settings.vocabulary)
    _look_for_twins(found, start, pool, warnings)
    if pool is not None:
        warnings += pool.beside
    if pool is not None and not wrong:
        _look_for_strangers(pool, warnings)
    faults = [fault for _, fault in factor_faults(pool.with_base)] if pool else []
    if not settings.rules.as_stored:
        wrong += faults
    ready: Plan | None = None
    if pool is not None and not wrong:
        progress.stage("planning the run")
        try:
            ready = plan(pool, strategy, parts=parts, settings=settings, progress=progress)
            warnings += [note for note in ready.notes if note not in warnings]
        except MergingError as error:
            wrong.append(str(error))
    outputs = _outputs(ready)
    sets, shared = list[CheckedSet](), list[Shared]()
    if task is not None:
        padding = getattr(module, "padding", None)
        sets, shared = look_at(sets_of(task), outputs, padding, wrong, warnings, progress, should_stop)
    cost = None
    if ready is not None and not wrong:
        warnings += _doubts(ready, progress, should_stop)
    if ready is not None and ready.task is not None and not wrong:
        cost = estimate(ready, progress, should_stop)
        if should_stop():
            raise Stopped(StopReason.INTERRUPTED)
    return Checked(
        models=tuple(found),
        base=start,
        sets=tuple(sets),
        shared=tuple(shared),
        outputs=outputs,
        cost=cost,
        errors=tuple(wrong),
        warnings=tuple(warnings),
        task=task,
    )


def _without(away: Sequence[Ahead], models: Models, base: Model | None, wrong: list[str], more: _More) -> Checked:
    """What is known where models would have to be fetched first: their headers, the other models, and the sets."""
    task, watcher = more
    progress, should_stop, warnings = watcher.progress, watcher.should_stop, [told(away)]
    found, start = [_header(model) for model in away], None
    here, stands = rest(models, away), base is None or rest([base], away)
    if here and stands:
        others, start, _ = _open(here, base, task, wrong, progress, should_stop)
        found += others
    sets, shared = list[CheckedSet](), list[Shared]()
    if task is not None:
        sets, shared = look_at(sets_of(task), None, None, wrong, warnings, progress, should_stop)
    return Checked(
        models=tuple(found),
        base=start,
        sets=tuple(sets),
        shared=tuple(shared),
        outputs=None,
        cost=None,
        errors=tuple(wrong),
        warnings=tuple(warnings),
        task=task,
    )


_More: TypeAlias = tuple[Task | None, Watcher]


def _header(model: Ahead) -> CheckedModel:
    """A model of which the headers alone are known."""
    tensors, parameters, dtypes = numbers(model)
    return CheckedModel(name=model.path, path=str(model.pinned), tensors=tensors, parameters=parameters, dtypes=dtypes)


def _open(
    models: ModelPool | Models,
    base: Model | None,
    task: Task | None,
    wrong: list[str],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> tuple[list[CheckedModel], CheckedModel | None, dict[str, Checkpoint]]:
    """Every file, read to its end: names, shapes, NaN and infinite values."""
    own: ModelPool | None = None
    if isinstance(models, ModelPool):
        base = models.base if base is None else base
        models = models.checkpoints
    things = [(name, checked(thing, "a model")) for name, thing in things_in(models)]
    first = _start(base, wrong)
    paths: list[tuple[Path, str]] = []
    wanted: list[tuple[str, _Where]] = []
    for number, (name, source) in enumerate(things):
        try:
            if is_model(source):
                made = source if isinstance(source, Checkpoint) else Checkpoint.of(source, name or f"model_{number}")
                wanted.append((made.name, made))
                continue
            more = selected([source], [] if first is None or isinstance(first, Checkpoint) else [first[0]])
        except MergingError as error:
            wrong.append(str(error))
        else:
            there = {(identity(path), key) for path, key in paths}
            paths += [(path, key) for path, key in more if (identity(path), key) not in there]
    names = short_names([path for path, _ in paths]) if paths else []
    wanted += zip(names, paths, strict=True)
    if not things and task is not None and task.pool is not None:
        try:
            own = own_pool(task)
        except MergingError as error:
            wrong.append(str(error))
        if own is not None:
            wanted = [(checkpoint.name, checkpoint) for checkpoint in own.checkpoints]
    elif not things:
        wrong.append("no models given; name files, folders or patterns with `models`")
    if first is None and own is not None and own.base is not None:
        first = own.base
    progress.stage("reading the checkpoints", len(wanted) + (first is not None))
    opened: dict[str, Checkpoint] = {}
    base = _base(first) if first is not None else None
    found = []
    for name, where in sorted(wanted, key=lambda each: natural_key(each[0])):
        found.append(_read(name, where, opened, wrong, base))
        progress.advance()
        if should_stop():
            raise Stopped(StopReason.INTERRUPTED)
    start = _read("", first, opened, wrong) if first is not None else None
    return found, start, opened


_Where: TypeAlias = Checkpoint | tuple[Path, str]
"""A checkpoint, or the path and key of one that is not opened yet."""


def _start(base: Model | None, wrong: list[str]) -> _Where | None:
    """Where the base lies; None where there is none, or it cannot be had."""
    given = None if base is None else checked(base, "the base")
    try:
        return None if given is None else _lying(given)
    except MergingError as error:
        wrong.append(str(error))
        return None


def _lying(base: Any) -> _Where:
    """The base where it lies, or as it was opened."""
    if is_model(base):
        return base if isinstance(base, Checkpoint) else Checkpoint.of(base, "base")
    path, key = divided(base)
    return place_of(path), key


def _base(where: _Where) -> Checkpoint | None:
    """The base, on which adapters stand; None where it cannot be opened, which is said when its turn comes."""
    try:
        return where if isinstance(where, Checkpoint) else Checkpoint(where[0], "", where[1])
    except MergingError:
        return None


def _read(
    name: str, where: _Where, opened: dict[str, Checkpoint], wrong: list[str], base: Checkpoint | None = None
) -> CheckedModel:
    """A checkpoint's header and, for its hash, every byte; it is opened under its path, an adapter over its base."""
    path = where.path if isinstance(where, Checkpoint) else where[0]
    try:
        checkpoint = where if isinstance(where, Checkpoint) else Checkpoint(path, name, where[1], base)
    except MergingError as error:
        wrong.append(str(error))
        return CheckedModel(name=name or stem(path), path=str(path), error=str(error))
    sizes = [math.prod(shape) for shape, _ in checkpoint.tensors.values()]
    dtypes = tuple(sorted({dtype for _, dtype in checkpoint.tensors.values()}))
    found = CheckedModel(
        name=checkpoint.name,
        path=str(path),
        tensors=len(sizes),
        parameters=sum(sizes),
        dtypes=dtypes,
        adapter="" if checkpoint.adapted is None else checkpoint.adapted.label,
    )
    try:
        digest = checkpoint.hash
    except MergingError as error:
        wrong.append(str(error))
        return replace(found, error=str(error))
    opened[str(path)] = checkpoint
    return replace(found, hash=digest)


def _fit(
    opened: Mapping[str, Checkpoint],
    found: list[CheckedModel],
    start: CheckedModel | None,
    task: Task | None,
    wrong: list[str],
    vocabulary: Vocabularies,
) -> tuple[nn.Module | None, ModelPool | None]:
    """The task's model for them, and those that agree with most of the others as a pool."""
    whole = [opened[model.path] for model in found if model.path in opened]
    if not whole:
        return None, None
    if vocabulary.tokenizer_source is not None:
        try:
            seen = ModelPool(whole, opened.get(start.path) if start is not None else None, **vocabulary.options())
        except MergingError as error:
            wrong.append(str(error))
            return None, None
        return _module(task, seen, wrong), seen
    usual = Counter(map(kinds, whole)).most_common(1)[0][0]
    agree = [checkpoint for checkpoint in whole if kinds(checkpoint) == usual]
    first = agree[0]
    for number, model in enumerate(found):
        checkpoint = opened.get(model.path)
        if checkpoint is not None and checkpoint not in agree:
            found[number] = _disagrees(model, checkpoint, first, wrong)
    agree = _of_one_order(agree, opened, found, wrong)
    base = opened.get(start.path) if start is not None else None
    try:
        pool = ModelPool(agree, base)
    except MergingError as error:  # they agree with one another: it is the base
        wrong.append(str(error))
        try:
            pool = ModelPool(agree)
        except MergingError as error:
            wrong.append(str(error))
            return None, None
    return _module(task, pool, wrong), pool


def _module(task: Task | None, pool: ModelPool, wrong: list[str]) -> nn.Module | None:
    """The task's model for a pool; None where there is none, or it does not fit."""
    if task is None:
        return None
    try:
        module = built(task, pool)
        check_fits(module, pool)
    except MergingError as error:
        wrong.append(str(error))
        return None
    return module


def _disagrees(model: CheckedModel, checkpoint: Checkpoint, first: Checkpoint, wrong: list[str]) -> CheckedModel:
    try:
        check_agreement(first, checkpoint)
        error = f"{checkpoint.path} does not fit {first.path}"
    except MergingError as found:
        error = str(found)
    wrong.append(error)
    return CheckedModel(**{**asdict(model), "error": error})


def _of_one_order(
    agree: list[Checkpoint], opened: Mapping[str, Checkpoint], found: list[CheckedModel], wrong: list[str]
) -> list[Checkpoint]:
    """The models whose classes stand in the order of the first that names them."""
    first = next((checkpoint for checkpoint in agree if names_classes(checkpoint)), agree[0])
    kept = []
    for checkpoint in agree:
        try:
            agree_on_classes({"first": first, "other": checkpoint})
            kept.append(checkpoint)
        except MergingError as error:
            wrong.append(str(error))
            number = next(n for n, model in enumerate(found) if opened.get(model.path) is checkpoint)
            found[number] = replace(found[number], error=str(error))
    return kept


def _look_for_twins(
    found: Sequence[CheckedModel], start: CheckedModel | None, pool: ModelPool | None, warnings: list[str]
) -> None:
    groups: dict[str, list[str]] = {}
    for model in found:
        if model.hash is not None:
            groups.setdefault(model.hash, []).append(model.name)
    warnings += [f"{', '.join(names)} hold the same weights" for names in groups.values() if len(names) > 1]
    if start is not None and start.hash in groups:
        warnings.append(f"{', '.join(groups[start.hash])} and the base hold the same weights")
    elif pool is not None:
        warnings += [
            f"{name} differs from the base in {differ} of {len(pool.mixable)} tensors; is it a linear probe?"
            for name, differ in pool.untuned.items()
        ]


def _look_for_strangers(pool: ModelPool, warnings: list[str]) -> None:
    """Models whose weights have nothing to do with the others': they do not come from the same pretrained model."""
    cosines = kinship(pool)
    names = [*pool.names, *(["the base"] if pool.base is not None else [])]
    for number, name in enumerate(names):
        others = [cosines[number, k] for k in range(len(pool)) if k != number]
        if others and (closest := max(others)) < STRANGER:
            warnings.append(
                f"{name} has nothing in common with the other models (cosine of the weights at most {closest:.2f}): "
                "from another pretrained model? mixes with it will be worthless"
            )


def _doubts(ready: Plan, progress: Progress, should_stop: Callable[[], bool]) -> list[str]:
    """Whether a model is no better than a guess, on a few samples."""
    if ready.live is None or ready.task is None or ready.numerics is None:
        return []
    numerics = ready.numerics
    with numerics.applied():
        found = against_chance(
            ready.live, ready.task, ready.objective, numerics, ready.settings.search.seed, progress, should_stop
        )
    return [] if found is None else [found]


def _outputs(ready: Plan | None) -> int | None:
    """Of the model, if it runs."""
    if ready is None or ready.live is None or ready.task is None or ready.numerics is None:
        return None
    with ready.numerics.applied():
        return forward(ready.live, ready.numerics, ready.task, ready.task.held_out.inputs[:2])


def _lasting(minutes: float) -> str:
    return f"about {minutes:.2g} minutes" if minutes >= 1 else "less than a minute"
