"""A model seen in wider dtypes: the same numbers, exactly, where others of its pool have them in another dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from merging.storage.dtypes import itemsize
from merging.storage.raw import Raw, in_dtype, recast
from merging.storage.view import ModelView

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.checkpoint import Checkpoint

BLOCK = 1 << 20
"""Elements of a tensor that are converted at a time."""


class WidenedTensors(ModelView):
    """The tensors of a model, some in a dtype that holds each of their numbers.

    Args:
        model: the model.
        dtypes: name of a tensor → the dtype that it is seen in.

    Attributes:
        model: the model as it is stored.
    """

    format = "model in wider dtypes"

    def __init__(self, model: Checkpoint, dtypes: Mapping[str, str]) -> None:
        super().__init__(model)
        self.tensors = {name: (shape, dtypes.get(name, own)) for name, (shape, own) in model.tensors.items()}

    def read(self, key: str) -> Tensor:
        """Reads one tensor, converted."""
        return in_dtype(self.model.read(key), self.tensors[key][1])

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Reads some of a tensor's elements, converted a block at a time."""
        for _ in self.blocks(key, offset // itemsize(self.tensors[key][1]), np.asarray(into)):
            pass

    def blocks(self, name: str, start: int, into: Raw) -> Iterator[tuple[int, Raw]]:
        """Reads some of a tensor's elements, and gives them as they are stored, too, for what hashes them.

        Args:
            name: name of the tensor.
            start: number of the first element.
            into: what is filled with the converted elements.

        Returns:
            For each block the number of its first element, and its bytes as stored; one at least.
        """
        own, wide = self.model.tensors[name][1], self.tensors[name][1]
        size, count = itemsize(own), len(into) // itemsize(wide)
        buffer: Raw = np.empty(min(BLOCK, count) * size, dtype=np.uint8)
        for begin in range(0, count, BLOCK) if count else (0,):
            end = min(begin + BLOCK, count)
            stored = buffer[: (end - begin) * size]
            self.model.read_bytes(name, (start + begin) * size, stored.data)
            recast(stored, own, into[begin * itemsize(wide) : end * itemsize(wide)], wide)
            yield start + begin, stored
