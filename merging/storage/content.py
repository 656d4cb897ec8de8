"""Content hashes: the same for the same weights in every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blake3 import blake3

from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def digest_head(name: str, info: TensorInfo) -> bytes:
    """What stands before a tensor's bytes in a content hash."""
    return f"{name}\0{info[1]}\0{list(info[0])}\0".encode()


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE3 over sorted (name, dtype, shape, bytes): the same for the same weights in any file format."""
    import torch

    digest = blake3()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(digest_head(name, (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
