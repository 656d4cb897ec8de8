"""Data that a notebook has (arrays, torch Datasets, DataLoaders, columns) as samples and labels, read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)

from merging.errors import TaskError, unknown
from merging.plugins.arrays import PICTURE, is_masked, is_one_hot, samples, targets, unboxed
from merging.plugins.progress import Progress
from merging.plugins.task import Split
from merging.plugins.user_code import running
from merging.values.labels import indices, is_number
from merging.values.wording import kind_of

WAY = "give (inputs, labels), a Split, or a Dataset whose items are (input, label)"
LABELS = ("label", "labels", "target", "targets", "class", "y")
"""Keys under which items that are mappings have their label, the likeliest first."""
INPUTS = ("image", "img", "images", "pixel_values", "input", "inputs", "features", "x")
"""Keys under which they have their input."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Held:
    """A set in memory, its labels as they are written.

    Attributes:
        where: name of the set, for messages.
        inputs: the samples.
        labels: numbers or names, one a sample or a row for each.
        names: names of its classes, in the order in which its labels count them; None: it names none.
        split: the split, where it was one already.
    """

    where: str
    inputs: Any
    labels: Any
    names: tuple[str, ...] | None = None
    split: Split | None = None

    @property
    def written(self) -> tuple[str, ...]:
        """The names that stand in the labels, sorted; none where these are numbers."""
        array = _as_array(self.labels)
        if array is None or array.dtype.kind != "U":
            return ()
        found = sorted(set(array.tolist()))
        return () if self.names is None and all(map(is_number, found)) else tuple(found)  # as tables are read

    def counted(self, classes: Sequence[str]) -> Split:
        """A split whose labels count the outputs of a model.

        Args:
            classes: names of the model's outputs, in order; none: nobody named them.

        Raises:
            TaskError: a class that the model does not have, or labels that are none.
        """
        if self.split is not None:
            return self.split
        labels = self.labels
        array = _as_array(labels)
        if array is not None and array.dtype.kind == "U":
            names = set(array.tolist())
            counts = self.names is None and all(map(is_number, names)) and not names <= set(classes)
            labels = indices(array, self.where) if counts else np.array([self._place(name, classes) for name in array])
        elif self.names is not None and classes and tuple(classes) != self.names:
            places = np.array([self._place(name, classes) for name in self.names])
            labels = places[targets(labels, f"{self.where}: labels").numpy()]
        elif array is not None and array.dtype.kind == "f":
            labels = self._met(array)
        inputs = samples(self.inputs, f"{self.where}: inputs")
        inputs = inputs.float() if inputs.dtype == torch.float64 else inputs  # models are in float32
        return Split.of(inputs, targets(labels, f"{self.where}: labels"))

    def _met(self, array: NDArray[Any]) -> NDArray[Any]:
        """Floating-point labels: class indices where all are whole numbers, else as they are."""
        if array.ndim == 2:
            return indices(array, self.where) if is_one_hot(array) else array
        known = np.isfinite(array)
        if array.ndim != 1 or not all(map(is_number, array[known].tolist())):
            return array
        if not known.all():
            raise TaskError(f"{self.where}: label number {int(known.argmin())} is missing; leave such samples out")
        return indices(array, self.where)

    def _place(self, name: Any, classes: Sequence[str]) -> int:
        if str(name) not in classes:
            raise unknown(f"class in {self.where}:", str(name), classes, error=TaskError)
        return tuple(classes).index(str(name))


def held(given: Any, where: str, progress: Progress) -> Held:
    """Reads a set to its end.

    Args:
        given: a split; inputs and labels; a torch Dataset or DataLoader, or whatever has items ``(input, label)``.
        where: name of the set, for messages.
        progress: told how far this is.

    Raises:
        TaskError: something else, pictures without a transform, or items that differ in shape.
    """
    if isinstance(given, Split):
        return Held(where=where, inputs=given.inputs, labels=given.labels, split=given)
    if isinstance(given, tuple | list) and len(given) == 2:
        return Held(where=where, inputs=given[0], labels=given[1], names=_columns(given[1]))
    if isinstance(given, DataLoader):
        return _loaded(given, where, progress)
    names = _names(given)
    if type(given) is TensorDataset and len(given.tensors) == 2:
        return Held(where=where, inputs=given.tensors[0], labels=given.tensors[1], names=names)
    if isinstance(given, IterableDataset):
        return _read(given, None, where, progress, names)
    if isinstance(given, str | bytes | Mapping | np.ndarray | Tensor | type) or not (
        hasattr(given, "__getitem__") and hasattr(given, "__len__")
    ):
        raise TaskError(f"{where} is {kind_of(given)}; {WAY}")
    return _read((given[number] for number in range(len(given))), len(given), where, progress, names, code=given)


