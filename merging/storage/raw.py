"""Tensors as bytes: read, widened, narrowed and checked with NumPy, with torch only for dtypes that NumPy lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.storage.content import has_only_finite
from merging.storage.dtypes import NUMPY_FLOATS, is_floating

if TYPE_CHECKING:
    from torch import Tensor

Raw: TypeAlias = NDArray[np.uint8]
"""Bytes of a tensor's elements. What they mean is said by a dtype's name, so that torch is loaded only where NumPy does
not know the dtype: loading it takes longer than merging small models."""


def widen(raw: Raw, dtype: str, into: NDArray[np.floating[Any]]) -> None:
    """Elements of any floating-point dtype, in that of the sums."""
    if dtype in NUMPY_FLOATS:
        np.copyto(into, raw.view(dtype))
    else:
        import torch

        torch.from_numpy(into).copy_(as_tensor(raw, dtype))


def narrow(sums: NDArray[np.floating[Any]], result: Raw, dtype: str) -> None:
    """Sums, in any floating-point dtype, rounded as torch rounds."""
    if dtype == "float16":  # by way of float32, as torch does
        np.copyto(result.view(dtype), sums.astype(np.float32), casting="same_kind")
    elif dtype in NUMPY_FLOATS:
        np.copyto(result.view(dtype), sums, casting="same_kind")
    else:
        import torch

        as_tensor(result, dtype).copy_(torch.from_numpy(sums))


def as_tensor(raw: Raw, dtype: str) -> Tensor:
    """The same bytes as a flat tensor."""
    import torch

    return torch.from_numpy(raw).view(getattr(torch, dtype))


def in_dtype(tensor: Tensor, dtype: str) -> Tensor:
    """A tensor in a dtype by its name."""
    import torch

    return tensor.to(getattr(torch, dtype))


def bytes_of(tensor: Tensor) -> Raw:
    """The same bytes as an array."""
    import torch

    raw: Raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw


def only_finite(raw: Raw, dtype: str) -> bool:
    """Whether no element is NaN or infinite; integers have none."""
    if not is_floating(dtype):
        return True
    return bool(np.isfinite(raw.view(dtype)).all()) if dtype in NUMPY_FLOATS else has_only_finite(as_tensor(raw, dtype))
