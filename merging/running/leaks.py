"""Samples that two sets of a task share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3

from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, UNLABELLED, Split, Task
from merging.storage.raw import bytes_of
from merging.values.wording import plural


@dataclass(frozen=True)
class Shared:
    """Samples of one set whose content is also in another.

    Attributes:
        first, second: names of the two sets.
        samples: number of the second's samples that are in the first.
        otherwise: number of these that have another label there.
    """

    first: str
    second: str
    samples: int
    otherwise: int

    def __str__(self) -> str:
        more = f", {self.otherwise} of them with another label" if self.otherwise else ""
        return (
            f"{plural(self.samples, 'sample')} of {self.second} also in {self.first}{more}: scores there are too high"
        )


def leaks(task: Task, module: object = None) -> list[str]:
    """A sentence for each pair of labelled sets that share samples; about a second for a gigabyte.

    Args:
        task: the task whose sets are compared.
        module: the model, which knows the padding of texts.
    """
    padding = getattr(module, "padding", None)
    sets = {name: split for name, split in sets_of(task).items() if name != UNLABELLED}
    return [str(pair) for pair in samples_in_common({name: digests(split, padding) for name, split in sets.items()})]


def sets_of(task: Task) -> dict[str, Split]:
    """All splits of a task, by name; what is learned from first."""
    first = {"train": task.train, UNLABELLED: task.unlabelled}
    return {
        **{name: split for name, split in first.items() if split is not None},
        HELD_OUT: task.held_out,
        **task.tests,
    }


def digests(split: Split, padding: int | None = None) -> dict[bytes, int]:
    """Content of a sample → its label (as the model's first output that stands for it), the first of equals.

    Args:
        split: the samples.
        padding: token that texts are filled up with; two texts are equal however far they are filled up.
    """
    found: dict[bytes, int] = {}
    if isinstance(split.inputs, Sequences):
        right = split.labels if split.categorical else split.labels[:, 0] if split.labels.ndim == 2 else None
        for number, digest in enumerate(_of_texts(split.inputs)):
            found.setdefault(digest, -1 if right is None else int(right[number]))
        return found
    outputs = [group[0] for group in split.classes] if split.classes is not None else None
    for row, label in zip(split.tensor.cpu(), split.labels.tolist(), strict=True):
        is_text = padding is not None and row.dtype == torch.int64 and row.ndim <= 2
        content = row[..., (row if row.ndim == 1 else row[0]) != padding] if is_text else row  # of segments, too
        digest = blake3(bytes_of(content).data).digest()
        found.setdefault(digest, outputs[label] if outputs is not None and label >= 0 else label)
    return found


def _of_texts(texts: Sequences) -> Iterator[bytes]:
    """The content of each sample: its tokens, each once, whatever windows it goes by and whichever are scored."""
    bounds, slots = texts.starts.tolist(), texts.slots.tolist()
    for first, last in itertools.pairwise(texts.samples.tolist()):
        content = blake3()
        for row in range(first, last):
            ids = texts.tokens[bounds[row] : bounds[row + 1]]
            if row > first and slots[row] == slots[row - 1]:  # a further window, whose context was in those before
                ids = ids[ids < 0]
            elif row > first:
                content.update(b"|")
            content.update(np.where(ids < 0, ~ids, ids).tobytes())
        yield content.digest()


def samples_in_common(contents: Mapping[str, Mapping[bytes, int]]) -> list[Shared]:
    """Pairs of labelled sets that share samples, from each set's digests (see :func:`digests`)."""
    names, found = list(contents), []
    names = [name for name in names if name != UNLABELLED]  # to know inputs without their labels is no leak
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = contents[first].keys() & contents[second].keys()
            if both:
                otherwise = sum(contents[first][digest] != contents[second][digest] for digest in both)
                found.append(Shared(first, second, len(both), otherwise))
    return found
