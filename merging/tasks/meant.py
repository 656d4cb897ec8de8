"""Tasks where objects are taken: ``task="digits"``, ``"merge.toml"``, ``"python:module:function"`` or a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pydantic

from merging.errors import TaskError, unknown
from merging.plugins.discovery import load_installed
from merging.plugins.keywords import expected
from merging.plugins.options import first_fault
from merging.plugins.registry import tasks
from merging.plugins.task import Task
from merging.plugins.user_code import kind_of
from merging.plugins.watcher import Watcher
from merging.storage.toml import read_toml
from merging.tasks.catalogue import named_task, place_of_option

if TYPE_CHECKING:
    from merging.plugins.progress import Progress

    TaskLike: TypeAlias = Task | str | os.PathLike[str] | Mapping[str, Any]
    """A task; its registered name, or ``python:module:function``; the path of a merge.toml; a table like its [task]."""

TOML = "merge.toml"
WAY = "give a Task, such as merging.task(…), its name ('digits'), or the path of a merge.toml"


def task_of(value: TaskLike, progress: Progress | None = None, *, trust_code: bool = False) -> Task:
    """The task that a caller means.

    Args:
        value: a task, which is taken as it is; a registered name; ``python:module:function``; the path of a merge.toml
            (or of the folder that holds it), whose [task] is taken; or such a table as a mapping.
        progress: told how far reading is.
        trust_code: whether a merge.toml may run the code that it names (``python:…``).

    Raises:
        UnknownNameError: nobody registered that name; the nearest is named.
        TaskError: it is something else, or what it describes is not there.
    """
    progress = None if progress is None else Watcher(progress=progress).progress
    expected("trust_code", trust_code, bool, "True or False")
    if isinstance(value, Task):
        return value
    if isinstance(value, Mapping):
        return _described(value, Path.cwd(), "the table of a task", progress)
    if isinstance(value, str | os.PathLike):
        path = Path(value).expanduser()
        if isinstance(value, str) and not value.endswith(".toml") and not (path / TOML).is_file():
            if not value.startswith("python:"):
                load_installed()
                if value not in tasks:
                    raise unknown("task", value, tasks, "or give the path of a merge.toml, or a Task")
            return named_task(value, {}, progress)
        return _in_file(path / TOML if path.is_dir() else path, progress, trust_code=trust_code)
    raise _no_task(value)


def _no_task(value: object) -> TaskError:
    """The error for what is none; a function that makes one is to be called."""
    call = callable(value) and not isinstance(value, type)
    return TaskError(f"`task` is {kind_of(value)}; {'call it, and give what it returns' if call else WAY}")


def _in_file(path: Path, progress: Progress | None, *, trust_code: bool) -> Task:
    """The [task] of a merge.toml.

    Raises:
        TaskError: there is none, or it wants to run code.
    """
    from merging.tasks.table import code_in

    table = read_toml(path, error=TaskError).get("task")
    if not isinstance(table, Mapping) or not table:
        raise TaskError(f"{path} has no [task]; {WAY}")
    code = code_in(table)
    if code and not trust_code:
        raise TaskError(
            f"{path} wants to run code ({code[0]}); read it, then give merging.load_task({path.name!r}, "
            "trust_code=True)"
        )
    if code and str(path.absolute().parent) not in sys.path:
        sys.path.append(str(path.absolute().parent))  # last: it shadows nothing
    return _described(table, path.absolute().parent, f"[task] of {path}", progress)


def _described(given: Mapping[str, Any], folder: Path, where: str, progress: Progress | None) -> Task:
    """Makes a task of a table, checked key by key.

    Raises:
        TaskError: an unknown key, or a value of the wrong type.
    """
    from merging.tasks.described import described_task
    from merging.tasks.table import TaskTable, from_anywhere

    try:
        checked = TaskTable.model_validate(dict(given))
    except pydantic.ValidationError as error:
        first = first_fault(error)
        if first.kind == "extra_forbidden" and len(first.place) == 1:
            if way := place_of_option(given, first.place[0], TaskTable.model_fields):
                raise TaskError(f"unknown key in {where}: '{first.place[0]}'; {way}") from None
            raise unknown(f"key in {where}:", first.place[0], TaskTable.model_fields, error=TaskError) from None
        raise TaskError(f"{where}: {'.'.join(first.place)}: {first.words}") from None
    table = from_anywhere(checked.model_dump(exclude_defaults=True, exclude_none=True), folder)
    if not table.get("name") and not (table.get("model") and table.get("held_out")):
        raise TaskError(f"{where} needs a name, or a model and held_out data")
    return described_task(table, progress)
