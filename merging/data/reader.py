"""What a data form is given: what the user said of a set, and ways to make a set of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.data import tables
from merging.data.classes import Choice, Labelling, distinct_names
from merging.data.groups import in_groups
from merging.data.images import Preparation, is_images, prepared
from merging.data.opened import Opened
from merging.data.pictures import Picture, load_pictures
from merging.models.source import ModelSource
from merging.plugins.progress import Progress
from merging.plugins.task import Split
from merging.values.labels import Written

UNLABELLED = -1
"""The label of samples that have none; no model has such a class."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One set as the user names it, for the form that reads it.

    Attributes:
        path: path of the set, as the user wrote it.
        options: the user's table, of which the form takes its ``keys``.
        source: the model's; None: nobody has named one.
        how: images are brought to size.
        labelled: whether labels are wanted.
        progress: told how far decoding is.
    """

    path: str
    options: Mapping[str, Any]
    source: ModelSource | None
    how: Preparation
    labelled: bool
    progress: Progress

    def groups(self, file: Path, rows: list[dict[str, Any]]) -> list[Any] | None:
        """The column that names the groups, where the user says which it is."""
        name = self.options.get("group")
        return None if name is None else tables.column(file, rows, name)

    def say(self, lines: Iterable[str]) -> None:
        """Tells the user, a line each."""
        for line in lines:
            self.progress.say(line)

    @property
    def choice(self) -> Choice:
        """The user's words on the set's classes."""
        return Choice(self.options.get("classes"), self.options.get("map") or {})

    def upright(self, usual: bool) -> bool:
        """Whether images are turned as their EXIF orientation says: as the user, or else the form's library, has it."""
        wanted = self.options.get("upright")
        return usual if wanted is None else bool(wanted)

    @property
    def first_row(self) -> int:
        """Number of the set's first row in messages: those of a table are counted from 1."""
        return 1 if Path(self.path).suffix.lower() in tables.SUFFIXES else 0

    def opened(
        self, names: tuple[str, ...] | None, written: tuple[Written, ...], decode: Callable[[Labelling | None], Split]
    ) -> Opened:
        """A set that is decoded at once (arguments as the attributes of :class:`Opened`)."""
        return Opened(
            where=self.path, names=names, written=written if self.labelled else (), choice=self.choice, decode=decode
        )

    def samples(self, split: Split, names: tuple[str, ...] | None = None) -> Opened:
        """A set that is in memory already; pictures (uint8, ``(N, H, W, 3)``) are brought to the model's size.

        Args:
            split: inputs and labels.
            names: names of the classes that the labels count, where the set says them.
        """
        if is_images(split.tensor):
            transform = self.how.of_arrays((split.tensor.shape[1], split.tensor.shape[2]))
            if transform is not None:
                images = prepared(split.tensor.numpy(), transform, self.path, self.progress)
                split = replace(split, inputs=torch.from_numpy(images))
                split = split.part(torch.arange(len(split)))  # its fingerprint is that of the prepared images
        if (split.classes is not None or not split.categorical) and self.labelled:
            return Opened(
                where=self.path, names=None, written=(), choice=self.choice, decode=lambda _: split, final=True
            )
        return self.opened(names, tuple(split.labels.unique().tolist()), lambda found: self.relabelled(split, found))

    def images(
        self,
        labels: list[Written],
        pictures: Callable[[], Iterable[Picture]],
        decided: Any,
        count: int,
        *,
        names: tuple[str, ...] | None = None,
        spelled: bool = False,
        groups: list[Any] | None = None,
        upright: bool = False,
    ) -> Opened:
        """A set whose images are decoded one by one, and kept on disk as they go into the model.

        Args:
            labels: labels as they are written, one a sample; empty where none are wanted.
            pictures: begins to give the pictures, in the order of the labels.
            decided: all that decides which pictures these are, JSON-ready: hashes or times of files.
            count: how many there are.
            names: names of the classes, where the set says them, in the order in which its numbers count them.
            spelled: whether labels stand in a table, where numbers may be names.
            groups: group of each sample, where the set says them.
            upright: whether pictures are turned as their EXIF orientation says, where the user says nothing.
        """
        turned = self.upright(upright)

        def load(pictures: Callable[[], Iterable[Picture]], labels: NDArray[np.int64], decided: Any) -> Split:
            return load_pictures(self.path, pictures, labels, decided, self.how, self.progress, upright=turned)

        def decode(found: Labelling | None) -> Split:
            if found is None:
                return load(pictures, np.full(count, UNLABELLED, dtype=np.int64), decided)
            keep, kept = wanted(samples, found)
            numbers = np.array(kept, dtype=np.int64)
            if all(keep):
                split = load(pictures, numbers, decided)
            else:
                chosen = [decided, np.flatnonzero(keep).tolist()]
                split = load(lambda: itertools.compress(pictures(), keep), numbers, chosen)
            return split.with_classes(found.groups)

        samples, loaded = in_groups(self.path, labels, groups, decode, first=self.first_row)
        return self.listed(names, labels, loaded, spelled=spelled)

    def listed(
        self,
        declared: tuple[str, ...] | None,
        labels: list[Written],
        decode: Callable[[Labelling | None], Split],
        *,
        spelled: bool,
    ) -> Opened:
        """A set whose labels are known before it is decoded; where it declares no names, those that occur."""
        names = declared or distinct_names(labels)
        opened = self.opened(names, tuple(sorted(set(labels), key=str)), decode)
        return replace(
            opened,
            spelled=spelled,
            counts=declared is None,
            place=lambda label: f"{self.path}: row {labels.index(label) + self.first_row}",
        )

    def relabelled(self, split: Split, found: Labelling | None) -> Split:
        """Samples that are there already, their labels as they are to be."""
        if not self.labelled:
            return Split.of(split.tensor, torch.full_like(split.labels, UNLABELLED))
        if found is None or (found.groups is None and all(new == old for old, new in found.labels.items())):
            return split if found is None or len(found.labels) == len(split.labels.unique()) else _some(split, found)
        return _some(split, found)


def _some(split: Split, found: Labelling) -> Split:
    """The samples whose labels are wanted."""
    keep = torch.tensor([label in found.labels for label in split.labels.tolist()])
    labels = torch.tensor([found.labels[label] for label in split.labels.tolist() if label in found.labels])
    named = None if split.groups is None else [split.group_names[number] for number in split.groups[keep]]
    return Split.of(split.tensor if bool(keep.all()) else split.tensor[keep], labels, found.groups, named)


def wanted(labels: Sequence[Written], found: Labelling) -> tuple[list[bool], list[int]]:
    """Chooses the samples that are wanted: True or False for each sample, and the labels of the chosen ones."""
    return [label in found.labels for label in labels], [found.labels[x] for x in labels if x in found.labels]


def unlabelled(count: int) -> Tensor:
    """Labels of samples that have none."""
    return torch.full((count,), UNLABELLED)


def as_split(found: Any, *, labelled: bool) -> Split:
    """Makes a split of what somebody's function returned: a split, or inputs and labels, or inputs without labels.

    Args:
        found: the split, ``(inputs, labels)`` as tensors or arrays, or, where no labels are wanted, inputs alone.
        labelled: whether labels are wanted.
    """
    if isinstance(found, Split):
        return found
    if not labelled:
        inputs = _tensor(found[0] if isinstance(found, tuple) else found)
        return Split.of(inputs, unlabelled(len(inputs)))
    inputs, labels = _tensor(found[0]), _tensor(found[1])
    counts = not labels.is_floating_point() and labels.ndim == 1
    return Split.of(inputs, labels.to(torch.int64) if counts else labels)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
