"""Merging without a model: tensors stream from the inputs to the output a few megabytes at a time.

Every byte of the inputs is read once. On that read it is hashed, checked for NaN, and summed. Memory does not grow
with the models: two units of pieces are in use, one being read while the other is summed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from merging.errors import CheckpointError, RecipeError, Stopped
from merging.machine import cores
from merging.mixing.computed import Computed
from merging.plugins.progress import Progress
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import digest_head
from merging.storage.dtypes import itemsize
from merging.storage.pool import ModelPool
from merging.storage.raw import Raw, as_tensor, bytes_of, in_dtype, narrow, only_finite, widen
from merging.storage.shards import ModelWriter
from merging.values.partition import TensorInfo
from merging.values.recipe import Recipe, Weights

UNIT = 64 << 20
"""Bytes that are read and written at a time, all models together."""
BLOCK = 1 << 17
"""Elements that are summed at a time: few enough for a cache, enough for the interpreter not to be what takes time."""
TASK = 1 << 19
"""Elements that a thread sums before it takes up something else."""
_ALIGN, _MIB = 64, 1 << 20
_own = threading.local()


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of a tensor, flat."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Settled:
    """What is known once everything was read.

    Attributes:
        hash: content hash of the merged model.
        hashes: checkpoint → its content hash.
    """

    hash: str
    hashes: Mapping[Checkpoint, str]


def stream(
    merged: Recipe | Weights,
    pool: ModelPool,
    writer: ModelWriter,
    progress: Progress,
    *,
    accumulate: str = "float64",
    should_stop: Callable[[], bool] = lambda: False,
) -> Settled:
    """Builds a merged model tensor by tensor and writes it.

    A recipe's bits are those of :func:`merging.mixing.arithmetic.materialise` where ``accumulate`` is float64 and the
    writer's dtypes are the pool's.

    Args:
        merged: a recipe, or weights whose tensors are computed on access.
        pool: where the ingredients are.
        writer: takes the tensors, in its dtypes.
        progress: told how many bytes were read.
        accumulate: the precision of sums, float64 or float32.
        should_stop: asked between units.

    Raises:
        CheckpointError: NaN or infinite values in an input, or bytes that cannot be read.
        RecipeError: an ingredient's content is not the one that the recipe was made from.
        Stopped: ``should_stop`` said so.
    """
    used = [pool.find(ingredient) for ingredient in merged.ingredients]
    more = merged.tensors.checkpoints if isinstance(merged, Weights) and isinstance(merged.tensors, Computed) else ()
    with Inputs(list(dict.fromkeys([*used, *more])), progress, should_stop) as inputs:
        if isinstance(merged, Recipe):
            digest = _linear(merged, pool, used, inputs, writer, accumulate)
        else:
            digest = _computed(merged, pool, inputs, writer)
        hashes = inputs.hashes()
    for ingredient, checkpoint in zip(merged.ingredients, used, strict=True):
        if not ingredient.hash.startswith(ModelPool.UNREAD) and hashes[checkpoint] != ingredient.hash:
            raise RecipeError(
                f"ingredient '{ingredient.name}': the content of {checkpoint.path} has changed since the recipe was "
                "written; pass the original with --models"
            )
    return Settled(digest, hashes)


def settled(merged: Recipe | Weights, pool: ModelPool, found: Settled) -> Recipe | Weights:
    """The same merge with the hashes that are known now."""
    rows = tuple(replace(i, hash=found.hashes[pool.find(i)]) for i in merged.ingredients)
    if isinstance(merged, Weights):
        return replace(merged, ingredients=rows, hash=found.hash)
    return Recipe(rows, merged.partition, merged.coefficients, merged.overrides)


def units(tensors: Mapping[str, TensorInfo], models: int, *, whole: bool = False) -> list[list[Piece]]:
    """All tensors in the order of their names, cut and gathered to what is read at a time.

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
        self._digests = [blake3() for _ in self.checkpoints]
        self._progress = progress
        self._buffers: dict[tuple[int, int], Raw] = {}

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(cancel_futures=True)

    def hashes(self) -> dict[Checkpoint, str]:
        """Content hashes, once everything was read."""
        return {c: digest.hexdigest() for c, digest in zip(self.checkpoints, self._digests, strict=True)}

    def read(self, work: Sequence[Sequence[Piece]]) -> Iterator[tuple[Sequence[Piece], list[list[Raw]]]]:
        """For each unit its pieces, and for each checkpoint their bytes; the next unit is read meanwhile.

        The bytes are valid until the next unit is asked for.
        """
        sizes = (math.prod(shape) * itemsize(dtype) for shape, dtype in self.checkpoints[0].tensors.values())
        self._progress.stage("merging (MiB read)", len(self.checkpoints) * sum(sizes) // _MIB)
        done = told = 0
        following = self._begin(0, work[0])
        for number, pieces in enumerate(work):
            ready = [future.result() for future in following]
            if number + 1 < len(work):
                following = self._begin(number + 1, work[number + 1])
            yield pieces, ready
            if self._should_stop():
                raise Stopped("interrupted")
            done += sum(part.nbytes for parts in ready for part in parts)
            self._progress.advance(done // _MIB - told)
            told = done // _MIB

    def _begin(self, number: int, pieces: Sequence[Piece]) -> list[Future[list[Raw]]]:
        return [self.threads.submit(self._one, index, number % 2, pieces) for index in range(len(self.checkpoints))]

    def _one(self, index: int, turn: int, pieces: Sequence[Piece]) -> list[Raw]:
        """One checkpoint's pieces, read and hashed."""
        checkpoint, digest = self.checkpoints[index], self._digests[index]
        ends = _ends(pieces, checkpoint.tensors)
        buffer = self._buffers.get((index, turn))
        if buffer is None or len(buffer) < ends[-1]:
            buffer = self._buffers[index, turn] = np.empty(ends[-1], dtype=np.uint8)
        parts = list[Raw]()
        for piece, begin in zip(pieces, ends, strict=False):
            size = itemsize(checkpoint.tensors[piece.name][1])
            raw = buffer[begin : begin + (piece.stop - piece.start) * size]
            checkpoint.read_bytes(piece.name, piece.start * size, raw.data)
            if piece.start == 0:
                digest.update(digest_head(piece.name, checkpoint.tensors[piece.name]))
            digest.update(raw.data)
            parts.append(raw)
        return parts

    def check(self, piece: Piece, parts: Mapping[int, Raw]) -> None:
        """Raises CheckpointError where a checkpoint (by its number) holds NaN or infinite values in a piece."""
        dtype = self.checkpoints[0].tensors[piece.name][1]
        for index, part in parts.items():
            if not only_finite(part, dtype):
                raise CheckpointError(
                    f"{self.checkpoints[index].path}: tensor '{piece.name}' holds NaN or infinite values; "
                    "leave this checkpoint out"
                )


def _linear(
    recipe: Recipe, pool: ModelPool, used: Sequence[Checkpoint], inputs: Inputs, writer: ModelWriter,
    accumulate: str,
) -> str:  # fmt: skip
    """Sums pieces block by block, on all threads; returns the content hash of the result."""
    columns = {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}
    rows = [inputs.checkpoints.index(checkpoint) for checkpoint in used]
    digest = blake3()
    outputs: list[Raw] = [np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.uint8)]
    following: list[Future[None]] = []  # what still writes and hashes the unit before
    for number, (pieces, parts) in enumerate(inputs.read(units(pool.tensors, len(inputs.checkpoints)))):
        ends = _ends(pieces, writer.tensors)
        if len(outputs[number % 2]) < ends[-1]:
            outputs[number % 2] = np.empty(ends[-1], dtype=np.uint8)
        results, tasks = list[Raw](), list[tuple[int, Future[bool]]]()
        for place, piece in enumerate(pieces):
            given, wanted = pool.tensors[piece.name][1], writer.tensors[piece.name][1]
            count = piece.stop - piece.start
            result = outputs[number % 2][ends[place] : ends[place] + count * itemsize(wanted)]
            results.append(result)
            table = recipe.coefficients[:, columns[piece.name]]
            terms = [(parts[row][place], float(c)) for row, c in zip(rows, table, strict=True) if c != 0.0]
            summed = piece.name in pool.mixable and piece.name not in recipe.overrides
            seen = {row for row, c in zip(rows, table, strict=True) if c != 0.0 and summed}  # a NaN shows in the sum
            inputs.check(piece, {row: own[place] for row, own in enumerate(parts) if row not in seen})
            if piece.name in recipe.overrides:
                whole = bytes_of(in_dtype(recipe.overrides[piece.name], wanted))
                np.copyto(result, whole[piece.start * itemsize(wanted) : piece.stop * itemsize(wanted)])
            elif piece.name not in pool.mixable:
                np.copyto(result, parts[rows[0]][place])
            elif not terms:
                result.fill(0)
            else:
                for start in range(0, count, TASK):
                    stop = min(start + TASK, count)
                    areas = [(raw[start * itemsize(given) : stop * itemsize(given)], c) for raw, c in terms]
                    area = result[start * itemsize(wanted) : stop * itemsize(wanted)]
                    tasks.append((place, inputs.threads.submit(_sum, areas, given, area, wanted, accumulate)))
        for place in {place for place, task in tasks if not task.result()}:
            inputs.check(pieces[place], {row: own[place] for row, own in enumerate(parts)})
        for before in following:
            before.result()
        following = [inputs.threads.submit(_finish, pieces, results, writer, digest)]
    for task in following:
        task.result()
    return digest.hexdigest()


def _ends(pieces: Sequence[Piece], tensors: Mapping[str, TensorInfo]) -> list[int]:
    """Where each piece begins in a buffer, in bytes, and where the last one ends."""
    ends = [0]
    for piece in pieces:
        size = (piece.stop - piece.start) * itemsize(tensors[piece.name][1])
        ends.append(ends[-1] + -(-size // _ALIGN) * _ALIGN)
    return ends


def _finish(pieces: Sequence[Piece], results: Sequence[Raw], writer: ModelWriter, digest: blake3) -> None:
    """Writes and hashes what was summed, in order."""
    for piece, result in zip(pieces, results, strict=True):
        if piece.start == 0:
            digest.update(digest_head(piece.name, writer.tensors[piece.name]))
        digest.update(result.data)
        writer.write(piece.name, piece.start * itemsize(writer.tensors[piece.name][1]), result)


def _sum(terms: Sequence[tuple[Raw, float]], given: str, result: Raw, wanted: str, accumulate: str) -> bool:
    """``Σ coefficient · tensor`` with the bits of :func:`merging.mixing.arithmetic.weighted_sum`, a block at a time.

    Args:
        terms: (elements, coefficient) pairs.
        given: the elements' dtype.
        result: is filled.
        wanted: its dtype.
        accumulate: dtype of the sums.

    Returns:
        Whether the sums' own sum is finite: if not, an input may hold NaN or infinite values.
    """
    count = len(result) // itemsize(wanted)
    sums, scaled = _scratch(min(BLOCK, count), accumulate)
    finite, shared = True, _exact_factor(terms, given, accumulate)
    with np.errstate(all="ignore"):  # what is not finite is found below, and named
        for start in range(0, count, len(sums)):
            stop = min(start + len(sums), count)
            length = stop - start
            for number, (raw, coefficient) in enumerate(terms):
                into = (scaled if number else sums)[:length]
                widen(raw[start * itemsize(given) : stop * itemsize(given)], given, into)
                if shared is None:
                    np.multiply(into, coefficient, out=into)
                if number:
                    np.add(sums[:length], into, out=sums[:length])
            if shared is not None:
                np.multiply(sums[:length], shared, out=sums[:length])
            narrow(sums[:length], result[start * itemsize(wanted) : stop * itemsize(wanted)], wanted)
            finite = finite and math.isfinite(np.add.reduce(sums[:length]))
    return finite


def _exact_factor(terms: Sequence[tuple[Raw, float]], given: str, accumulate: str) -> float | None:
    """The coefficient of all terms, where it is one and multiplying the sum by it gives the bits of multiplying each.

    That is so for powers of two, which only change exponents: 2, 4, 8 … models that are averaged. In float64 no
    number of a narrower dtype comes near the ends of the exponent's range. A negative one would turn the sign of a
    zero to which the terms cancel.
    """
    coefficient, wide = terms[0][1], accumulate == "float64" and given != "float64"
    power = math.frexp(coefficient)[0] == 0.5 and 2.0**-64 <= coefficient <= 2.0**64
    return coefficient if wide and power and all(c == coefficient for _, c in terms) else None


def _scratch(size: int, dtype: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Two buffers of this thread's own."""
    if getattr(_own, "dtype", None) != dtype or len(_own.buffers[0]) < size:
        _own.dtype = dtype
        _own.buffers = (np.empty(size, dtype=dtype), np.empty(size, dtype=dtype))
    first, second = _own.buffers
    return first[: max(size, 1)], second[: max(size, 1)]


def _computed(merged: Weights, pool: ModelPool, inputs: Inputs, writer: ModelWriter) -> str:
    """Tensors that a function computes, one by one; the inputs are read and checked in the same order."""
    import torch

    digest, computed = blake3(), merged.tensors if isinstance(merged.tensors, Computed) else None
    for pieces, parts in inputs.read(units(pool.tensors, len(inputs.checkpoints), whole=True)):
        for number, piece in enumerate(pieces):
            shape, dtype = pool.tensors[piece.name]
            inputs.check(piece, {row: part[number] for row, part in enumerate(parts)})
            given = {
                c: as_tensor(part[number], dtype).view(shape) for c, part in zip(inputs.checkpoints, parts, strict=True)
            }
            made = computed.combine(piece.name, given) if computed is not None else merged.tensors[piece.name]
            raw = bytes_of(made.to(getattr(torch, writer.tensors[piece.name][1])))
            digest.update(digest_head(piece.name, writer.tensors[piece.name]))
            digest.update(raw.data)
            writer.write(piece.name, 0, raw)
    return digest.hexdigest()
