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
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from merging.errors import CheckpointError, RecipeError, Stopped, StopReason, StrategyError
from merging.machine import cores
from merging.mixing.computed import Computed, check_merge, checked
from merging.mixing.output import Output, Piece, Writer, check_fits
from merging.plugins.progress import Progress
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import digest_head
from merging.storage.dtypes import is_floating, itemsize
from merging.storage.pool import ModelPool
from merging.storage.raw import Raw, as_tensor, bytes_of, in_dtype, largest, narrow, only_finite, widen
from merging.values.partition import TensorInfo
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

UNIT = 64 << 20
"""Bytes that are read and written at a time, all models together."""
BLOCK = 1 << 17
"""Elements that are summed at a time: few enough for a cache, enough for the interpreter not to be what takes time."""
TASK = 1 << 19
"""Elements that a thread sums before it takes up something else."""
_ALIGN, _MIB = 64, 1 << 20
_own = threading.local()


@dataclass(frozen=True)
class Settled:
    """What is known once everything was read.

    Attributes:
        hash: content hash of the merged model.
        hashes: checkpoint → its content hash.
        negative: layers whose running variance is negative somewhere in the merged model.
    """

    hash: str
    hashes: Mapping[Checkpoint, str]
    negative: tuple[str, ...] = ()


def stream(
    merged: Recipe | Weights,
    pool: ModelPool,
    writer: Writer,
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
        ResultError: a merged value is NaN or infinite, or lies beyond what the writer's dtype holds.
        StrategyError: tensors that are not of the pool's shapes and kinds.
        Stopped: ``should_stop`` said so.
    """
    check_merge(merged, pool)
    used = [pool.find(ingredient) for ingredient in merged.ingredients]
    more = merged.tensors.checkpoints if isinstance(merged, Weights) and isinstance(merged.tensors, Computed) else ()
    with Inputs(list(dict.fromkeys([*used, *more])), progress, should_stop) as inputs:
        output = Output(writer)
        if isinstance(merged, Recipe):
            _check_overrides(merged, writer.tensors)
            _linear(merged, pool, used, inputs, output, accumulate)
        else:
            _computed(merged, pool, inputs, output)
        hashes = inputs.hashes()
    for ingredient, checkpoint in zip(merged.ingredients, used, strict=True):
        if not ingredient.hash.startswith(ModelPool.UNREAD) and hashes[checkpoint] != ingredient.hash:
            raise RecipeError(
                f"ingredient '{ingredient.name}': the content of {checkpoint.path} has changed since the recipe was "
                "written; pass the original with --models"
            )
        if ingredient.hash.startswith(ModelPool.UNREAD):
            checkpoint.check_unchanged()  # else what was read first, and last, may be of two models
    return Settled(output.hash, hashes, tuple(output.negative))


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
                raise Stopped(StopReason.INTERRUPTED)
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


def _check_overrides(recipe: Recipe, wanted: Mapping[str, TensorInfo]) -> None:
    for name, tensor in recipe.overrides.items():
        info = wanted[name]
        if is_floating(info[1]):
            values = tensor.detach().cpu().double().reshape(-1).numpy()
            raw = bytes_of(in_dtype(tensor, info[1]))
            check_fits(Piece(name, 0, len(values)), values, raw, info, "measure it again: it is one of the overrides")


def _linear(
    recipe: Recipe, pool: ModelPool, used: Sequence[Checkpoint], inputs: Inputs, output: Output, accumulate: str
) -> None:
    """Sums pieces block by block, on all threads."""
    columns = {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}
    rows = [inputs.checkpoints.index(checkpoint) for checkpoint in used]
    outputs: list[Raw] = [np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.uint8)]
    following: list[Future[None]] = []  # what still writes and hashes the unit before
    for number, (pieces, parts) in enumerate(inputs.read(units(pool.tensors, len(inputs.checkpoints)))):
        ends = _ends(pieces, output.tensors)
        if len(outputs[number % 2]) < ends[-1]:
            outputs[number % 2] = np.empty(ends[-1], dtype=np.uint8)
        results, tasks = list[Raw](), list[tuple[int, Future[bool]]]()
        sums = dict[int, list[tuple[Raw, float]]]()
        for place, piece in enumerate(pieces):
            given, wanted = pool.tensors[piece.name][1], output.tensors[piece.name][1]
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
                sums[place] = terms
                for start in range(0, count, TASK):
                    stop = min(start + TASK, count)
                    areas = [(raw[start * itemsize(given) : stop * itemsize(given)], c) for raw, c in terms]
                    area = result[start * itemsize(wanted) : stop * itemsize(wanted)]
                    tasks.append((place, inputs.threads.submit(_sum, areas, given, area, wanted, accumulate)))
        for place in sorted({place for place, task in tasks if not task.result()}):
            piece = pieces[place]
            inputs.check(piece, {row: own[place] for row, own in enumerate(parts)})
            values = _values(sums[place], pool.tensors[piece.name][1], accumulate)
            narrow_sums = accumulate != "float64" and not np.isfinite(values).all()
            way_out = f"leave out --accumulate {accumulate}" if narrow_sums else "choose smaller coefficients"
            check_fits(piece, values, results[place], output.tensors[piece.name], way_out)
        for before in following:
            before.result()
        following = [inputs.threads.submit(_finish, pieces, results, output)]
    for task in following:
        task.result()


def _ends(pieces: Sequence[Piece], tensors: Mapping[str, TensorInfo]) -> list[int]:
    """Where each piece begins in a buffer, in bytes, and where the last one ends."""
    ends = [0]
    for piece in pieces:
        size = (piece.stop - piece.start) * itemsize(tensors[piece.name][1])
        ends.append(ends[-1] + -(-size // _ALIGN) * _ALIGN)
    return ends


def _finish(pieces: Sequence[Piece], results: Sequence[Raw], output: Output) -> None:
    """Writes what was summed, in order."""
    for piece, result in zip(pieces, results, strict=True):
        output.write(piece, result)


def _values(terms: Sequence[tuple[Raw, float]], given: str, accumulate: str) -> NDArray[np.floating[Any]]:
    """``Σ coefficient · tensor``, all elements at once: for those that are looked at one by one."""
    count = len(terms[0][0]) // itemsize(given)
    total, part = np.zeros(count, dtype=accumulate), np.empty(count, dtype=accumulate)
    with np.errstate(all="ignore"):
        for raw, coefficient in terms:
            widen(raw, given, part)
            total += np.multiply(part, coefficient, out=part)
    return total


def _sum(terms: Sequence[tuple[Raw, float]], given: str, result: Raw, wanted: str, accumulate: str) -> bool:
    """``Σ coefficient · tensor`` with the bits of :func:`merging.mixing.arithmetic.weighted_sum`, a block at a time.

    Args:
        terms: (elements, coefficient) pairs.
        given: the elements' dtype.
        result: is filled.
        wanted: its dtype.
        accumulate: dtype of the sums.

    Returns:
        Whether all sums are within the dtype that is wanted: if not, an input may hold NaN or infinite values, or a
        sum is too large, or it is between the largest number and what is rounded to it.
    """
    count = len(result) // itemsize(wanted)
    sums, scaled = _scratch(min(BLOCK, count), accumulate)
    within, limit, shared = True, largest(wanted), _exact_factor(terms, given, accumulate)
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
            # Still in the cache. NaN comes through both, and is within nothing.
            low, high = float(np.minimum.reduce(sums[:length])), float(np.maximum.reduce(sums[:length]))
            within = within and -limit <= low and high <= limit
    return within


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


def _computed(merged: Weights, pool: ModelPool, inputs: Inputs, output: Output) -> None:
    """Tensors that a function computes, one by one; the inputs are read and checked in the same order."""
    computed = merged.tensors if isinstance(merged.tensors, Computed) else None
    for pieces, parts in inputs.read(units(pool.tensors, len(inputs.checkpoints), whole=True)):
        for number, piece in enumerate(pieces):
            shape, dtype = pool.tensors[piece.name]
            inputs.check(piece, {row: part[number] for row, part in enumerate(parts)})
            given = {
                c: as_tensor(part[number], dtype).view(shape) for c, part in zip(inputs.checkpoints, parts, strict=True)
            }
            if computed is not None:
                made = computed.combine(piece.name, given)
            else:
                said = f"strategy '{merged.strategy}' returned"
                made = checked(merged.tensors[piece.name], piece.name, pool.tensors[piece.name], said, StrategyError)
            wanted = output.tensors[piece.name]
            raw = bytes_of(in_dtype(made, wanted[1]))
            if is_floating(wanted[1]) and not _within(made, largest(wanted[1])):
                values = made.double().reshape(-1).numpy()
                check_fits(piece, values, raw, wanted, f"choose other options for '{merged.strategy}'")
            output.write(piece, raw)


def _within(tensor: Tensor, limit: float) -> bool:
    """Whether no element is NaN, or beyond a limit."""
    if not tensor.numel():
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # no extrema of fp8
    low, high = wide.aminmax()
    return -limit <= float(low) and float(high) <= limit
