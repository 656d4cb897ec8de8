"""What ``lm_eval --log_samples`` writes: a file of results, and beside it a file of samples for each task.

``OUT/MODEL/results_DATE.json`` has scores, versions and settings; ``samples_TASK_DATE.jsonl`` a line for each sample
and filter (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness, ``loggers/evaluation_tracker.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, MergingError, RequirementError, near_path, raised, showable
from merging.storage.sources import natural_key, short_names
from merging.values.wording import some

DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
RESULTS = re.compile(rf"(?P<stem>.+)_(?P<date>{DATE})\.json")
SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE})\.jsonl")
NONE = "none"
"""Name of the filter of a task that has no other."""
OLDEST = "0.4.13"
"""The oldest version of lm-eval whose files say all that is asked for, and that is run here."""
AGAIN = "run lm_eval again with its samples logged (log_samples)"

Column = tuple[str, str]
"""A metric and a filter, as ``acc`` and ``none``."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Scores of one model on one task, or on a group of tasks.

    Attributes:
        name: the task's name.
        scores: metric and filter → the score that lm-eval has computed.
        lower: metrics of which a smaller score is the better one.
        version: version of the task, as text.
        shots: worked examples before each sample.
        samples: how many there are.
        aggregations: metric → how its scores are computed of samples, where the task's file says it by a name.
        file: its samples; None: they were not logged.
        parts: tasks and groups in a group; none: it is a task.
    """

    name: str
    scores: Mapping[Column, float]
    lower: frozenset[str] = frozenset()
    version: str = ""
    shots: str = ""
    samples: int = 0
    aggregations: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that one run of lm-eval came to.

    Attributes:
        path: the file of results.
        model: the model's name there.
        version: version of lm-eval, where it is said.
        tasks: name → what the model came to, tasks and groups, groups before what is in them.
    """

    path: Path
    model: str
    version: str
    tasks: Mapping[str, TaskResult]

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups."""
        return frozenset(name for name, task in self.tasks.items() if task.parts)

    def scores(self, name: str) -> Mapping[Column, float]:
        """The scores of a task; none where it was not run."""
        return self.tasks[name].scores if name in self.tasks else {}

    def leaves(self, name: str) -> tuple[str, ...]:
        """The tasks that a group stands for; of a task, itself."""
        parts = self.tasks[name].parts if name in self.tasks else ()
        return tuple(dict.fromkeys(leaf for part in parts for leaf in self.leaves(part))) if parts else (name,)


def is_results(path: Path) -> bool:
    """Whether a file or folder holds results of lm-eval, or its folders do."""
    return bool(SAMPLES.fullmatch(path.name)) if path.suffix == ".jsonl" else any(True for _ in _below(path))


def find(paths: Sequence[Path]) -> dict[str, Path]:
    """The files of results in files and folders, each under a short name.

    Args:
        paths: files of results or of samples, and folders that hold one such run, or folders of those.

    Raises:
        MergingError: one holds none, or several of one model.
    """
    found: list[Path] = []
    for path in paths:
        files = _of(path)
        if not files:
            raise MergingError(f"{path}: no results of lm-eval there (results_….json){near_path(path)}")
        twice = [file for file in files if sum(other.parent == file.parent for other in files) > 1]
        if twice:
            raise MergingError(
                f"{twice[0].parent} holds {len(twice)} results of lm-eval; name one of them: "
                + some([file.name for file in twice], 3)
            )
        found += [file for file in files if file not in found]
    shared = [file.parent for file in found]
    names = [file if shared.count(file.parent) > 1 else file.parent for file in found]
    return dict(zip(short_names(names), found, strict=True))


def _of(path: Path) -> list[Path]:
    """The files of results that a path stands for."""
    told = SAMPLES.fullmatch(path.name)
    if told and path.is_file():
        return [
            file
            for file in _below(path.parent)
            if (match := RESULTS.fullmatch(file.name)) and match["date"] == told["date"]
        ]
    if path.is_file():
        return [path]
    return sorted(_below(path), key=lambda file: natural_key(str(file)))


def _below(path: Path) -> Iterator[Path]:
    """The files of results in a folder, or in its folders; of a file, itself."""
    if path.is_file():
        yield from [path] if RESULTS.fullmatch(path.name) else []
        return
    if not path.is_dir():
        return
    own = [entry for entry in path.iterdir() if RESULTS.fullmatch(entry.name) and entry.is_file()]
    yield from own
    if not own:
        for entry in path.iterdir():
            if entry.is_dir() and not entry.name.startswith("."):
                yield from (file for file in entry.iterdir() if RESULTS.fullmatch(file.name) and file.is_file())


def read(path: Path) -> Results:
    """Reads a file of results.

    Raises:
        MergingError: it is none, or is damaged.
        RequirementError: no samples were logged.
    """
    try:
        told = json.loads(path.read_bytes())
        scores, versions, shots = told["results"], told["versions"], told["n-shot"]
        better, counts, configs = told["higher_is_better"], told["n-samples"], told["configs"]
        groups = told.get("group_subtasks", {})
        names = [*_in_order(groups, scores), *(name for name in scores if name not in groups)]
        files = _samples_beside(path)
        tasks = {
            name: TaskResult(
                name=name,
                scores=dict(_scores(scores.get(name, {}))),
                lower=frozenset(metric for metric, up in better.get(name, {}).items() if up is False),
                version=_text(versions.get(name)),
                shots=_text(shots.get(name)),
                samples=int(counts[name]["effective"])
                if name in counts
                else int(scores.get(name, {}).get("sample_len", 0)),
                aggregations=_aggregations(configs.get(name, {})),
                file=files.get(name),
                parts=tuple(map(str, groups.get(name, ()))),
            )
            for name in dict.fromkeys(names)
        }
    except DAMAGED as error:
        raise _refused(path, error) from None
    found = Results(
        path=path, model=_text(told.get("model_name")), version=_text(told.get("lm_eval_version")), tasks=tasks
    )
    if not any(task.file for task in tasks.values()):
        raise RequirementError(f"{path}: no samples were logged beside it (samples_….jsonl); {AGAIN}")
    return found


def _refused(path: Path, error: Exception) -> MergingError:
    """The error for a file that cannot be read: an older version's, or something else."""
    try:
        told = json.loads(path.read_bytes())
    except DAMAGED:
        told = None
    if isinstance(told, dict) and isinstance(told.get("results"), dict) and isinstance(error, KeyError):
        by = f"lm-eval {_text(told.get('lm_eval_version')) or 'of an older version'}"
        return RequirementError(f"{path}: was written by {by}, which says no {error}; {AGAIN} and version {OLDEST}")
    return MergingError(f"{path}: no results of lm-eval, or damaged ({raised(error)})")


