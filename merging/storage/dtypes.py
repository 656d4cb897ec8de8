"""Dtypes by their names: what headers, buffers and sums need to know of them, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    import torch

FORMATS = ("safetensors", "pt")
"""Formats that a merged model can be written in; each is the suffix of its file."""
SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Code in a safetensors header → name."""
NUMPY_FLOATS = frozenset({"float64", "float32", "float16"})
"""Floating-point dtypes that NumPy computes with; torch is needed for the rest."""
_NARROW = frozenset({"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"})
"""Floating-point dtypes of which float16 and bfloat16 hold all numbers, each of them."""
_BYTES = {"float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4}
_BYTES |= {"float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "bool": 1}
_BYTES |= dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 1)


def itemsize(dtype: str) -> int:
    """Bytes that one element of a dtype takes.

    >>> itemsize("bfloat16")
    2
    """
    if dtype not in _BYTES:  # only torch.save writes others
        _BYTES[dtype] = torch_dtype(dtype).itemsize
    return _BYTES[dtype]


def dtype_name(tensor: torch.Tensor) -> str:
    """Name of a tensor's dtype, as it stands in headers, partitions and recipes.

    >>> import torch
    >>> dtype_name(torch.ones(1, dtype=torch.bfloat16))
    'bfloat16'
    """
    return str(tensor.dtype).removeprefix("torch.")


def info_of(tensor: torch.Tensor) -> TensorInfo:
    """A tensor's shape and the name of its dtype.

    >>> import torch
    >>> info_of(torch.ones(2, 3))
    ((2, 3), 'float32')
    """
    return tuple(tensor.shape), dtype_name(tensor)


def size_of(info: TensorInfo) -> int:
    """Bytes that a tensor takes, by its shape and dtype.

    >>> size_of(((2, 3), "bfloat16"))
    12
    """
    shape, dtype = info
    return math.prod(shape) * itemsize(dtype)


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of torch that has a name; loads torch.

    >>> torch_dtype("bfloat16")
    torch.bfloat16
    """
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def common_dtype(dtypes: Iterable[str]) -> str | None:
    """The narrowest dtype that holds all numbers of several; None where they differ, and one has no fraction.

    >>> common_dtype(["float16", "bfloat16"]), common_dtype(["bfloat16", "float8_e5m2"]), common_dtype(["int8", "int8"])
    ('float32', 'bfloat16', 'int8')
    """
    found = set(dtypes)
    if len(found) == 1:
        return found.pop()
    if not found <= _NARROW | NUMPY_FLOATS | {"bfloat16"}:
        return None
    wide = sorted(found - _NARROW, key=itemsize)
    if not wide:
        return "float16"
    return wide[-1] if len(wide) == 1 or wide[-1] == "float64" else "float32"


def is_floating(dtype: str) -> bool:
    """Whether a dtype's numbers have a fraction: such tensors are averaged, others come from the first model."""
    return "float" in dtype
