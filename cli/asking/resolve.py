"""From strings to objects: the only place where names become plug-ins, tasks and pools."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from merging.cli.asking.request import code_in, usual_partitioner
from merging.errors import RequirementError
from merging.machine import at_most
from merging.plugins.naming import as_written
from merging.plugins.options import Plugin, build
from merging.plugins.registry import KINDS, strategies

if TYPE_CHECKING:
    from merging.running.given import Parts


def inner(name: str, options: Mapping[str, Any]) -> Plugin:
    """A strategy that is an option of another one, by its name, with its own options and strategies in it."""
    return build(strategies[name], options, inner)


def plugins(request: Mapping[str, Any]) -> dict[str, Any]:
    """The four plug-ins of a request, with their options.

    Raises:
        MergingError: an unknown name or option, or a value out of range.
    """
    from merging.cli.showing.screen import warn
    from merging.plugins.discovery import load_all

    warn(load_all(request["plugin"]))

    made: dict[str, Any] = {}
    for kind, registry in KINDS.items():  # the strategy comes first: it knows what it wants besides
        options = request["options"].get(kind, {})
        if kind == "objective" and request[kind] is None and not options:
            made[kind] = None  # the data choose it
            continue
        name, said = as_written(registry, request[kind] or _default(kind, made["strategy"], request))
        made[kind] = build(registry[name], said | options, inner)
    return made


def _default(kind: str, strategy: Any, request: Mapping[str, Any]) -> str:
    """Name of the optimizer, partitioner or objective that is taken where nobody names one."""
    from merging.plugins.strategy import WHOLE, own_optimizer, own_partitioner

    if kind == "objective":
        return "accuracy"
    if kind == "optimizer":
        return own_optimizer(strategy)
    own = own_partitioner(strategy)
    return usual_partitioner(request) if own == WHOLE else own


def parts_of(made: Mapping[str, Any], task: Any) -> Parts:
    """A run's parts: the plug-ins that :func:`plugins` gave but for the strategy, and the task."""
    from merging.running.given import Parts

    return Parts(partitioner=made["partitioner"], objective=made["objective"], optimizer=made["optimizer"], task=task)


def task_and_pool(request: Mapping[str, Any], needs: frozenset[str], progress: Any = None) -> tuple[Any, Any]:
    """The task (or None, where the strategy needs none) and the pool.

    Raises:
        MergingError: no models, no data, or nothing that fits.
    """
    from merging.plugins.task import Task, own_pool
    from merging.storage.pool import ModelPool

    task = cast("Task | None", task_of(request, progress))
    if request["models"]:
        if task is None and needs & {"model", "objective", "train", "gradients"}:
            raise RequirementError(
                f"strategy '{request['strategy']}' evaluates models: give --task, or a merge.toml with a [task] "
                "(merge init writes one); "
                "strategies that only average weights (uniform) need none, where no number is searched for"
            )
        seen = {name: request.get(name) for name in ("tokenizer_source", "pad_to_multiple_of")}
        return task, ModelPool.open(request["models"], request["base"], **seen)
    pool = own_pool(task) if task is not None else None
    if task is None or pool is None:
        raise RequirementError("no models given; name files, folders or patterns with --models")
    if request["base"]:
        from merging.storage.checkpoint import Checkpoint
        from merging.storage.sources import divided, place_of

        path, key = divided(request["base"])
        pool = ModelPool(pool.checkpoints, Checkpoint(place_of(path), key=key))
    return task, pool


def task_of(request: Mapping[str, Any], progress: Any = None) -> Any:
    """The task of a request, or None where it names none.

    Raises:
        MergingError: an unknown task, or data that cannot be read.
    """
    wanted, folder = request["task"], request["folder"]
    if wanted is None:
        return None
    if code_in(wanted) and folder not in sys.path:
        sys.path.append(folder)  # beside merge.toml, or where the run was started; last, so that it shadows nothing
    from merging.plugins.discovery import load_file
    from merging.tasks.catalogue import load_task
    from merging.tasks.described import described_task

    for file in request.get("plugin") or ():  # another process, which trains a model, has not loaded them yet
        load_file(file)
    with at_most(request.get("threads")):  # pictures are decoded side by side
        return load_task(wanted, progress) if isinstance(wanted, str) else described_task(wanted, progress)
