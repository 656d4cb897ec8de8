"""The tasks that somebody names: of lm-eval's own, of a folder of task files, or a file; checked before any work."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merging.errors import RequirementError, TaskError, near_path, raised, unknown
from merging.harness import consent
from merging.harness.network import REFUSED
from merging.harness.results import OLDEST
from merging.models.extras import needed

EXTRA = "lm-eval"
GROUP, TAG = "GROUP", "TAG"
OFFLINE = (REFUSED, "offline", "Offline", "Couldn't reach", "couldn't find any data", "Couldn't find")
"""Words of libraries that would have fetched something."""


def library() -> None:
    """Sees to it that lm-eval is there, and not too old.

    Raises:
        TaskError: it is not installed.
        RequirementError: it is too old.
    """
    needed("lm_eval", "tasks of lm-eval need lm_eval", EXTRA)
    from packaging.version import Version

    if Version(found := version("lm_eval")) < Version(OLDEST):
        raise RequirementError(
            f"lm-eval {found} is older than {OLDEST}; install it with: pip install -U 'merging[{EXTRA}]'"
        )
    for package in ("accelerate", "peft"):
        needed(package, "models of lm-eval's kind 'hf' need accelerate and peft", EXTRA)


@dataclass(frozen=True)
class Chosen:
    """Tasks that were found.

    Attributes:
        names: their names, as lm-eval takes them.
        manager: lm-eval's own index of task files.
    """

    names: tuple[str, ...]
    manager: Any

    def load(self, *, online: bool = False) -> dict[str, Any]:
        """Loads the tasks with their data, as lm-eval does.

        Args:
            online: data may be fetched.

        Raises:
            TaskError: a file says something that lm-eval does not take, or its data cannot be had.
        """
        found: dict[str, Any] = {}
        try:
            found = self.manager.load(list(self.names))
        except Exception as error:  # libraries raise whatever a file provokes
            raise TaskError(self._refused(error, online=online)) from None
        return found

    def _refused(self, error: Exception, *, online: bool) -> str:
        """Says which task cannot be had, and which data would have been fetched."""
        said = raised(error, whole=True)
        if "Duplicate task" in said:
            return f"{said.partition(': ')[2]}; name the group or the task"
        name, place = self._faulty()
        if not online and any(word in said for word in OFFLINE):
            return f"the data of {name} ({place}) are not on this disk, and nothing is fetched; `online` fetches them"
        return f"{name}: lm-eval cannot open this task: {said[:200]}"

    def _faulty(self) -> tuple[str, str]:
        """The first task that cannot be loaded alone, and the place of its data."""
        reached = _reached(self.names, self.manager.task_index)
        alone = [(name, entry) for name, entry in reached if entry.kind.name not in (GROUP, TAG)]
        for name, entry in alone:
            try:
                if len(alone) > 1:
                    self.manager.load([name])
            except Exception:
                return name, str((entry.cfg or {}).get("dataset_path"))
        if len(alone) == 1:
            return alone[0][0], str((alone[0][1].cfg or {}).get("dataset_path"))
        return ", ".join(self.names)[:80], "its data"


def chosen(wanted: Sequence[str], include: Sequence[Path] = (), *, trusted: bool = False) -> Chosen:
    """Finds tasks by name; lm-eval's own are indexed only where they are needed, which takes seconds.

    Args:
        wanted: names of tasks, groups and tags, patterns of those, and paths of task files.
        include: folders of task files, which go before lm-eval's own.
        trusted: task files may run code.

    Raises:
        MergingError: no such task or folder, or a file runs code and is not trusted.
    """
    library()
    import lm_eval.api.metrics  # fills the registry of metrics
    from lm_eval.api.registry import metric_registry
    from lm_eval.tasks import TaskManager

    for folder in include:
        if not folder.is_dir():
            raise TaskError(f"{folder}: no such folder of task files{near_path(folder)}")
    places = [str(folder) for folder in include]
    packaged = Path(lm_eval.tasks.__file__).resolve().parent
    manager = TaskManager(include_path=places, include_defaults=False)
    if not all(_is_known(name, manager.task_index) for name in wanted) or _leads_out(wanted, manager.task_index):
        manager = TaskManager(include_path=places)
    index = manager.task_index
    names = tuple(dict.fromkeys(_found(name, index, include) for name in wanted for name in _meant(name, index)))
    if not trusted:
        files = [Path(name).resolve() for name in names if name not in index]
        files += [entry.yaml_path.resolve() for _, entry in _reached(names, index) if entry.yaml_path is not None]
        for file in dict.fromkeys(files):
            consent.check(file, packaged=packaged, metrics=metric_registry)
    return Chosen(names, manager)


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()


def _is_known(name: str, index: Any) -> bool:
    return _is_file(name) or name in index or bool(fnmatch.filter(index, name))


def _meant(name: str, index: Any) -> list[str]:
    """The names that a pattern stands for; of a name, itself."""
    return [name] if name in index or _is_file(name) else sorted(fnmatch.filter(index, name)) or [name]


def _found(name: str, index: Any, include: Sequence[Path]) -> str:
    """The name, where there is such a task.

    Raises:
        TaskError: there is none; or its file cannot be read.
    """
    if name in index or _is_file(name):
        return name
    if Path(name).suffix in (".yaml", ".yml"):
        raise TaskError(f"{name}: no such task file{near_path(name)}")
    for folder in include:
        for path in sorted(folder.glob("**/*.yaml")):  # lm-eval passes over what it cannot read
            consent.read(path)
    raise unknown("task of lm-eval:", name, index, error=TaskError)


def _children(told: Any) -> Iterator[str]:
    """The names in a group's list of tasks."""
    for each in told if isinstance(told, list) else []:
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            name = each.get("group", each.get("task"))
            if isinstance(name, str) and "dataset_path" not in each:  # else it is defined there
                yield name
            yield from _children(each.get("task"))


def _reached(names: Sequence[str], index: Any) -> Iterator[tuple[str, Any]]:
    """The entries that names lead to, through groups and tags, each once."""
    left, seen = list(reversed(names)), set()
    while left:
        name = left.pop()
        entry = index.get(name)
        if entry is None and _is_file(name):
            told, _ = consent.read(Path(name).resolve())
            left += reversed(list(_children(told.get("task"))))
        if entry is None or name in seen:
            continue
        seen.add(name)
        yield name, entry
        if entry.kind.name == TAG:
            left += sorted(entry.tags, reverse=True)
        elif entry.kind.name == GROUP and entry.cfg:
            left += reversed(list(_children(entry.cfg.get("task"))))


def _leads_out(names: Sequence[str], index: Any) -> bool:
    """Whether a group has tasks that no file of these folders defines, so that they are lm-eval's own."""
    told = [entry.cfg for _, entry in _reached(names, index) if entry.cfg]
    told += [consent.read(Path(name).resolve())[0] for name in names if name not in index and _is_file(name)]
    return any(name not in index for each in told for name in _children(each.get("task")))
