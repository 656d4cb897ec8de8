"""One tensor in every model and in the base, a block at a time: any part of it, as often as needed, on all threads."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from merging.machine import cores
from merging.storage.dtypes import itemsize
from merging.storage.raw import Raw, widen

BLOCK = 1 << 14
"""Entries that are computed at a time, where nothing wants whole rows: those of a few models fit into the cache. Sums
over a tensor are made of sums of blocks, so that no number of threads moves their bits."""
SPAN = 1 << 19
"""Entries that a thread takes up at a time, and reads in one go."""

Doubles: TypeAlias = NDArray[np.float64]
Span: TypeAlias = tuple[int, int]
T = TypeVar("T")
R = TypeVar("R")
_own = threading.local()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@dataclass(frozen=True, kw_only=True)
class Sides:
    """One tensor of all models and of the base.

    Attributes:
        name: The tensor's.
        shape: Its shape.
        dtype: Name of its dtype, the same in all.
        models: How many models there are, without the base.
        read: Gives the bytes of some entries: number of the model (that of the base is ``models``), first entry,
            the one after the last. They are valid until this thread reads the same model again.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    models: int
    read: Callable[[int, int, int], Raw]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", math.prod(self.shape))

    @property
    def columns(self) -> int:
        """Entries of a row: of all but the first dimension; a vector is one row."""
        return max(self.count // self.shape[0], 1) if len(self.shape) > 1 else max(self.count, 1)

    def block(self, *, rows: bool = False) -> int:
        """Counts the entries that are computed at a time; with ``rows`` whole rows, one at the least."""
        return max(BLOCK // self.columns, 1) * self.columns if rows else BLOCK

    def spans(self, *, rows: bool = False) -> list[Span]:
        """Cuts the tensor into what threads take up, in order; all begin where a block begins."""
        step = max(SPAN // self.block(rows=rows), 1) * self.block(rows=rows)
        return [(start, min(start + step, self.count)) for start in range(0, self.count, step)]

    def changes(self, start: int, stop: int, *, rows: bool = False) -> Iterator[tuple[int, Doubles, Doubles]]:
        """Gives for each block of a span: its first entry, all models' changes from the base, and the base, float64.

        Both may be written to, and are valid until the next block.
        """
        for first, space in self.differences(start, stop, rows=rows):
            yield first, space[: self.models], space[self.models]

    def differences(self, start: int, stop: int, *, rows: bool = False) -> Iterator[tuple[int, Doubles]]:
        """Gives the same as one array: a row a model, and the base as the last one."""
        for first, space in self._wide(start, stop, self.models + 1, rows=rows):
            space[: self.models] -= space[self.models]
            yield first, space

    def values(self, start: int, stop: int) -> Iterator[tuple[int, Doubles]]:
        """Gives for each block of a span: its first entry, and all models' values, float64, a row a model."""
        return self._wide(start, stop, self.models)

    def _wide(self, start: int, stop: int, number: int, *, rows: bool = False) -> Iterator[tuple[int, Doubles]]:
        raws = [self.read(side, start, stop) for side in range(number)]
        size, step = itemsize(self.dtype), self.block(rows=rows)
        room = min(step, stop - start)
        space: Doubles = scratch("changes", number * room).reshape(number, room)
        for first in range(start, stop, step):
            length = min(step, stop - first)
            part = slice((first - start) * size, (first - start + length) * size)
            for side, raw in enumerate(raws):
                widen(raw[part], self.dtype, space[side, :length])
            yield first, space[:, :length]

    def magnitudes(self, model: int, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """Gives for each block of a span the magnitudes of one model's changes, in float32.

        They are those of float64 differences, rounded once: of narrower numbers float32 finds the same ones.
        """
        raw, base = self.read(model, start, stop), self.read(self.models, start, stop)
        kind = np.float64 if self.dtype == "float64" else np.float32
        size, room = itemsize(self.dtype), min(BLOCK, stop - start)
        one, other = (scratch(key, room, kind) for key in ("one", "other"))
        for first in range(0, (stop - start) * size, BLOCK * size):
            length = min(BLOCK, stop - start - first // size)
            widen(raw[first : first + length * size], self.dtype, one[:length])
            widen(base[first : first + length * size], self.dtype, other[:length])
            np.subtract(one[:length], other[:length], out=one[:length])
            sizes = np.abs(one[:length], out=one[:length])
            yield sizes if kind is np.float32 else sizes.astype(np.float32)


def scratch(key: str, size: int, kind: type = np.float64) -> NDArray[Any]:
    """Gives an array of this thread's own, under a name; its content is anything."""
    found = getattr(_own, key, None)
    if found is None or len(found) < size or found.dtype != kind:
        found = np.empty(size, dtype=kind)
        setattr(_own, key, found)
    part: NDArray[Any] = found[:size]
    return part


def held(parts: Sequence[Raw], dtype: str, begin: int = 0) -> Callable[[int, int, int], Raw]:
    """Reads from bytes that are in memory: a part a model, the base's last, all from the entry ``begin`` on."""
    size = itemsize(dtype)
    return lambda side, start, stop: parts[side][(start - begin) * size : (stop - begin) * size]


def again(
    read_bytes: Sequence[Callable[[str, int, memoryview], None]], name: str, dtype: str
) -> Callable[[int, int, int], Raw]:
    """Reads from where checkpoints lie, as often as it is asked.

    Args:
        read_bytes: what copies some of a tensor's bytes, a function a model, the base's last.
        name: the tensor's.
        dtype: its dtype.
    """
    size = itemsize(dtype)

    def read(side: int, start: int, stop: int) -> Raw:
        into: Raw = scratch(f"raw {side}", (stop - start) * size, np.uint8)
        read_bytes[side](name, start * size, into.data)
        return into

    return read


def spread(function: Callable[[T], R], work: Iterable[T]) -> list[R]:
    """Calls a function for each piece of work, on all cores; results in order.

    The threads stay, with their scratch, for the next call.
    """
    pieces = list(work)
    threads = cores()
    if min(threads, len(pieces)) < 2:
        return [function(piece) for piece in pieces]
    key = (os.getpid(), threads)  # a forked process has none of its parent's threads
    if key not in _pools:
        _pools.clear()
        _pools[key] = ThreadPoolExecutor(threads)
    return list(_pools[key].map(function, pieces))
