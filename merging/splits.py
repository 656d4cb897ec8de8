"""What a task's sets hold: counts, classes without samples, and samples that stand in two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from blake3 import blake3

from merging.errors import Stopped
from merging.plugins.progress import Progress
from merging.plugins.task import HELD_OUT, UNLABELLED, Split, Task

UNEVEN = 10
"""A set's largest class is so many times its smallest one before anything is said."""


@dataclass(frozen=True)
class CheckedSet:
    """A split.

    Attributes:
        name: of the set.
        samples: how many.
        shape: of one stored sample.
        dtype: in which it is stored.
        counts: samples of each class, in the order of the set's classes; empty for unlabelled data.
        missing: classes without a sample.
        twice: samples whose content occurs earlier in the same set.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    dtype: str
    counts: tuple[int, ...]
    missing: tuple[int, ...]
    twice: int


@dataclass(frozen=True)
class Shared:
    """Samples of one set whose content is also in another.

    Attributes:
        first, second: the sets.
        samples: how many of the second's are in the first.
        otherwise: of these, how many have another label there.
    """

    first: str
    second: str
    samples: int
    otherwise: int

    def __str__(self) -> str:
        more = f", {self.otherwise} of them with another label" if self.otherwise else ""
        plural = "samples" if self.samples > 1 else "sample"
        return f"{self.samples} {plural} of {self.second} also in {self.first}{more}: scores there are too high"


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
        outputs: of the model, where known; default: as many as the labels need.
        padding: of texts: what fills them up.
        wrong: labels that the model does not have are added here.
        warnings: what may be a mistake is added here.
        progress: told how far this is.
        should_stop: asked between sets.

    Raises:
        Stopped: it said so.
    """
    highest = max(int(split.labels.max()) for split in splits.values())
    progress.stage("looking at the data", len(splits))
    sets, contents = [], dict[str, dict[bytes, int]]()
    for name, split in splits.items():
        contents[name] = digests(split, padding)
        each = _set(name, split, outputs or highest + 1, len(split) - len(contents[name]))
        sets.append(each)
        if split.classes is None and outputs is not None and int(split.labels.max()) >= outputs:
            wrong.append(f"{name}: label {int(split.labels.max())}, but the model has {outputs} outputs, from 0")
        warnings += _about(each)
        progress.advance()
        if should_stop():
            raise Stopped("interrupted")
    shared = list(_shared(contents))
    warnings += map(str, shared)
    return sets, shared


def leaks(task: Task, module: object = None) -> list[str]:
    """A sentence for each pair of labelled sets that share samples; about a second for a gigabyte.

    Args:
        task: with the sets.
        module: the model; of texts it knows the padding.
    """
    padding = getattr(module, "padding", None)
    sets = {name: split for name, split in sets_of(task).items() if name != UNLABELLED}
    return [str(pair) for pair in _shared({name: digests(split, padding) for name, split in sets.items()})]


def sets_of(task: Task) -> dict[str, Split]:
    """All splits of a task, by name; what is learned from first."""
    first = {"train": task.train, UNLABELLED: task.unlabelled}
    return {
        **{name: split for name, split in first.items() if split is not None},
        HELD_OUT: task.held_out,
        **task.tests,
    }


def _set(name: str, split: Split, outputs: int, twice: int) -> CheckedSet:
    classes = len(split.classes) if split.classes is not None else outputs
    known = split.labels.cpu()[split.labels.cpu() >= 0]
    counts = torch.bincount(known, minlength=classes).tolist() if len(known) else []
    missing = tuple(number for number, count in enumerate(counts) if not count)
    shape, dtype = tuple(split.inputs.shape[1:]), str(split.inputs.dtype).removeprefix("torch.")
    return CheckedSet(name, len(split), shape, dtype, tuple(counts), missing, twice)


def _about(each: CheckedSet) -> list[str]:
    said = []
    present = [count for count in each.counts if count]
    if each.missing:
        listed = ", ".join(map(str, each.missing[:8])) + (" …" if len(each.missing) > 8 else "")
        said.append(f"{each.name}: no samples of {len(each.missing)} of {len(each.counts)} classes ({listed})")
    if present and max(present) > UNEVEN * min(present):
        said.append(f"{each.name}: the largest class has {max(present)} samples, the smallest {min(present)}")
    if each.twice:
        said.append(f"{each.name}: {each.twice} samples occur more than once")
    return said


def digests(split: Split, padding: int | None = None) -> dict[bytes, int]:
    """Content of a sample → its label (as the model's first output that stands for it), the first of equals.

    Args:
        split: the samples.
        padding: of texts: two of them are equal however far they are filled up.
    """
    found: dict[bytes, int] = {}
    outputs = [group[0] for group in split.classes] if split.classes is not None else None
    for row, label in zip(split.inputs.cpu(), split.labels.tolist(), strict=True):
        is_text = padding is not None and row.dtype == torch.int64 and row.ndim <= 2
        content = row[..., (row if row.ndim == 1 else row[0]) != padding] if is_text else row  # of segments, too
        digest = blake3(content.contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()
        found.setdefault(digest, outputs[label] if outputs is not None and label >= 0 else label)
    return found


def _shared(contents: Mapping[str, Mapping[bytes, int]]) -> list[Shared]:
    names, found = list(contents), []
    names = [name for name in names if name != UNLABELLED]  # to know inputs without their labels is no leak
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = contents[first].keys() & contents[second].keys()
            if both:
                otherwise = sum(contents[first][digest] != contents[second][digest] for digest in both)
                found.append(Shared(first, second, len(both), otherwise))
    return found