def _in_order(groups: Mapping[str, Sequence[str]], scores: Mapping[str, Any]) -> Iterator[str]:
    """The groups and what is in them, each after the group that it is in."""
    inside = {part for parts in groups.values() for part in parts}

    def walk(name: str) -> Iterator[str]:
        if name in scores or name in groups:
            yield name
        for part in groups.get(name, ()):
            yield from walk(part)

    for name in groups:
        if name not in inside:
            yield from walk(name)


def _scores(told: Mapping[str, Any]) -> Iterator[tuple[Column, float]]:
    """Metric and filter → score, without names, counts and standard errors."""
    for key, value in told.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            yield (metric, filtered), float(value)


def _aggregations(config: Mapping[str, Any]) -> dict[str, str]:
    """Metric → name of its aggregation, of those that are said."""
    listed = config.get("metric_list") or []
    return {str(each["metric"]): str(each["aggregation"]) for each in listed if "aggregation" in each}


def _samples_beside(path: Path) -> dict[str, Path]:
    """Task → its file of samples, of the same run."""
    told = RESULTS.fullmatch(path.name)
    found = {}
    for entry in path.parent.iterdir():
        match = SAMPLES.fullmatch(entry.name)
        if match and told and match["date"] == told["date"]:
            found[match["task"]] = entry
    return found


def _text(value: Any) -> str:
    """A version or a number as text: 1, 1.0 and "1.0" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = showable("" if value is None else value)
    return text.removesuffix(".0")