def _loaded(loader: DataLoader[Any], where: str, progress: Progress) -> Held:
    """What a loader has: its data set in order, through a way of making batches that is its own; else its batches."""
    batches: Any = loader.batch_sampler
    sampler = loader.sampler if batches is None else batches.sampler if type(batches) is BatchSampler else None
    whole = isinstance(sampler, SequentialSampler | RandomSampler)  # a shuffled one is never the same
    if whole and loader.collate_fn in (default_collate, default_convert):
        return held(loader.dataset, where, progress)
    if whole:
        several = None if batches is None else batches.batch_size
        loader = DataLoader(loader.dataset, several, collate_fn=loader.collate_fn, num_workers=loader.num_workers)
    items = itertools.chain.from_iterable(_apart(batch, where, alone=batches is None) for batch in loader)
    return _read(items, None, where, progress, _names(loader.dataset))


def _read(
    items: Iterable[Any],
    count: int | None,
    where: str,
    progress: Progress,
    names: tuple[str, ...] | None,
    code: object = None,
) -> Held:
    """Reads items one by one; of a known number, into place."""
    progress.stage(f"reading {where}", count)
    inputs: Tensor | None = None
    rows, labels = list[Tensor](), list[Any]()
    each = iter(items)
    for number in itertools.count():
        with running(f"item {number} of {where}", type(items if code is None else code), error=TaskError):
            item = next(each, _END)
        if item is _END:
            break
        value, label = _pair(item, f"item {number} of {where}")
        row = _row(value, f"item {number} of {where}")
        first = row if not number else inputs[0] if inputs is not None else rows[0]
        if row.shape != first.shape:
            raise TaskError(
                f"{where}: inputs have different shapes: number 0 is {list(first.shape)}, number {number} "
                f"{list(row.shape)}; bring them to one, by a transform such as Resize and CenterCrop"
            )
        if count is None:
            rows.append(row)
        else:
            inputs = row.new_empty((count, *row.shape)) if inputs is None else inputs
            inputs[number] = row
        labels.append(_label(label))
        progress.advance()
    if not labels:
        raise TaskError(f"{where} is empty; it needs at least one sample")
    return Held(where=where, inputs=torch.stack(rows) if inputs is None else inputs, labels=labels, names=names)


_END = object()


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    """Input and label of an item.

    Raises:
        TaskError: it has not these two.
    """
    if isinstance(item, Mapping):
        label = next((key for key in LABELS if key in item), None)
        value = next((key for key in INPUTS if key in item), None)
        others = [key for key in item if key != label]
        value = others[0] if value is None and len(others) == 1 else value
        if label is None or value is None:
            asked = "label" if label is None else "input"
            raise TaskError(f"{where} has {', '.join(map(str, item))}; which is the {asked}? {WAY}")
        return item[value], item[label]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    raise TaskError(f"{where} is {kind_of(item)}; {WAY}")


def _row(value: Any, where: str) -> Tensor:
    if hasattr(value, "getbands"):
        raise TaskError(f"{where} is a picture of PIL; {PICTURE}")
    return samples([value], f"inputs of {where}")[0]


def _label(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _apart(batch: Any, where: str, *, alone: bool) -> Iterator[Any]:
    """The items of a batch; where a loader makes none, an item whose label has no rows is one by itself."""
    if alone and np.ndim(_label(_pair(batch, f"item 0 of {where}")[1])) == 0:
        yield batch
    elif isinstance(batch, Mapping):
        yield from (dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True))
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        yield from zip(*batch, strict=True)
    else:
        yield batch  # which is no pair, and is told so


def _names(given: Any) -> tuple[str, ...] | None:
    """The classes that a Dataset of torchvision or of Hugging Face names, also of a part of it or of several.

    Raises:
        TaskError: several that are joined, and name different ones.
    """
    if isinstance(given, Subset):
        return _names(given.dataset)
    if isinstance(given, ConcatDataset):
        several = {_names(each) for each in given.datasets}
        if len(several - {None}) > 1:
            raise TaskError("joined data sets number their classes differently; bring their labels to one numbering")
        return None if None in several else several.pop()
    if getattr(given, "target_transform", None) is not None:
        return None  # its labels count something else
    found = getattr(given, "classes", None)
    for key in LABELS:
        features = getattr(given, "features", None)
        if found is None and isinstance(features, Mapping) and key in features:
            found = getattr(features[key], "names", None)
    return tuple(found) if isinstance(found, list | tuple) and _are_words(found) else None


def _columns(labels: Any) -> tuple[str, ...] | None:
    """The classes that a column of categories names, or the columns of a one-hot data frame, in their order."""
    found = getattr(getattr(labels, "dtype", None), "categories", None)
    if found is None and len(columns := list(getattr(labels, "columns", ()))) > 1:
        found = columns
    return tuple(found) if found is not None and _are_words(found) else None


def _are_words(names: Iterable[Any]) -> bool:
    several = list(names)
    return bool(several) and all(isinstance(name, str) for name in several)


def _as_array(labels: Any) -> NDArray[Any] | None:
    """Labels as an array, texts as texts; None where they are none."""
    if is_masked(labels):
        return None
    try:
        found = unboxed(np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels))
        return np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found
    except (ValueError, TypeError, RuntimeError):
        return None
