"""Tensors as torch has them: those that can be merged, and those that are one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import CheckpointError
from merging.storage.dtypes import SAFETENSORS, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

_KNOWN = frozenset(SAFETENSORS.values())
"""Dtypes that can be read and written."""


def check_plain(where: str, tensor: Tensor) -> None:
    """Refuses a tensor that has no plain numbers to average.

    Args:
        where: file and name, with which the message begins.
        tensor: the tensor.

    Raises:
        CheckpointError: it is quantised, sparse, complex, without values, spread over devices, or of another dtype.
    """
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        raise CheckpointError(f"{where} has no shape yet; run the module once")
    if hasattr(tensor, "full_tensor"):
        raise CheckpointError(f"{where} is spread over devices; give its full_tensor()")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
        kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse or complex"
        raise CheckpointError(f"{where} is {kind}; only plain dense tensors can be merged")
    if dtype_name(tensor) not in _KNOWN:
        raise CheckpointError(f"{where} has unsupported dtype {tensor.dtype}")


def place_of(tensor: Tensor) -> tuple[Any, ...]:
    """A value that says where a tensor's numbers lie: the same for two tensors that are one."""
    view = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
    return (str(tensor.device), tensor.untyped_storage().data_ptr(), *view)


def ties_of(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, ...], ...]:
    """Groups of keys whose tensors are the same view of the same storage."""
    by_storage: dict[Any, list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.numel():
            by_storage.setdefault(place_of(tensor), []).append(key)
    return tuple(tuple(keys) for keys in by_storage.values() if len(keys) > 1)
