"""One reader for each form that data may have: it finds a set and lists its classes, and decodes it later."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.data import saved, tables, tars
from merging.data.cache import content_of
from merging.data.classes import ALL, Choice, Labelling, counted_from_one, distinct_names, labelling, spelled
from merging.data.folders import left_out, states, tree, walked
from merging.data.groups import in_groups
from merging.data.images import Preparation, prepared
from merging.data.labels import Written, is_fraction, is_number, no_classes, whole
from merging.data.npz import groups_of, load_npz, names_and_labels
from merging.data.pictures import Picture, load_pictures, paths
from merging.data.text import COLUMN, takes_texts, text_columns, tokenized
from merging.errors import TaskError, raised
from merging.models.source import ModelSource
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split
from merging.plugins.user_code import ExitedError, contained, import_object

UNLABELLED = -1
"""The label of samples that have none; no model has such a class."""


@dataclass(frozen=True)
class Opened:
    """A set that was found and listed, and not decoded yet.

    Attributes:
        where: what the user wrote, for messages.
        names: of its classes, in the order in which its numbers count them; None: it names none.
        written: the distinct labels that occur; empty where they are not known before loading.
        choice: what the user says of its classes.
        decode: loads it, labels and groups as given; None: as they are, or without labels.
        final: whether its labels are the model's outputs already.
        spelled: whether labels stand in a table, where numbers may be names (:func:`merging.data.classes.spelled`).
        place: where a label stands first, for messages.
        counts: whether somebody wrote its numbers, who may have begun at 1; a library that declares classes has not.
    """

    where: str
    names: tuple[str, ...] | None
    written: tuple[Written, ...]
    choice: Choice
    decode: Callable[[Labelling | None], Split]
    final: bool = False
    spelled: bool = False
    place: Callable[[Written], str] | None = None
    counts: bool = True

    def load(self, classes: Sequence[str] | None, *, restrict: bool, progress: Progress | None = None) -> Split:
        """Decodes it, its labels counting the model's outputs, or the set's own classes.

        Args:
            classes: names of the model's outputs; None: nobody named them.
            restrict: whether it is scored on its own classes alone, where it has fewer.
            progress: told where that is so.

        Raises:
            TaskError: a class that the model does not have, or data that cannot be read.
        """
        if self.final or not self.written:
            return self.decode(None)
        means = self._means(classes)
        found = self._labelling(means, classes, restrict, progress or Silent())
        names = self.choice.classes if isinstance(self.choice.classes, list) else self.names or classes
        question = counted_from_one(self.where, list(means.values()), None if names is None else len(names))
        if question is not None and progress is not None and self.counts:
            progress.say(question)
        if found.groups is not None and classes is not None and progress is not None:
            covered = len({output for group in found.groups for output in group})
            if covered < len(classes):
                progress.say(f"{self.where}: scored on its {covered} of the model's {len(classes)} classes")
        return self.decode(found)

    def _means(self, classes: Sequence[str] | None) -> dict[Written, Written]:
        """What each label means: a name, or a number that counts.

        Raises:
            TaskError: a number that is no whole one, and no name of a class.
        """
        known = {*(classes or ()), *(self.choice.classes or ()), *self.choice.map}
        for label in self.written:
            if is_fraction(label) and label not in known:
                raise no_classes(self.where if self.place is None else self.place(label), label)
        if not self.spelled:
            return {label: label for label in self.written}
        return spelled(self.where, self.written, classes, self.choice)

    def _labelling(
        self, means: Mapping[Written, Written], classes: Sequence[str] | None, restrict: bool, progress: Progress
    ) -> Labelling:
        meant = tuple(dict.fromkeys(means.values()))
        found = labelling(self.where, meant, self.names, classes, self.choice, restrict=restrict)
        labels = {label: found.labels[meaning] for label, meaning in means.items() if meaning in found.labels}
        named = {label for label, meaning in means.items() if isinstance(meaning, str) and is_number(label)}
        numbers = all(map(is_number, classes or ()))
        if (
            self.spelled
            and numbers
            and found.groups is None
            and any(whole(label) != labels.get(label) for label in named)
        ):
            progress.say(f"{self.where}: labels are taken as the names of the classes, which are numbers")
        return Labelling(labels, found.groups)


@dataclass(frozen=True)
class Reader:
    """One method for each form.

    Attributes:
        path: of the set.
        options: the user's table.
        source: the model.
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

    def npz(self) -> Opened:
        """``file.npz:KEY``."""
        names, written = names_and_labels(self.path)
        self._takes("classes", "map", "corrupt", "upright", "group")
        how, turned = self.how, self._upright(False)

        def decode(found: Labelling | None) -> Split:
            split = load_npz(self.path, how, progress=self.progress, upright=turned)
            if "group" in self.options:
                split = split.with_groups(groups_of(self.path, self.options["group"], len(split)))
            return self._relabelled(split, found)

        return self._opened(names, written, decode)

    def folder(self, folder: Path) -> Opened:
        """A folder of class folders; without labels, of images."""
        self._takes("classes", "map", "corrupt", "border", "upright")
        if not self.labelled:
            others, loops = Counter[str](), list[Path]()
            files = walked(folder, others, loops)
            if not files:
                raise TaskError(f"{folder} holds no images")
            self._say(left_out(str(folder), others, loops))
            return self._images(None, [], lambda: paths(files, folder), states(files), len(files))
        found = tree(folder)
        if not found.classes:
            there = "only images" if found.beside else "nothing"
            raise TaskError(f"{folder} holds {there}, and no class folders with images; make a folder for each class")
        self._say(found.remarks())
        if not found.images:
            raise TaskError(f"{folder} holds no images in folders of known classes")
        if self.options.get("classes") in (None, ALL):
            found.check_empty()
        files = [file for file, _ in found.images]
        labels: list[Written] = [found.classes[label] for _, label in found.images]
        return self._images(found.classes, labels, lambda: paths(files, folder), states(files), len(files))

    def table(self, file: Path) -> Opened:
        """A table of image paths and labels."""
        self._takes("classes", "map", "corrupt", "border", "upright", "image", "label")
        rows = tables.rows(file)
        root = file.parent
        files = [_file(root, str(entry)) for entry in tables.column(file, rows, self.options.get("image", "path"))]
        labels: list[Written] = []
        if self.labelled:
            column = tables.column(file, rows, self.options.get("label", "label"))
            labels = tables.labels(file, column, self.progress.say)
        try:
            decided = states(files)
        except TaskError:
            row = next((number for number, image in enumerate(files, 1) if not image.exists()), 1)
            raise TaskError(f"{file}: row {row} names {files[row - 1]}, and there is no such image") from None
        return self._images(
            None, labels, lambda: paths(files, root), decided, len(files), spelled=True, groups=self._groups(file, rows)
        )

    def tar(self) -> Opened:
        """Tar files in webdataset's layout."""
        self._takes("classes", "map", "corrupt", "border", "upright", "label")
        files = tars.shards(str(Path(self.path).expanduser()))
        self.progress.stage(f"listing {self.path}")
        found = tars.listing(files, labelled=self.labelled, column=self.options.get("label", "label"))
        self._say(found.remarks(self.path))
        decided = [content_of(file) for file in files]
        return self._images(None, found.labels, lambda: tars.pictures(files), decided, len(found.names))

    def saved(self) -> Opened:
        """A folder written by ``save_to_disk``."""
        self._takes("classes", "map", "corrupt", "border", "upright", "image", "label")
        image = [self.options["image"]] if "image" in self.options else ()
        data = saved.Saved(
            str(Path(self.path).expanduser()),
            "image",
            image,
            self.options.get("label"),
            labelled=self.labelled,
            group=self.options.get("group"),
            say=self.progress.say,
        )
        return self._images(
            data.names,
            data.labels,
            data.pictures,
            data.decided,
            len(data),
            spelled=data.names is None,
            upright=True,
            groups=data.groups,
        )

    def texts(self) -> Opened:
        """A table of texts, or a folder written by ``save_to_disk``, for a text model."""
        self._takes("classes", "map", "label", "text")
        source, file, label = self.source, Path(self.path).expanduser(), self.options.get("label")
        if not takes_texts(source):
            raise TaskError(f"{self.path} holds texts, and the model takes none")
        wanted = text_columns(self.path, self.options.get("text"))
        labels: list[Written] = []
        declared: tuple[str, ...] | None = None
        groups: list[Any] | None = None
        if file.suffix.lower() in tables.SUFFIXES:
            rows = tables.rows(file)
            columns = [tables.texts(file, rows, name) for name in wanted or (COLUMN,)]
            if self.labelled:
                labels = tables.labels(file, tables.column(file, rows, label or "label"), self.progress.say)
            groups = self._groups(file, rows)
        else:
            data = saved.Saved(
                str(file),
                "text",
                wanted,
                label,
                labelled=self.labelled,
                group=self.options.get("group"),
                say=self.progress.say,
            )
            columns, labels, declared, groups = data.texts(), data.labels, data.names, data.groups

        def decode(found: Labelling | None) -> Split:
            if found is None:
                return Split.of(tokenized(self.path, columns, source, self.progress), _unlabelled(len(columns[0])))
            keep, kept = _kept(samples, found)
            chosen = [list(itertools.compress(column, keep)) for column in columns]
            return Split.of(tokenized(self.path, chosen, source, self.progress), torch.tensor(kept), found.groups)

        samples, load = in_groups(self.path, labels, groups, decode)
        return self._listed(declared, labels, load, spelled=declared is None)

    def made(self) -> Opened:
        """What a user's function returns."""
        self._takes("classes", "map")
        function = import_object(self.path)
        try:
            with contained():
                found = function()
            if not self.labelled and not isinstance(found, Split):
                found = found if isinstance(found, tuple) else (found,)
                inputs = _tensor(found[0])
                found = (inputs, _unlabelled(len(inputs)))
            split = found if isinstance(found, Split) else Split.of(_tensor(found[0]), _labels(_tensor(found[1])))
        except (TaskError, ExitedError):
            raise
        except Exception as error:  # the user's function may raise or return anything
            reason = raised(error, whole=True)
            raise TaskError(f"'{self.path}' gives no data; return a Split or (inputs, labels) ({reason})") from error
        if is_images(split.inputs):
            transform = self.how.of_arrays((split.inputs.shape[1], split.inputs.shape[2]))
            if transform is not None:
                images = prepared(split.inputs.numpy(), transform, self.path, self.progress)
                split = replace(split, inputs=torch.from_numpy(images))
                split = split.part(torch.arange(len(split)))  # its fingerprint is that of the prepared images
        if (split.classes is not None or not split.categorical) and self.labelled:
            return Opened(self.path, None, (), self._choice, lambda _: split, final=True)
        return self._opened(None, tuple(split.labels.unique().tolist()), lambda found: self._relabelled(split, found))

    def _groups(self, file: Path, rows: list[dict[str, Any]]) -> list[Any] | None:
        """The column that names the groups, where the user says which it is."""
        name = self.options.get("group")
        return None if name is None else tables.column(file, rows, name)

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.progress.say(line)

    @property
    def _choice(self) -> Choice:
        return Choice(self.options.get("classes"), self.options.get("map") or {})

    def _upright(self, usual: bool) -> bool:
        """Whether images are turned as their EXIF orientation says: as the user, or else the form's library, has it."""
        wanted = self.options.get("upright")
        return usual if wanted is None else bool(wanted)

    def _takes(self, *keys: str) -> None:
        """Refuses what means nothing to a form.

        Raises:
            TaskError: there is such a key.
        """
        for key in self.options:
            groups = ("group",) if {"image", "text"} & {*keys} else ()  # forms with columns
            if key not in ("path", *keys, *groups):
                raise TaskError(f"{self.path}: '{key}' means nothing to this kind of data; leave it out")

    def _opened(
        self, names: tuple[str, ...] | None, written: tuple[Written, ...], decode: Callable[[Labelling | None], Split]
    ) -> Opened:
        return Opened(self.path, names, written if self.labelled else (), self._choice, decode)

    def _images(
        self,
        names: tuple[str, ...] | None,
        labels: list[Written],
        pictures: Callable[[], Iterable[Picture]],
        decided: Any,
        count: int,
        *,
        spelled: bool = False,
        groups: list[Any] | None = None,
        upright: bool = False,
    ) -> Opened:
        """A set whose images are decoded one by one; ``upright``: what holds where the user says nothing."""
        turned = self._upright(upright)

        def load(pictures: Callable[[], Iterable[Picture]], labels: NDArray[np.int64], decided: Any) -> Split:
            return load_pictures(self.path, pictures, labels, decided, self.how, self.progress, upright=turned)

        def decode(found: Labelling | None) -> Split:
            if found is None:
                return load(pictures, np.full(count, UNLABELLED, dtype=np.int64), decided)
            keep, numbers = _kept(samples, found)
            kept = np.array(numbers, dtype=np.int64)
            if all(keep):
                split = load(pictures, kept, decided)
            else:
                chosen = [decided, np.flatnonzero(keep).tolist()]
                split = load(lambda: itertools.compress(pictures(), keep), kept, chosen)
            return split.with_classes(found.groups)

        samples, loaded = in_groups(self.path, labels, groups, decode)
        return self._listed(names, labels, loaded, spelled=spelled)

    def _listed(
        self,
        declared: tuple[str, ...] | None,
        labels: list[Written],
        decode: Callable[[Labelling | None], Split],
        *,
        spelled: bool,
    ) -> Opened:
        """A set whose labels are known before it is decoded; where it declares no names, those that occur."""
        names = declared or distinct_names(labels)
        opened = self._opened(names, tuple(sorted(set(labels), key=str)), decode)
        first = 1 if Path(self.path).suffix.lower() in tables.SUFFIXES else 0  # rows of a table are counted from 1
        return replace(
            opened,
            spelled=spelled,
            counts=declared is None,
            place=lambda label: f"{self.path}: row {labels.index(label) + first}",
        )

    def _relabelled(self, split: Split, found: Labelling | None) -> Split:
        """Samples that are there already, their labels as they are to be."""
        if not self.labelled:
            return Split.of(split.inputs, torch.full_like(split.labels, UNLABELLED))
        if found is None or (found.groups is None and all(new == old for old, new in found.labels.items())):
            return split if found is None or len(found.labels) == len(split.labels.unique()) else _some(split, found)
        return _some(split, found)


