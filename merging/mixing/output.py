"""Where a merged model goes, piece by piece: looked at, hashed, and taken by files or memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from merging.errors import ResultError
from merging.storage.content import ContentHash
from merging.storage.dtypes import is_floating, itemsize, torch_dtype
from merging.storage.raw import Raw, bytes_of, first_unfit, largest, widen
from merging.storage.shards import Gaps
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of a tensor, flat."""

    name: str
    start: int
    stop: int


class Writer(Protocol):
    """Takes the merged model, piece by piece: files (:class:`merging.storage.shards.ModelWriter`), or memory."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → (shape, dtype name) of what is taken."""

    def write(self, name: str, offset: int, values: Raw) -> None:
        """Takes some elements of a tensor, from a place in bytes on."""


class InMemory:
    """A writer that keeps the model as tensors.

    Args:
        tensors: name → (shape, dtype name) of what will be written.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        import torch

        self.tensors = tensors
        self._made = {name: torch.empty(shape, dtype=torch_dtype(dtype)) for name, (shape, dtype) in tensors.items()}
        self._bytes = {name: bytes_of(tensor) for name, tensor in self._made.items()}
        self._gaps = {name: Gaps(name, len(raw)) for name, raw in self._bytes.items()}

    def write(self, name: str, offset: int, values: Raw) -> None:
        """Takes some elements of a tensor, from a place in bytes on.

        Raises:
            CheckpointError: they are not all the tensor's own, or were written before.
        """
        self._gaps[name].fill(offset, len(values))
        self._bytes[name][offset : offset + len(values)] = values

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors, in the order in which they were named.

        Raises:
            CheckpointError: some bytes were never written.
        """
        for gaps in self._gaps.values():
            gaps.check_filled()
        return self._made


class Nowhere:
    """A writer for what is only to be hashed.

    Args:
        tensors: name → (shape, dtype name) of what is made.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self.tensors = tensors

    def write(self, name: str, offset: int, values: Raw) -> None:
        """Drops the elements: only their hash was wanted."""


class Output:
    """The merged model on its way to a writer: hashed, and its variances looked at.

    Args:
        writer: takes it.

    Attributes:
        negative: layers with a negative variance.
    """

    def __init__(self, writer: Writer) -> None:
        self.tensors = writer.tensors
        self.negative: list[str] = []
        self._writer, self._digest = writer, ContentHash()

    @property
    def hash(self) -> str:
        """The content hash of what was written, once that is everything."""
        return self._digest.hexdigest()

    def write(self, piece: Piece, result: Raw) -> None:
        """Takes the next piece; pieces come in the order of the tensors' names."""
        dtype = self.tensors[piece.name][1]
        self._digest.add(piece.name, self.tensors[piece.name], result, piece.start)
        self._writer.write(piece.name, piece.start * itemsize(dtype), result)
        layer, _, kind = piece.name.rpartition(".")
        if kind == "running_var" and layer not in self.negative and is_floating(dtype) and len(result):
            values = np.empty(piece.stop - piece.start)
            widen(result, dtype, values)
            if values.min() < 0:
                self.negative.append(layer)


def check_fits(piece: Piece, values: NDArray[np.floating[Any]], result: Raw, info: TensorInfo, way_out: str) -> None:
    """Refuses merged values that are not finite, or not in the dtype that they are written in.

    Args:
        piece: the elements that are looked at.
        values: their values before rounding, flat.
        result: the same as they would be written.
        info: the tensor's shape, and the dtype that it is written in.
        way_out: words that end the message.

    Raises:
        ResultError: names the tensor, the first such value, and where it is.
    """
    shape, dtype = info
    place = first_unfit(values, result, dtype)
    if place is None:
        return
    value = float(values[place])
    where = [int(i) for i in np.unravel_index(piece.start + place, shape)] if shape else []
    at = f" at {where}" if where else ""
    if not math.isfinite(value):
        raise ResultError(f"tensor '{piece.name}' of the merged model would be {value}{at}; {way_out}")
    wide = "float32" if abs(value) <= largest("float32") and dtype != "float32" else "float64"
    raise ResultError(
        f"tensor '{piece.name}' of the merged model would be {value:.8g}{at}, beyond the largest number of {dtype}, "
        f"{largest(dtype):.8g}; pass `dtype={wide}`, or {way_out}"
    )
