"""Safetensors files written piece by piece: one, or several with an index as Hugging Face's libraries read them."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from merging.errors import CheckpointError, OptionError
from merging.storage.atomic import create, put
from merging.storage.dtypes import SAFETENSORS, itemsize, size_of
from merging.values.partition import TensorInfo

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_CODES = {name: code for code, name in SAFETENSORS.items()}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_size(text: str) -> int:
    """Reads a size such as ``5GB``, ``500MiB`` or ``1000``, in bytes.

    Raises:
        OptionError: it is no size.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([a-zA-Z]*)\s*", text)
    try:
        size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise OptionError(f"`max_shard_size` {text}: write it as 5GB or 500MiB")
    return size


class ModelWriter:
    """Writes tensors, in any order and in pieces, to one file or several.

    Every byte of every tensor is written once: what would go over a tensor's end into its neighbour, or come twice, is
    refused as it comes, and what is missing when the block ends.

    Args:
        folder: an empty folder of its own.
        tensors: name → (shape, dtype name) of what will be written.
        max_shard_size: bytes of tensors a file; None: one file. A larger tensor has a file of its own.

    Attributes:
        files: names of the files.

    Raises:
        CheckpointError: safetensors has no such dtype, or the bytes written are not the tensors'.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo], max_shard_size: int | None = None) -> None:
        self.tensors = tensors
        for name, (_, dtype) in tensors.items():
            if dtype not in _CODES:
                raise CheckpointError(f"tensor '{name}' is {dtype}, which a safetensors file cannot hold; write a .pt")
        self._homes: dict[str, tuple[int, int]] = {}
        self._gaps = {name: Gaps(name, size_of(info)) for name, info in tensors.items()}
        self._handles: list[int] = []
        shards = _divided(tensors, max_shard_size)
        count = len(shards)
        names = [MODEL] if count == 1 else [f"model-{k:05}-of-{count:05}.safetensors" for k in range(1, count + 1)]
        for name, shard in zip(names, shards, strict=True):
            self._begin(folder / name, shard)
        if count > 1:
            total = sum(size_of(tensors[name]) for shard in shards for name in shard)
            where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
            put(folder / INDEX, json.dumps(index, indent=2) + "\n")
        self.files = [*names, *([INDEX] if count > 1 else [])]

    def _begin(self, path: Path, shard: list[str]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in shard:
            shape, dtype = self.tensors[name]
            begin, end = end, end + size_of(self.tensors[name])
            header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
            self._homes[name] = (len(self._handles), begin)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        handle = create(path)
        self._handles.append(handle)
        os.pwrite(handle, struct.pack("<Q", len(text)) + text, 0)
        os.ftruncate(handle, 8 + len(text) + end)
        for name in shard:
            number, begin = self._homes[name]
            self._homes[name] = (number, 8 + len(text) + begin)

    def write(self, name: str, offset: int, values: NDArray[np.uint8]) -> None:
        """Writes some elements of a tensor.

        Args:
            name: name of the tensor.
            offset: bytes from the tensor's beginning.
            values: the elements' bytes, contiguous.

        Raises:
            CheckpointError: they are not all the tensor's own, or were written before.
            OSError: the disk is full.
        """
        self._gaps[name].fill(offset, values.nbytes)
        number, begin = self._homes[name]
        data = values.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(data):
            done += os.pwrite(self._handles[number], data[done:], begin + offset + done)

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            os.close(handle)
        if kind is None:
            for gaps in self._gaps.values():
                gaps.check_filled()


class Gaps:
    """The bytes of a tensor that were not written yet.

    Args:
        name: name of the tensor.
        size: its bytes.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._gaps = [(0, size)] if size else []

    def fill(self, offset: int, count: int) -> None:
        """Takes note of a write, whose bytes are no gap any more.

        Raises:
            CheckpointError: it would leave the tensor, or write some of it twice.
        """
        end = offset + count
        if offset < 0 or end > self._size:
            raise CheckpointError(
                f"tensor '{self._name}' has {self._size} bytes; {count} bytes at {offset} are not all its own"
            )
        place = next((k for k, (low, high) in enumerate(self._gaps) if low <= offset and end <= high), None)
        if place is None and count:
            raise CheckpointError(f"tensor '{self._name}': some of its bytes {offset} to {end} were written before")
        if place is not None:
            low, high = self._gaps[place]
            self._gaps[place : place + 1] = [gap for gap in ((low, offset), (end, high)) if gap[0] < gap[1]]

    def check_filled(self) -> None:
        """Raises CheckpointError where bytes were never written."""
        lost = sum(high - low for low, high in self._gaps)
        if lost:
            raise CheckpointError(f"tensor '{self._name}' has {self._size} bytes; {lost} of them were never written")


def _divided(tensors: Mapping[str, TensorInfo], limit: int | None) -> list[list[str]]:
    """Divides tensors into files: wide dtypes first, then by name: each begins at a multiple of its element's size."""
    ordered = sorted(tensors, key=lambda name: (-itemsize(tensors[name][1]), name))
    shards: list[list[str]] = [[]]
    filled = 0
    for name in ordered:
        size = size_of(tensors[name])
        if limit is not None and shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
