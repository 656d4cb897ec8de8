"""What a task's sets hold: counts, classes without samples, and samples that stand in two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from merging.errors import Stopped, StopReason
from merging.plugins.progress import Progress
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split
from merging.running.leaks import digests, samples_in_common
from merging.storage.dtypes import dtype_name

if TYPE_CHECKING:
    from merging.running.leaks import Shared

UNEVEN = 10
"""A set's largest class is so many times its smallest one before anything is said."""


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """One split, as it was found: samples, classes, and what occurs twice.

    Attributes:
        name: name of the set.
        samples: how many.
        shape: shape of one stored sample.
        dtype: dtype in which it is stored.
        counts: samples of each class, in the order of the set's classes; empty for unlabelled data and for numbers.
            Of questions: how often each choice is the right one.
        missing: classes without a sample.
        twice: samples whose content occurs earlier in the same set.
        labels: ``classes``, ``numbers``, or ``none``; of a language model ``documents``, ``questions``, or ``both``.
        tokens: tokens of all rows; 0 where samples are no rows of tokens.
        scored: tokens of these that are scored.
        choices: choices of the question that has most; 0: there are no questions.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    dtype: str
    counts: tuple[int, ...]
    missing: tuple[int, ...]
    twice: int
    labels: str = "classes"
    tokens: int = 0
    scored: int = 0
    choices: int = 0


def look_at(
    splits: Mapping[str, Split],
    outputs: int | None,
    padding: int | None,
    wrong: list[str],
    warnings: list[str],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> tuple[list[CheckedSet], list[Shared]]:
    """Counts and compares the sets.

    Args:
        splits: name → set.
        outputs: number of the model's outputs, where known; default: as many as the labels need.
        padding: id of the token that fills texts up; None: nothing does.
        wrong: labels that the model does not have are added here.
        warnings: what may be a mistake is added here.
        progress: told how far this is.
        should_stop: asked between sets.

    Raises:
        Stopped: it said so.
    """
    images = [split for split in splits.values() if split.categorical and not isinstance(split.inputs, Sequences)]
    highest = max([int(split.labels.max()) for split in images], default=-1)
    progress.stage("looking at the data", len(splits))
    sets, contents = [], dict[str, dict[bytes, int]]()
    for name, split in splits.items():
        contents[name] = digests(split, padding)
        each = _set(name, split, outputs or highest + 1, len(split) - len(contents[name]))
        sets.append(each)
        # a model of one output meets numbers; of a language model, a question says itself how many choices it has
        counts = split.categorical and outputs != 1 and not isinstance(split.inputs, Sequences)
        if counts and split.classes is None and outputs is not None and int(split.labels.max()) >= outputs:
            wrong.append(f"{name}: label {int(split.labels.max())}, but the model has {outputs} outputs, from 0")
        warnings += _about(each)
        progress.advance()
        if should_stop():
            raise Stopped(StopReason.INTERRUPTED)
    shared = list(samples_in_common(contents))
    warnings += map(str, shared)
    return sets, shared


def _set(name: str, split: Split, outputs: int, twice: int) -> CheckedSet:
    if isinstance(split.inputs, Sequences):
        return _texts(name, split, split.inputs, twice)
    classes = len(split.classes) if split.classes is not None else outputs
    counts: list[int] = []
    if split.categorical and outputs != 1:
        known = split.labels.cpu()[split.labels.cpu() >= 0]
        counts = torch.bincount(known, minlength=classes).tolist() if len(known) else []
    missing = tuple(number for number, count in enumerate(counts) if not count)
    shape = tuple(split.inputs.shape[1:])
    labels = "classes" if counts else "none" if split.categorical and outputs != 1 else "numbers"
    return CheckedSet(
        name=name,
        samples=len(split),
        shape=shape,
        dtype=dtype_name(split.inputs),
        counts=tuple(counts),
        missing=missing,
        twice=twice,
        labels=labels,
    )


def _texts(name: str, split: Split, rows: Sequences, twice: int) -> CheckedSet:
    """Documents, whose labels count tokens, questions, or both; which choice is right says nothing of classes."""
    several = split.labels.ndim == 2
    right = split.labels[:, 0].long() if several else split.labels if split.categorical else None
    counts = [] if right is None else torch.bincount(right[right >= 0], minlength=rows.outputs).tolist()
    return CheckedSet(
        name=name,
        samples=len(split),
        shape=tuple(rows.shape[1:]),
        dtype="int32",
        counts=tuple(counts),
        missing=(),
        twice=twice,
        labels="both" if several else "documents" if right is None else "questions",
        tokens=rows.numel(),
        scored=int(rows.scored.sum()),
        choices=0 if right is None else rows.outputs,
    )


def _about(each: CheckedSet) -> list[str]:
    said = []
    present = [count for count in each.counts if count and each.labels == "classes"]
    if each.choices and max(each.counts) == sum(each.counts) > UNEVEN:
        said.append(f"{each.name}: the right choice is always number {each.counts.index(max(each.counts)) + 1}")
    if each.missing:
        listed = ", ".join(map(str, each.missing[:8])) + (" …" if len(each.missing) > 8 else "")
        said.append(f"{each.name}: no samples of {len(each.missing)} of {len(each.counts)} classes ({listed})")
    if present and max(present) > UNEVEN * min(present):
        said.append(f"{each.name}: the largest class has {max(present)} samples, the smallest {min(present)}")
    if each.twice:
        said.append(f"{each.name}: {each.twice} samples occur more than once")
    return said
