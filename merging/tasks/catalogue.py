"""Registered tasks by name, and tasks made by a user's own function."""

from __future__ import annotations

from collections.abc import Callable

from merging.errors import TaskError
from merging.registry import Registry
from merging.task import Task

tasks: Registry[Callable[[], Task]] = Registry("task", "merging.tasks")
DEFAULT = "digits"


@tasks.register("digits")
def _digits() -> Task:
    from merging.tasks.digits import digits

    return digits()


def load_task(name: str) -> Task:
    """A task by its registered name, or from ``python:module:function`` (a function that returns a :class:`Task`).

    Raises:
        UnknownNameError: nobody registered that name.
        TaskError: the function fails or returns something else.
    """
    if not name.startswith("python:"):
        return tasks[name]()
    from merging.models.catalogue import import_object  # loads torch, which the list of tasks does without

    try:
        task = import_object(name)()
    except TaskError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise TaskError(f"'{name}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise TaskError(f"'{name}' returned {type(task).__name__}, not a merging.Task")
    return task
