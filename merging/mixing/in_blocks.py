"""A computed merge put together a block at a time: memory grows neither with the models nor with their tensors.

All inputs pass once, a few megabytes at a time, to be hashed and checked. A tensor is merged when its last piece has
passed; what has to look at it first, or more than once, reads it again from where it lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice

import numpy as np

from merging.mixing.blockwise import Blocks
from merging.mixing.computed import Computed
from merging.mixing.output import Output, Piece, check_fits
from merging.mixing.reading import Inputs, units
from merging.mixing.sides import SPAN, Sides, Span, again, held, spread
from merging.mixing.whole import write_whole
from merging.storage.dtypes import itemsize, size_of
from merging.storage.pool import ModelPool
from merging.storage.raw import Raw, as_tensor

_WINDOW = 8
"""Spans that are merged before they are written."""


def merge_in_blocks(computed: Computed, strategy: str, pool: ModelPool, inputs: Inputs, output: Output) -> None:
    """Writes the tensors of a computed merge, in the order of their names.

    Raises:
        CheckpointError: NaN or infinite values in an input.
        ResultError: a merged value is NaN or infinite, or beyond what the dtype that is written holds.
        StrategyError: the strategy's function failed.
    """
    order = [inputs.checkpoints.index(checkpoint) for checkpoint in computed.checkpoints]
    results = _Results(output, inputs, f"choose other options for '{strategy}'")
    for pieces, parts in inputs.read(units(pool.tensors, len(inputs.checkpoints))):
        spread(partial(_check, inputs, pieces, parts), range(len(parts)))
        for place, piece in enumerate(pieces):
            shape, dtype = pool.tensors[piece.name]
            kernel = computed.in_blocks(piece.name)
            if kernel is not None and not kernel.looks:
                read = held([parts[row][place] for row in order], dtype, piece.start)
            elif piece.stop < math.prod(shape):
                continue
            else:
                read = again([inputs.checkpoints[row].read_bytes for row in order], piece.name, dtype)
            if kernel is None:
                results.finish()
                _whole(piece.name, computed, strategy, pool, inputs, output)
                continue
            sides = Sides(name=piece.name, shape=shape, dtype=dtype, models=len(pool.checkpoints), read=read)
            with np.errstate(all="ignore"):
                blocks = kernel.prepare(sides)
            start = 0 if kernel.looks else piece.start
            spans = (
                blocks.spans
                if kernel.looks
                else [(s, min(s + SPAN, piece.stop)) for s in range(start, piece.stop, SPAN)]
            )
            results.merge(piece.name, blocks, spans)
        results.finish()  # what was read is about to be overwritten
    results.finish()


class _Results:
    """Merges spans into a window, and writes one window while the next is merged."""

    def __init__(self, output: Output, inputs: Inputs, way_out: str) -> None:
        self._output, self._inputs, self._way_out = output, inputs, way_out
        self._buffers: list[Raw] = [np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.uint8)]
        self._following: Future[None] | None = None
        self._turn = 0

    def merge(self, name: str, blocks: Blocks, spans: Sequence[Span]) -> None:
        """Merges a tensor, or some of it."""
        wanted = self._output.tensors[name]
        size, left = itemsize(wanted[1]), iter(spans)
        while window := list(islice(left, _WINDOW)):
            begin, end = window[0][0], window[-1][1]
            self._turn = 1 - self._turn
            if len(self._buffers[self._turn]) < (end - begin) * size:
                self._buffers[self._turn] = np.empty((end - begin) * size, dtype=np.uint8)
            result = self._buffers[self._turn][: (end - begin) * size]

            def merged(span: Span, begin: int = begin, result: Raw = result) -> bool:
                start, stop = span
                return blocks.write(start, stop, result[(start - begin) * size : (stop - begin) * size], wanted[1])

            for (start, stop), within in zip(window, spread(merged, window), strict=True):
                if not within:
                    raw = result[(start - begin) * size : (stop - begin) * size]
                    check_fits(Piece(name, start, stop), blocks.values(start, stop), raw, wanted, self._way_out)
            self.finish()
            self._following = self._inputs.threads.submit(self._output.write, Piece(name, begin, end), result)

    def finish(self) -> None:
        """Waits for what is still written."""
        if self._following is not None:
            self._following.result()
            self._following = None


def _check(inputs: Inputs, pieces: Sequence[Piece], parts: Sequence[Sequence[Raw]], row: int) -> None:
    for place, piece in enumerate(pieces):
        inputs.check(piece, {row: parts[row][place]})


def _whole(name: str, computed: Computed, strategy: str, pool: ModelPool, inputs: Inputs, output: Output) -> None:
    """Merges a tensor that is not merged by blocks: it has few entries, or is the first model's."""
    shape, dtype = pool.tensors[name]
    given = {}
    for checkpoint in inputs.checkpoints:
        raw = np.empty(size_of((shape, dtype)), dtype=np.uint8)
        checkpoint.read_bytes(name, 0, raw.data)
        given[checkpoint] = as_tensor(raw, dtype).view(shape)
    write_whole(Piece(name, 0, math.prod(shape)), computed.combine(name, given), strategy, output)
