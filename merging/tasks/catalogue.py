"""Registered tasks by name, and tasks made by a user's own function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import TaskError, nearest
from merging.plugins.bar import taken_away
from merging.plugins.discovery import load_installed
from merging.plugins.functions import parameters_of
from merging.plugins.options import UNSET
from merging.plugins.progress import Progress
from merging.plugins.registry import tasks
from merging.plugins.task import Task
from merging.plugins.user_code import PluginError, called, import_object
from merging.plugins.watcher import UNSAID, Watcher

if TYPE_CHECKING:
    from merging.tasks.meant import TaskLike

DEFAULT = "digits"


@taken_away()
def load_task(
    name: TaskLike, progress: Progress | bool | None = UNSAID, *, trust_code: bool = False, **described: Any
) -> Task:
    """Makes a task by its registered name, by ``python:module:function``, or from the [task] of a merge.toml.

    Args:
        name: name of the task; ``python:module:function``, a function that returns a :class:`Task`; the path of a
            merge.toml; or a table like its [task].
        progress: told how far decoding is, where the task can say so; True: a bar, False: nobody, by default a bar in
            notebooks.
        trust_code: whether a merge.toml may run the code that it names (``python:…``).
        described: what a registered task takes, such as ``data`` and ``model`` of ``imagenet-shifts``.

    Raises:
        UnknownNameError: nobody registered that name.
        TaskError: the function fails or returns something else, or a value that the task does not take.
    """
    told = Watcher.told(progress)
    if not described or not isinstance(name, str):
        from merging.tasks.meant import task_of  # which makes registered ones by this module

        if described:
            raise TaskError(f"{', '.join(described)} {'is' if len(described) == 1 else 'are'} for a registered task")
        return task_of(name, told, trust_code=trust_code)
    return named_task(name, described, told)


def named_task(name: str, described: Mapping[str, Any], progress: Progress | None = None) -> Task:
    """Makes a task as :func:`load_task` does, its options given as a mapping: its parameters may have any names.

    Args:
        name: a registered task, or ``python:module:function``.
        described: option → value, for the task's parameters.
        progress: told what happens, where the task takes it.

    Raises:
        PluginError: a registered task fails; one line with its name, the error, its file and line.
        TaskError: a function of the user's own fails, or no :class:`merging.Task` is returned.
    """
    if name.startswith("python:"):
        make, given = import_object(name), dict[str, Any]()
    else:
        load_installed()
        make = tasks[name]
        given = _given(name, described)
        if progress is not None and "progress" in inspect.signature(make).parameters:
            given["progress"] = progress
    error = TaskError if name.startswith("python:") else PluginError
    return called(f"task '{name}'", functools.partial(make, **given), Task, "a merging.Task", error=error)


def sets_of(task: str | Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the sets that a task may have, before its data are read; None where only the data tell.

    Args:
        task: name of a registered task, ``python:module:function``, or a [task] table.
    """
    if isinstance(task, Mapping) and not task.get("name"):
        parts = {"held-out": "held_out", "test": "test", "train": "train"}
        own = [name for name, key in parts.items() if task.get(key)]
        return (*own, *task.get("shifts", {}))
    name = str(task["name"] if isinstance(task, Mapping) else task)
    if name.startswith("python:"):
        return None
    load_installed()
    stated = getattr(tasks[name], "sets", None)
    return None if stated is None else (*stated, "train")  # most have training data; those without say so once loaded


def place_of_option(table: Mapping[str, Any], key: str, known: Iterable[str]) -> str:
    """Says where a key that [task] itself does not have belongs; empty where no option of its task is called nearly so.

    Args:
        table: the [task] table.
        key: the unknown one.
        known: the keys of [task]; where one of them is near, it is meant.
    """
    load_installed()
    name = table.get("name")
    if not isinstance(name, str) or name not in tasks or nearest(key, known):
        return ""
    found = nearest(key, (option.name for option in parameters_of(tasks[name])))
    return f"'{found}' is an option of the task '{name}': options = {{ {found} = … }}" if found else ""


def _given(name: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a registered task, checked.

    Raises:
        TaskError: something that it does not take, or nothing where it needs something.
        OptionError: a value of another type.
    """
    takes = {option.name: option for option in parameters_of(tasks[name])}
    for key in described:
        if key not in takes:
            near = nearest(key, takes)
            way = f"did you mean '{near}'?" if near else "leave it out"
            raise TaskError(f"'{key}' means nothing to the task '{name}'; {way}")
    for key, option in takes.items():
        if option.default is UNSET and key not in described:
            raise TaskError(f"the task '{name}' needs {key}")
    return {key: takes[key].check(value, f"option '{key}' of '{name}'") for key, value in described.items()}
