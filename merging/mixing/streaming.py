"""Merging without a model: tensors stream from the inputs to the output a few megabytes at a time.

Every byte of the inputs is read once. On that read it is hashed, checked for NaN, and summed. Memory does not grow
with the models: two units of pieces are in use, one being read while the other is summed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from merging.errors import RecipeError, StrategyError
from merging.mixing.computed import Computed, check_merge, checked
from merging.mixing.in_blocks import merge_in_blocks
from merging.mixing.output import Output, Piece, Writer, check_fits
from merging.mixing.reading import Inputs, ends_of, units
from merging.mixing.summing import TASK, sum_into, sums_of, variances_into
from merging.mixing.variances import bounded
from merging.mixing.whole import write_whole
from merging.plugins.progress import Progress
from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import is_floating, itemsize
from merging.storage.file_hashes import REFUTED
from merging.storage.pool import ModelPool
from merging.storage.raw import Raw, as_tensor, bytes_of, in_dtype
from merging.storage.rows import UNREAD
from merging.values.partition import TensorInfo
from merging.values.recipe import Recipe, Weights


@dataclass(frozen=True)
class Settled:
    """The hashes that are known once everything was read.

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
        pool: the checkpoints, among them the ingredients.
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
        elif isinstance(merged.tensors, Computed) and merged.tensors.blockwise is not None:
            merge_in_blocks(merged.tensors, merged.strategy, pool, inputs, output)
        else:
            _computed(merged, pool, inputs, output)
        hashes = inputs.hashes()
    for ingredient, checkpoint in zip(merged.ingredients, used, strict=True):
        if not ingredient.hash.startswith(UNREAD) and hashes[checkpoint] != ingredient.hash:
            if checkpoint.refute(ingredient.hash):
                raise RecipeError(f"ingredient '{ingredient.name}': {checkpoint.path} {REFUTED}; start a new run")
            raise RecipeError(
                f"ingredient '{ingredient.name}': the content of {checkpoint.path} has changed since the recipe was "
                "written; pass the original with `models`"
            )
        if ingredient.hash.startswith(UNREAD):
            checkpoint.check_unchanged()  # else what was read first, and last, may be of two models
    return Settled(output.hash, hashes, tuple(output.negative))


def settled(merged: Recipe | Weights, pool: ModelPool, found: Settled) -> Recipe | Weights:
    """Gives the same merge with the hashes that are known now."""
    rows = tuple(replace(i, hash=found.hashes[pool.find(i)]) for i in merged.ingredients)
    if isinstance(merged, Weights):
        return replace(merged, ingredients=rows, hash=found.hash)
    return Recipe(rows, merged.partition, merged.coefficients, merged.overrides)


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
        ends = ends_of(pieces, output.tensors)
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
                add = variances_into if bounded(piece.name, (c for _, c in terms)) else sum_into
                for start in range(0, count, TASK):
                    stop = min(start + TASK, count)
                    areas = [(raw[start * itemsize(given) : stop * itemsize(given)], c) for raw, c in terms]
                    area = result[start * itemsize(wanted) : stop * itemsize(wanted)]
                    tasks.append((place, inputs.threads.submit(add, areas, given, area, wanted, accumulate)))
        for place in sorted({place for place, task in tasks if not task.result()}):
            piece = pieces[place]
            inputs.check(piece, {row: own[place] for row, own in enumerate(parts)})
            values = sums_of(sums[place], pool.tensors[piece.name][1], accumulate)
            narrow_sums = accumulate != "float64" and not np.isfinite(values).all()
            way_out = f"leave out `accumulate={accumulate}`" if narrow_sums else "choose smaller coefficients"
            check_fits(piece, values, results[place], output.tensors[piece.name], way_out)
        for before in following:
            before.result()
        following = [inputs.threads.submit(_finish, pieces, results, output)]
    for task in following:
        task.result()


def _finish(pieces: Sequence[Piece], results: Sequence[Raw], output: Output) -> None:
    """Writes what was summed, in order."""
    for piece, result in zip(pieces, results, strict=True):
        output.write(piece, result)


def _computed(merged: Weights, pool: ModelPool, inputs: Inputs, output: Output) -> None:
    """Writes the tensors that a function computes, one by one; the inputs are read and checked in the same order."""
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
            write_whole(piece, made, merged.strategy, output)
