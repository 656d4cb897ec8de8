"""Registered tasks by name, and tasks made by a user's own function."""

from __future__ import annotations

import inspect
from typing import Any

from merging.errors import TaskError, raised
from merging.plugins.progress import Progress
from merging.plugins.registry import tasks
from merging.plugins.task import Task
from merging.plugins.user_code import ExitedError, contained, import_object

DEFAULT = "digits"


@tasks.register("imagenet-shifts")
def _imagenet_shifts(
    data: str | None = None,
    model: str = "open_clip:ViT-B-32-quickgelu",
    held_out: str | None = None,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    from merging.tasks.imagenet import imagenet_shifts

    return imagenet_shifts(data, model, held_out, corrupt=corrupt, progress=progress)


@tasks.register("pacs")
def _pacs(
    data: str | None = None,
    model: str = "torchvision:squeezenet1_1",
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    from merging.tasks.pacs import pacs

    return pacs(data, model, corrupt=corrupt, progress=progress)


@tasks.register("cifar10-shifts")
def _cifar10_shifts(
    data: str | None = None,
    model: str | None = None,
    size: int | None = None,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    from merging.tasks.cifar10 import cifar10_shifts

    return cifar10_shifts(data, model, size, corrupt=corrupt, progress=progress)


@tasks.register("digits")
def _digits() -> Task:
    from merging.tasks.digits import digits

    return digits()


def load_task(name: str, progress: Progress | None = None, **described: Any) -> Task:
    """A task by its registered name, or from ``python:module:function`` (a function that returns a :class:`Task`).

    Args:
        name: of the task.
        progress: told how far decoding is, where the task can say so.
        described: what a registered task takes, such as ``data`` and ``model`` of ``imagenet-shifts``.

    Raises:
        UnknownNameError: nobody registered that name.
        TaskError: the function fails or returns something else, or a value that the task does not take.
    """
    if not name.startswith("python:"):
        make = tasks[name]
        takes = inspect.signature(make).parameters
        for key in described:
            if key not in takes:
                raise TaskError(f"[task] '{key}' means nothing to the task '{name}'; leave it out")
        return make(**described, **({"progress": progress} if "progress" in takes else {}))
    try:
        function = import_object(name)
        with contained():
            task = function()
    except (TaskError, ExitedError):
        raise
    except Exception as error:  # the user's function may raise anything
        raise TaskError(f"'{name}' failed: {raised(error, whole=True)}") from error
    if not isinstance(task, Task):
        raise TaskError(f"'{name}' returned {type(task).__name__}, not a merging.Task")
    return task
