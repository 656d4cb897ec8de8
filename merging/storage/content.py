"""Content hashes: the same for the same weights in every format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from blake3 import blake3

from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def has_only_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; integers have none."""
    import torch

    if not tensor.is_floating_point():
        return True
    # isfinite knows no fp8; float64 must not pass through float32, where 1e300 would be infinite
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    # One sum is many times faster than a mask. It may overflow where no element does: then the mask decides.
    kind = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return math.isfinite(float(wide.sum(dtype=kind))) or bool(torch.isfinite(wide).all())


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
