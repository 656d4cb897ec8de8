"""An adapter over its base, behind what a file of tensors can do: base + s·B·A, computed when it is read."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import CheckpointError
from merging.storage.adapter_folder import CONFIG, WAY, WEIGHTS, AdapterConfig
from merging.storage.adapter_names import NamesInFiles
from merging.storage.adapter_parts import Change, changes
from merging.storage.dtypes import is_floating, itemsize
from merging.storage.file_hashes import Stamp
from merging.storage.file_kind import format_of
from merging.storage.low_rank import LowRank, Matrix
from merging.storage.raw import Raw, narrow, widen
from merging.storage.view import View
from merging.values.partition import TensorInfo
from merging.values.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.checkpoint import Checkpoint
    from merging.storage.tensor_file import TensorFile

BLOCK = 1 << 20
"""Elements of a tensor that are computed at a time, in float64."""
_KEPT = 2
"""Tensors whose factors are kept at a time: what is read follows an order."""


class AdaptedTensors(View):
    """The tensors of a model that an adapter makes of its base.

    A block of rows is computed at a time, in float64, and rounded once to the dtype of the base's tensor.

    Args:
        config: what its configuration says.
        base: the model that it was trained on.

    Attributes:
        base: the model that it stands on.
        config: what the adapter's configuration says.
        changes: name of a tensor → what the adapter does to it.

    Raises:
        CheckpointError: it is an adapter of another kind, or of another base.
    """

    format = "adapter"

    def __init__(self, config: AdapterConfig, base: Checkpoint) -> None:
        self.config, self.base, folder = config, base, config.folder
        file = next(folder / name for name in WEIGHTS if (folder / name).is_file())
        self._own = format_of(file)(file)
        self._settings = Stamp.of(folder / CONFIG)
        names = NamesInFiles(str(base.path), None if base.home.in_memory else base.home.path)
        self.changes = _tied(self.config, changes(self.config, self._own.tensors, base.tensors, names), base)
        super().__init__(file)
        whole = {name: self._own.tensors[change.whole] for name, change in self.changes.items() if change.whole}
        self.tensors = dict(base.tensors) | {name: self._info(name, info) for name, info in whole.items()}
        self.ties = tuple(group for group in base.ties if not any(name in whole for name in group))
        self.notes = (self._described(), *self._own.notes)
        self._lock = threading.Lock()
        self._updates: OrderedDict[str, _Update] = OrderedDict()

    @property
    def files(self) -> tuple[Path, ...]:
        """The adapter's files, and after them the base's."""
        return (self.path, self.config.folder / CONFIG, *self.base.files)

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about all of these from before they were opened; none where the base is in memory."""
        base = self.base.stamps
        own = [stamp for stamp in (self._settings, self._own.stamp) if stamp is not None]
        return (*own, *base) if base else ()

    def check_unchanged(self) -> None:
        """Raises CheckpointError where the adapter or its base was replaced or written to since it was opened."""
        self._own.check_unchanged()
        self.base.check_unchanged()
        try:
            same = Stamp.of(self.config.folder / CONFIG) == self._settings
        except OSError:  # it is gone
            same = False
        if not same:
            raise CheckpointError(f"{self.config.folder / CONFIG}: has changed since it was opened; start again")

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that its updates have, each once."""
        return tuple(sorted({change.rank for change in self.changes.values() if change.rank}))

    def _info(self, name: str, own: TensorInfo) -> TensorInfo:
        """Shape and dtype of a tensor that was trained whole: numbers with a fraction are of the base's dtype."""
        dtype = self.base.tensors[name][1] if name in self.base.tensors else own[1]
        return own[0], dtype if is_floating(dtype) and is_floating(own[1]) else own[1]

    @property
    def rank(self) -> str:
        """The rank of its updates, or the smallest and the largest."""
        return " to ".join(str(rank) for rank in dict.fromkeys((self.ranks[0], self.ranks[-1]))) if self.ranks else "0"

    @property
    def label(self) -> str:
        """Its kind and rank in a few words, such as ``LoRA, rank 8``."""
        return f"{self.config.kind}, rank {self.rank}"

    def _described(self) -> str:
        """Says what it is, over what, and how much of it."""
        updates = sum(bool(change.first) for change in self.changes.values())
        whole = sum(bool(change.whole) and not change.first for change in self.changes.values())
        tokens = sum(len(change.at) for change in self.changes.values())
        parts = [plural(updates, "update"), *([f"{plural(whole, 'tensor')} trained whole"] if whole else [])]
        parts += [plural(tokens, "token")] if tokens else []
        return f"{self.config.kind} adapter of rank {self.rank} over {self.base.path}: {', '.join(parts)}"

    def read(self, key: str) -> Tensor:
        """Computes one tensor, or reads it where the adapter leaves it alone."""
        if key not in self.changes:
            return self.base.read(key)
        return self.made(key)

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Computes some of a tensor, by the rows that they lie in."""
        if key not in self.changes:
            self.base.read_bytes(key, offset, into)
            return
        shape, dtype = self.tensors[key]
        change = self.changes[key]
        if change.whole and not (change.first or change.added) and self._own.tensors[change.whole][1] == dtype:
            self._own.read_bytes(change.whole, offset, into)
            return
        size, columns = itemsize(dtype), columns_of(shape)
        update, out = self._update(key), np.asarray(into)
        step = max(BLOCK // columns, 1)
        begin, end = offset // size, (offset + len(into)) // size
        for start in range(begin // columns, -(-end // columns), step):
            stop = min(start + step, -(-end // columns))
            values = update.rows(start, stop)
            rounded = np.empty(values.size * size, dtype=np.uint8)
            with np.errstate(all="ignore"):  # what its dtype does not hold is infinite, and refused where it is read
                narrow(values.reshape(-1), rounded, dtype)
            first, last = max(start * columns, begin), min(stop * columns, end)
            out[(first - begin) * size : (last - begin) * size] = rounded[
                (first - start * columns) * size : (last - start * columns) * size
            ]

    def factors(self, name: str) -> tuple[Matrix, Matrix] | None:
        """Two matrices whose product is all that the adapter adds to a tensor; None where it does more than that.

        A tensor that it leaves alone has factors of rank 0.
        """
        shape = self.tensors[name][0]
        if name not in self.changes:
            return np.empty((shape[0] if shape else 1, 0)), np.empty((0, columns_of(shape)))
        change = self.changes[name]
        if (
            not change.first
            or change.tokens
            or change.magnitude
            or (change.whole and not self._is_base(name, change.whole))
        ):
            return None
        first, second = self._pair(change)
        left, right = (second.T, first.T) if change.turned else (first, second)
        return change.scale * left, right

    def _is_base(self, name: str, key: str) -> bool:
        """Whether a tensor that was saved whole is the base's own, as embeddings often are."""
        rows, own = _Rows(self.base, name), _Rows(self._own, key)
        if rows.count != own.count or rows.columns != own.columns:
            return False
        step = max(BLOCK // rows.columns, 1)
        spans = ((start, min(start + step, rows.count)) for start in range(0, rows.count, step))
        return all(np.array_equal(rows.read(*span), own.read(*span)) for span in spans)

    def _pair(self, change: Change) -> tuple[Matrix, Matrix]:
        first, second = self._numbers(change.first), self._numbers(change.second)
        return first.reshape(len(first), -1), second.reshape(len(second), -1)

    def _update(self, name: str) -> _Update:
        """What computes a tensor; its factors are read once."""
        with self._lock:
            if name not in self._updates:
                self._updates[name] = self._made(name, self.changes[name])
                while len(self._updates) > _KEPT:
                    self._updates.popitem(last=False)
            self._updates.move_to_end(name)
            return self._updates[name]

    def _made(self, name: str, change: Change) -> _Update:
        rows = _Rows(self._own, change.whole) if change.whole else _Rows(self.base, name)
        update = _Update(rows, scale=change.scale)
        if change.tokens:
            update.tokens = dict(zip(change.at, self._numbers(change.tokens), strict=True))
        if change.first:
            first, second = self._pair(change)
            update.product = LowRank.of(second.T, first.T) if change.turned else LowRank.of(first, second)
        if change.added:
            update.added = self._numbers(change.added).reshape(-1, 1)
        if change.magnitude:
            update.learn_lengths(self._numbers(change.magnitude).reshape(-1), by_column=change.turned)
        return update

    def _numbers(self, key: str) -> Matrix:
        numbers: Matrix = self._own.read(key).double().numpy()
        return numbers


class _Rows:
    """A tensor in a file or a checkpoint as rows of numbers, its other dimensions as one."""

    def __init__(self, holder: TensorFile | Checkpoint, key: str) -> None:
        self._holder, self._key = holder, key
        shape, self._dtype = holder.tensors[key]
        self.columns = columns_of(shape)
        self.count = math.prod(shape) // self.columns

    def read(self, start: int, stop: int) -> Matrix:
        """Reads some rows, in float64."""
        size = itemsize(self._dtype) * self.columns
        raw: Raw = np.empty((stop - start) * size, dtype=np.uint8)
        self._holder.read_bytes(self._key, start * size, raw.data)
        values: Matrix = np.empty((stop - start) * self.columns)
        widen(raw, self._dtype, values)
        return values.reshape(stop - start, self.columns)


class _Update:
    """One tensor as the adapter makes it, by rows.

    Args:
        rows: what it is added to.
        scale: the number that the product, or what is added, is multiplied with.

    Attributes:
        product: the product of the factors, where there are some.
        added: a column that is added with the same scale.
        tokens: number of a row → the row that stands in its place.
    """

    def __init__(self, rows: _Rows, scale: float) -> None:
        self._from, self._scale = rows, scale
        self.product: LowRank | None = None
        self.added: Matrix | None = None
        self.tokens: dict[int, Matrix] = {}
        self._lengths: tuple[Matrix, bool] | None = None  # what a row or column is multiplied with, and which

    def rows(self, start: int, stop: int) -> Matrix:
        """Computes some rows, in float64."""
        values = self._sum(start, stop)
        if self._lengths is not None:
            factor, by_column = self._lengths
            values *= factor if by_column else factor[start:stop, None]
        return values

    def _sum(self, start: int, stop: int) -> Matrix:
        values = self._from.read(start, stop)
        for row in self.tokens.keys() & range(start, stop):
            values[row - start] = self.tokens[row]
        with np.errstate(all="ignore"):  # what is not finite is refused where it is read
            if self.product is not None:
                values += self._scale * self.product.rows(start, stop)
            if self.added is not None:
                values += self._scale * self.added[start:stop]
        return values

    def learn_lengths(self, magnitude: Matrix, *, by_column: bool) -> None:
        """Has each row, or column, be of a length of its own: that of DoRA."""
        step = max(BLOCK // self._from.columns, 1)
        squares = np.zeros(len(magnitude))
        for start in range(0, self._from.count, step):
            stop = min(start + step, self._from.count)
            block = np.square(self._sum(start, stop))
            if by_column:
                squares += block.sum(axis=0)
            else:
                squares[start:stop] = block.sum(axis=1)
        with np.errstate(all="ignore"):
            self._lengths = magnitude / np.sqrt(squares), by_column


def columns_of(shape: tuple[int, ...]) -> int:
    """Elements of a row, where all dimensions but the first are one."""
    return max(math.prod(shape[1:]), 1)


def _tied(config: AdapterConfig, found: dict[str, Change], base: Checkpoint) -> dict[str, Change]:
    """The same changes, where tensors that are one in the base stay one.

    Raises:
        CheckpointError: two of these are changed, each in its own way.
    """
    for group in base.ties:
        changed = [name for name in group if name in found and not found[name].whole]
        if len(changed) > 1:
            raise CheckpointError(
                f"{config.folder}: adapts '{changed[0]}' and '{changed[1]}', which are one tensor; {WAY}"
            )
        if changed:
            found |= dict.fromkeys(group, found[changed[0]])
    return found
