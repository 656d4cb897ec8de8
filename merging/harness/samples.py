"""The samples of one task, as lm-eval has logged them: which ones they were, and what a model came to on each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, MergingError, RequirementError, raised
from merging.harness.results import AGAIN, NONE, OLDEST, Column, TaskResult

MARKS = {"doc_hash": "documents", "target_hash": "targets", "prompt_hash": "prompts"}
"""Key of a hash that lm-eval logs for each sample → what it is of."""


@dataclass(frozen=True)
class Logged:
    """The samples of one task.

    Attributes:
        hashes: number of a document → its hashes, in the order of :data:`MARKS`; sorted by number.
        values: metric and filter → number of a document → what the metric made of it.
    """

    hashes: Mapping[int, tuple[str, ...]]
    values: Mapping[Column, Mapping[int, Any]]


def read(task: TaskResult) -> Logged:
    """Reads the samples of a task.

    Raises:
        MergingError: the file is damaged or cut off, or is of another run than the results.
        RequirementError: it was written by a version that logs less.
    """
    if task.file is None:
        raise RequirementError(f"{task.name}: no samples were logged; {AGAIN}")
    hashes: dict[int, tuple[str, ...]] = {}
    values: dict[Column, dict[int, Any]] = {}
    seen: dict[str, set[int]] = {}
    for line, told in _lines(task.file):
        where = f"{task.file}, line {line}"
        if lacking := next((key for key in ("metrics", "filter", *MARKS) if key not in told), None):
            raise RequirementError(f"{where}: has no '{lacking}'; {AGAIN} and version {OLDEST} or later")
        try:
            number, filtered = int(told["doc_id"]), str(told["filter"] or NONE)
            own = tuple(str(told[key]) for key in MARKS)
            found = {(str(metric), filtered): told[metric] for metric in told["metrics"]}
        except DAMAGED as error:
            raise MergingError(f"{where}: no sample of lm-eval ({raised(error)})") from None
        if number in seen.setdefault(filtered, set()) or hashes.setdefault(number, own) != own:
            raise MergingError(f"{where}: sample {number} stands there twice, as where two runs wrote to one file")
        seen[filtered].add(number)
        for column, value in found.items():
            values.setdefault(column, {})[number] = value
    short = min((len(numbers) for numbers in seen.values()), default=0)
    if short < task.samples or any(numbers != hashes.keys() for numbers in seen.values()):
        raise MergingError(
            f"{task.file}: holds {short} of the {task.samples} samples that the results count; it is cut off, or of "
            "another run"
        )
    order = sorted(hashes)
    return Logged(
        {number: hashes[number] for number in order},
        {column: {number: of[number] for number in order if number in of} for column, of in values.items()},
    )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line, and what it says."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    told = json.loads(line)
                    if not isinstance(told, dict):
                        raise TypeError(f"a {type(told).__name__}")
                except DAMAGED as error:
                    cut = "cut off" if not line.endswith(b"\n") else "damaged"
                    raise MergingError(f"{path}, line {number}: is {cut} ({raised(error)}); {AGAIN}") from None
                yield number, told
    except OSError as error:
        raise MergingError(f"{path}: cannot be read ({error.strerror})") from None


def other_samples(before: TaskResult, after: TaskResult, old: Logged, new: Logged) -> str:
    """Says why two models cannot be compared sample by sample; empty where they can.

    Args:
        before: the reference's results.
        after: the other's.
        old: the reference's samples.
        new: the other's.
    """
    if before.version != after.version:
        return f"version {after.version} of the task, not {before.version}"
    if before.shots != after.shots:
        return f"{after.shots} examples before each sample, not {before.shots} (few-shot)"
    if old.hashes.keys() != new.hashes.keys():
        if len(old.hashes) != len(new.hashes):
            return f"{len(new.hashes):,} samples, not {len(old.hashes):,} (limit)"
        return "other samples of the task"
    for place, what in enumerate(MARKS.values()):
        number = next((n for n in old.hashes if old.hashes[n][place] != new.hashes[n][place]), None)
        if number is not None:
            why = " (few-shot examples, description or chat template)" if what == "prompts" else ""
            return f"other {what}, such as that of sample {number}{why}"
    return ""
