"""Samples that two sets of a task share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        for number in range(len(split)):
            content = blake3()
            split.inputs[number].digest_into(content)
            found.setdefault(content.digest(), 0 if not split.categorical else int(split.labels[number]))
        return found
    outputs = [group[0] for group in split.classes] if split.classes is not None else None
    for row, label in zip(split.tensor.cpu(), split.labels.tolist(), strict=True):
        is_text = padding is not None and row.dtype == torch.int64 and row.ndim <= 2
        content = row[..., (row if row.ndim == 1 else row[0]) != padding] if is_text else row  # of segments, too
        digest = blake3(bytes_of(content).data).digest()
        found.setdefault(digest, outputs[label] if outputs is not None and label >= 0 else label)
    return found


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
