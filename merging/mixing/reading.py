"""Checkpoints read side by side, a few megabytes at a time, each byte once; hashed and looked at on that read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from merging.errors import Stopped, StopReason
from merging.machine import cores
from merging.mixing.output import Piece
from merging.mixing.summing import BLOCK
from merging.plugins.progress import Progress, tell_unit
from merging.storage.checkpoint import Checkpoint, not_finite
from merging.storage.content import ContentHash
from merging.storage.dtypes import itemsize, size_of
from merging.storage.raw import Raw, only_finite
from merging.values.partition import TensorInfo

UNIT = 64 << 20
"""Bytes that are read and written at a time, all models together."""
_ALIGN, _MIB = 64, 1 << 20


def units(tensors: Mapping[str, TensorInfo], models: int, *, whole: bool = False) -> list[list[Piece]]:
    """Cuts and gathers all tensors, in the order of their names, to what is read at a time.

    Args:
        tensors: name → (shape, dtype name).
        models: how many checkpoints are read side by side.
        whole: tensors are not cut, and come one by one.
    """
    room = max(UNIT // (models + 1), 1 << 20)  # one more for the result
    found: list[list[Piece]] = [[]]
    filled = 0
    for name in sorted(tensors):
        shape, dtype = tensors[name]
        size, total = itemsize(dtype), math.prod(shape)
        step = total if whole else max(room // size // BLOCK * BLOCK, BLOCK)
        for start, stop in pairwise([*range(0, total, step), total]) if total else [(0, 0)]:
            if found[-1] and (whole or filled + (stop - start) * size > room):
                found.append([])
                filled = 0
            found[-1].append(Piece(name, start, stop))
            filled += (stop - start) * size
    return found


class Inputs:
    """Checkpoints that are read side by side, each once from its first tensor to its last.

    Args:
        checkpoints: all with the same tensors.
        progress: told how many bytes were read.
        should_stop: asked between units.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], progress: Progress, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.checkpoints = tuple(checkpoints)
        self._should_stop = should_stop
        self.threads = ThreadPoolExecutor(cores())
        self._digests = [ContentHash() for _ in self.checkpoints]
        self._progress = progress
        self._buffers: dict[tuple[int, int], Raw] = {}

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(cancel_futures=True)

    def hashes(self) -> dict[Checkpoint, str]:
        """Gives the content hashes, once everything was read."""
        return {c: digest.hexdigest() for c, digest in zip(self.checkpoints, self._digests, strict=True)}

    def read(self, work: Sequence[Sequence[Piece]]) -> Iterator[tuple[Sequence[Piece], list[list[Raw]]]]:
        """Reads for each unit its pieces, and for each checkpoint their bytes; the next unit is read meanwhile.

        The bytes are valid until the next unit is asked for.
        """
        sizes = map(size_of, self.checkpoints[0].tensors.values())
        tell_unit(self._progress, "MiB")
        self._progress.stage("merging", len(self.checkpoints) * sum(sizes) // _MIB)
        done = told = 0
        following = self._begin(0, work[0])
        for number, pieces in enumerate(work):
            ready = [future.result() for future in following]
            if number + 1 < len(work):
                following = self._begin(number + 1, work[number + 1])
            yield pieces, ready
            if self._should_stop():
                raise Stopped(StopReason.INTERRUPTED)
            done += sum(part.nbytes for parts in ready for part in parts)
            self._progress.advance(done // _MIB - told)
            told = done // _MIB

    def _begin(self, number: int, pieces: Sequence[Piece]) -> list[Future[list[Raw]]]:
        return [self.threads.submit(self._one, index, number % 2, pieces) for index in range(len(self.checkpoints))]

    def _one(self, index: int, turn: int, pieces: Sequence[Piece]) -> list[Raw]:
        """Reads and hashes one checkpoint's pieces."""
        checkpoint, digest = self.checkpoints[index], self._digests[index]
        ends = ends_of(pieces, checkpoint.tensors)
        buffer = self._buffers.get((index, turn))
        if buffer is None or len(buffer) < ends[-1]:
            buffer = self._buffers[index, turn] = np.empty(ends[-1], dtype=np.uint8)
        parts = list[Raw]()
        for piece, begin in zip(pieces, ends, strict=False):
            size = itemsize(checkpoint.tensors[piece.name][1])
            raw = buffer[begin : begin + (piece.stop - piece.start) * size]
            checkpoint.read_hashed(piece.name, piece.start, raw, digest)
            parts.append(raw)
        return parts

    def check(self, piece: Piece, parts: Mapping[int, Raw]) -> None:
        """Raises CheckpointError where a checkpoint (by its number) holds NaN or infinite values in a piece."""
        dtype = self.checkpoints[0].tensors[piece.name][1]
        for index, part in parts.items():
            if not only_finite(part, dtype):
                raise not_finite(self.checkpoints[index], piece.name)


def ends_of(pieces: Sequence[Piece], tensors: Mapping[str, TensorInfo]) -> list[int]:
    """Finds where each piece begins in a buffer, in bytes, and where the last one ends."""
    ends = [0]
    for piece in pieces:
        size = (piece.stop - piece.start) * itemsize(tensors[piece.name][1])
        ends.append(ends[-1] + -(-size // _ALIGN) * _ALIGN)
    return ends