def _file(root: Path, entry: str) -> Path:
    """The file that a row of a table names; with Windows' separators, where it was written there."""
    file = root / entry
    return root / entry.replace("\\", "/") if "\\" in entry and not file.exists() else file


def _some(split: Split, found: Labelling) -> Split:
    """The samples whose labels are wanted."""
    keep = torch.tensor([label in found.labels for label in split.labels.tolist()])
    labels = torch.tensor([found.labels[label] for label in split.labels.tolist() if label in found.labels])
    named = None if split.groups is None else [split.group_names[number] for number in split.groups[keep]]
    return Split.of(split.inputs if bool(keep.all()) else split.inputs[keep], labels, found.groups, named)


def _kept(labels: Sequence[Written], found: Labelling) -> tuple[list[bool], list[int]]:
    """Which samples are wanted, and the labels of those."""
    return [label in found.labels for label in labels], [found.labels[x] for x in labels if x in found.labels]


def _unlabelled(count: int) -> Tensor:
    return torch.full((count,), UNLABELLED)


def is_images(inputs: Tensor) -> bool:
    """Whether samples are kept as images: uint8, ``(N, H, W, 3)``."""
    return inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[-1] == 3


def _labels(given: Tensor) -> Tensor:
    """Labels of a user's function: classes, or numbers as they are."""
    return given if given.is_floating_point() or given.ndim > 1 else given.to(torch.int64)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
