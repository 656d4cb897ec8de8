"""Content hashes: the same for the same weights in every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blake3 import blake3

from merging.storage.dtypes import info_of
from merging.storage.raw import Raw, bytes_of
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def digest_head(name: str, info: TensorInfo) -> bytes:
    """The bytes that stand before a tensor's own in a content hash: its name, dtype and shape."""
    return f"{name}\0{info[1]}\0{list(info[0])}\0".encode()


class ContentHash:
    """The content hash of a model that comes piece by piece: tensors in the order of their names."""

    def __init__(self) -> None:
        self._digest = blake3()

    def add(self, name: str, info: TensorInfo, values: Raw, start: int = 0) -> None:
        """Takes the next elements of a tensor.

        Args:
            name: name of the tensor.
            info: its shape and dtype.
            values: the elements' bytes.
            start: number of the first of these elements in the tensor, flat.
        """
        if start == 0:
            self._digest.update(digest_head(name, info))
        self._digest.update(values.data)

    def hexdigest(self) -> str:
        """The hash of all that was taken."""
        return self._digest.hexdigest()


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hashes a model: BLAKE3 over sorted (name, dtype, shape, bytes), the same for the same weights in any format."""
    digest = ContentHash()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.add(name, info_of(tensor), bytes_of(tensor))
    return digest.hexdigest()
