"""A model seen through another vocabulary: rows of embeddings and heads where the result has their tokens."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merging.storage.alignment import LACKING, PADDING, Alignment
from merging.storage.dtypes import itemsize, size_of
from merging.storage.file_hashes import Stamp
from merging.storage.raw import Raw, narrow, widen
from merging.storage.view import ModelView
from merging.storage.vocabulary_rows import rows_in

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.checkpoint import Checkpoint

BLOCK = 1 << 20
"""Elements of a tensor that are put together at a time."""


class AlignedTensors(ModelView):
    """The tensors of a model, those of its vocabulary with the rows of another one.

    A row of a token that the model has is its own, to the bit. One of a token that it lacks is the base's, where the
    base has it; else the mean of those of the pool's models that have it, in float64, rounded once: so the model has no
    opinion of its own there. Rows that no token has are the mean of all others.

    Args:
        model: the model.
        alignment: the vocabulary, and where each model has its rows.

    Attributes:
        model: the model as it is.
        alignment: the vocabulary.
    """

    format = "model with another vocabulary"

    def __init__(self, model: Checkpoint, alignment: Alignment) -> None:
        super().__init__(model)
        self.alignment = alignment
        self.tensors = {
            name: ((_with_rows(info[0], alignment.rows), info[1]) if name in alignment.names else info)
            for name, info in model.tensors.items()
        }
        self._vocabulary = frozenset(alignment.names)
        self._lock = threading.Lock()
        self._means: dict[str, Raw] = {}

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about its files, and about those of all models and tokenizers that its rows may come from."""
        return (*self.model.stamps, *self.alignment.stamps)

    def read(self, key: str) -> Tensor:
        """Reads one tensor, or puts it together."""
        if key not in self._vocabulary:
            return self.model.read(key)
        return self.made(key)

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Puts some of a tensor together, by the rows that it lies in."""
        if key not in self._vocabulary:
            self.model.read_bytes(key, offset, into)
            return
        shape, dtype = self.tensors[key]
        size, out = size_of((shape, dtype)) // self.alignment.rows, np.asarray(into)
        begin, end = offset, offset + len(into)
        step = max(BLOCK // (size // itemsize(dtype)), 1)
        for start in range(begin // size, -(-end // size), step):
            stop = min(start + step, -(-end // size))
            block = self._rows(key, start, stop)
            first, last = max(start * size, begin), min(stop * size, end)
            out[first - begin : last - begin] = block[first - start * size : last - start * size]

    def _rows(self, name: str, start: int, stop: int) -> Raw:
        """Some rows of the result's, as bytes."""
        own = self.alignment.places(self.model)[start:stop]
        out: Raw = np.empty((stop - start, _size(self.model, name)), dtype=np.uint8)
        _copy(self.model, name, own, out)
        if (own == LACKING).any():
            self._fill(name, start, own == LACKING, out)
        if (own == PADDING).any():
            out[own == PADDING] = self._mean(name)
        return out.reshape(-1)

    def _fill(self, name: str, start: int, lacking: NDArray[np.bool_], out: Raw) -> None:
        """Writes the rows of tokens that the model lacks: the base's, or the mean of the models that have them."""
        alignment, rows = self.alignment, slice(start, start + len(out))
        if alignment.base is not None:
            places = np.where(lacking, alignment.places(alignment.base)[rows], LACKING)
            _copy(alignment.base, name, places, out)
            lacking = lacking & (places < 0)
        if not lacking.any():
            return
        dtype = self.tensors[name][1]
        total = np.zeros((int(lacking.sum()), out.shape[1] // itemsize(dtype)))
        count = np.zeros((len(total), 1))
        raw, values = np.zeros((len(total), out.shape[1]), dtype=np.uint8), np.empty_like(total)
        for model in alignment.models:
            places = alignment.places(model)[rows][lacking]
            if (places >= 0).any():
                _copy(model, name, places, raw)
                widen(raw.reshape(-1), dtype, values.reshape(-1))
                total[places >= 0] += values[places >= 0]
                count[places >= 0] += 1
        narrow((total / count).reshape(-1), raw.reshape(-1), dtype)
        out[lacking] = raw

    def _mean(self, name: str) -> Raw:
        """The mean of all rows that have a token, rounded."""
        with self._lock:
            if name not in self._means:
                self._means[name] = self._averaged(name)
            return self._means[name]

    def _averaged(self, name: str) -> Raw:
        dtype, places = self.tensors[name][1], self.alignment.places(self.model)
        columns = _size(self.model, name) // itemsize(dtype)
        step, total = max(BLOCK // columns, 1), np.zeros(columns)
        for start in range(0, len(places), step):
            with_token = places[start : start + step] != PADDING
            own: Raw = np.zeros((len(with_token), columns * itemsize(dtype)), dtype=np.uint8)
            _copy(self.model, name, places[start : start + step], own)
            if (lacking := places[start : start + step] == LACKING).any():
                self._fill(name, start, lacking, own)
            values = np.zeros((int(with_token.sum()), columns))
            widen(own[with_token].reshape(-1), dtype, values.reshape(-1))
            total += values.sum(axis=0)
        rounded: Raw = np.empty(columns * itemsize(dtype), dtype=np.uint8)
        narrow(total / int((places != PADDING).sum()), rounded, dtype)
        return rounded


def _with_rows(shape: Sequence[int], rows: int) -> tuple[int, ...]:
    """A shape with another number of rows of the vocabulary."""
    place = next(axis for axis, size in enumerate(shape) if size == rows_in(shape))
    return tuple(rows if axis == place else size for axis, size in enumerate(shape))


def _size(model: Checkpoint, name: str) -> int:
    """Bytes of a row."""
    shape, dtype = model.tensors[name]
    return math.prod(shape) // rows_in(shape) * itemsize(dtype)


def _copy(model: Checkpoint, name: str, places: NDArray[np.int64], out: Raw) -> None:
    """Copies a model's rows to where they are wanted; rows that follow one another at once.

    Args:
        model: the model.
        name: name of the tensor.
        places: number of the row for each of ``out``'s; those below zero are left alone.
        out: bytes, a row each.
    """
    wanted = np.flatnonzero(places >= 0)
    if not len(wanted):
        return
    taken = places[wanted]
    ends = np.flatnonzero((np.diff(wanted) != 1) | (np.diff(taken) != 1)) + 1
    for begin, end in zip([0, *ends.tolist()], [*ends.tolist(), len(wanted)], strict=True):
        target = out[int(wanted[begin]) : int(wanted[begin]) + end - begin]
        model.read_bytes(name, int(taken[begin]) * out.shape[1], target.reshape(-1).data)
