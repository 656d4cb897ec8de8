"""Merges of one tensor that are made a block at a time, from bytes, and hold no tensor whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merging.mixing.sides import Doubles, Sides, Span, held, spread
from merging.storage.dtypes import itemsize
from merging.storage.raw import Raw, bytes_of, largest, narrow

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """A merge of one tensor, once it was looked at.

    Attributes:
        spans: What threads take up, in order.
        merged: First entry of a span, the one after its last → its blocks: first entry, and merged values, which are
            valid until the next block.
    """

    spans: Sequence[Span]
    merged: Callable[[int, int], Iterator[tuple[int, Doubles]]]

    def values(self, start: int, stop: int) -> Doubles:
        """Merges one span into an array."""
        found = np.empty(stop - start)
        with np.errstate(all="ignore"):  # what is not finite is found, and named
            for first, block in self.merged(start, stop):
                found[first - start : first - start + len(block)] = block
        return found

    def write(self, start: int, stop: int, result: Raw, wanted: str) -> bool:
        """Merges one span into bytes of a dtype.

        Returns:
            Whether all values are within that dtype.
        """
        size, limit, within = itemsize(wanted), largest(wanted), True
        with np.errstate(all="ignore"):  # what is not finite is found, and named
            for first, block in self.merged(start, stop):
                narrow(block, result[(first - start) * size : (first - start + len(block)) * size], wanted)
                low, high = float(np.minimum.reduce(block)), float(np.maximum.reduce(block))
                within = within and -limit <= low and high <= limit
        return within


@dataclass(frozen=True)
class Blockwise:
    """A function that merges one tensor, and can do so a block at a time.

    Attributes:
        prepare: Looks at a tensor and gives what merges it.
        looks: Whether it needs to look at all of a tensor, or wants whole rows; else it merges any part alone.
    """

    prepare: Callable[[Sides], Blocks]
    looks: bool

    def __call__(self, name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        """Merges a tensor that is in memory, of any dtype, to float64."""
        import torch

        from merging.storage.dtypes import dtype_name

        given = [*models, *([base] if base is not None else [])]
        dtype = dtype_name(given[0])
        shape = tuple(given[0].shape)
        read = held([bytes_of(tensor) for tensor in given], dtype)
        sides = Sides(name=name, shape=shape, dtype=dtype, models=len(models), read=read)
        blocks = self.prepare(sides)
        values = np.empty(sides.count)

        def merge(span: Span) -> None:
            values[slice(*span)] = blocks.values(*span)

        spread(merge, blocks.spans)
        return torch.from_numpy(values).view(shape)
