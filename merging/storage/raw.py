"""Tensors as bytes: read, widened, narrowed and checked with NumPy, with torch only for dtypes that NumPy lacks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.storage.dtypes import NUMPY_FLOATS, is_floating, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

Raw: TypeAlias = NDArray[np.uint8]
"""Bytes of a tensor's elements. What they mean is said by a dtype's name, so that torch is loaded only where NumPy does
not know the dtype: loading it takes longer than merging small models."""

_LARGEST = {"float64": 1.7976931348623157e308, "float32": 3.4028234663852886e38, "float16": 65504.0}
_FEW = 1 << 14
"""Elements that are converted at a time, within a cache."""
_HALF, _ONE, _BELOW_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)
_EXPONENTS: dict[str, tuple[Any, Any]] = {
    "float64": (np.uint64, np.uint64(0x7FF0000000000000)),
    "float32": (np.uint32, np.uint32(0x7F800000)),
    "float16": (np.uint16, np.uint16(0x7C00)),
    "bfloat16": (np.uint16, np.uint16(0x7F80)),
}
"""Unsigned integers of the same size, and the bits of the exponent."""
_LARGEST |= {"bfloat16": 3.3895313892515355e38, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}


def largest(dtype: str) -> float:
    """The largest number of a floating-point dtype.

    >>> largest("float16")
    65504.0
    """
    if dtype not in _LARGEST:  # only torch.save writes others
        import torch

        _LARGEST[dtype] = float(torch.finfo(torch_dtype(dtype)).max)
    return _LARGEST[dtype]


def first_unfit(values: NDArray[np.floating[Any]], result: Raw, dtype: str) -> int | None:
    """Finds the first number that a dtype does not hold; None where it holds all.

    Rounding to the largest number is rounding; what lies further out is lost, whether the cast gives infinity, NaN or,
    as PyTorch's does for some fp8, the largest number.

    Args:
        values: numbers, flat.
        result: the same ones, rounded.
        dtype: name of the dtype that they were rounded to.
    """
    import torch

    known = torch.finfo(torch_dtype(dtype))
    half_step = known.eps * 2.0 ** (math.frexp(known.max)[1] - 2)
    lost = ~torch.isfinite(as_tensor(result, dtype).double()).numpy()
    with np.errstate(invalid="ignore"):
        lost |= ~(np.abs(values.astype(np.float64)) - known.max <= half_step)
    places = np.flatnonzero(lost)
    return int(places[0]) if len(places) else None


def widen(raw: Raw, dtype: str, into: NDArray[np.floating[Any]]) -> None:
    """Writes elements of any floating-point dtype into an array of the sums' dtype."""
    if dtype in NUMPY_FLOATS:
        np.copyto(into, raw.view(dtype))
    elif dtype == "bfloat16":
        _widen_bfloat16(raw.view(np.uint16), into)
    else:
        import torch

        torch.from_numpy(into).copy_(as_tensor(raw, dtype))


def narrow(sums: NDArray[np.floating[Any]], result: Raw, dtype: str) -> None:
    """Writes sums as elements of any floating-point dtype, rounded as torch rounds."""
    if dtype == "float16":  # by way of float32, as torch does
        np.copyto(result.view(dtype), sums.astype(np.float32), casting="same_kind")
    elif dtype in NUMPY_FLOATS:
        np.copyto(result.view(dtype), sums, casting="same_kind")
    elif dtype == "bfloat16":
        _narrow_to_bfloat16(sums, result.view(np.uint16))
    else:
        import torch

        as_tensor(result, dtype).copy_(torch.from_numpy(sums))


def recast(raw: Raw, dtype: str, into: Raw, wide: str) -> None:
    """Writes elements of one floating-point dtype as those of another that holds all of its numbers."""
    if dtype == wide:
        np.copyto(into, raw)
    elif wide in NUMPY_FLOATS:
        widen(raw, dtype, into.view(wide))
    else:
        as_tensor(into, wide).copy_(as_tensor(raw, dtype))


def _widen_bfloat16(raw: NDArray[np.uint16], into: NDArray[np.floating[Any]]) -> None:
    """Writes bfloat16 numbers, which are the upper halves of float32 ones, into an array, a few at a time."""
    bits = np.empty(min(len(raw), _FEW), dtype=np.uint32)
    for start in range(0, len(raw), _FEW):
        some = raw[start : start + _FEW]
        part = bits[: len(some)]
        np.copyto(part, some)
        part <<= _HALF
        np.copyto(into[start : start + len(some)], part.view(np.float32))


def _narrow_to_bfloat16(sums: NDArray[np.floating[Any]], result: NDArray[np.uint16]) -> None:
    """Rounds to float32, and that to its upper half, to the even one of two that are as near."""
    bits, odd = (np.empty(min(len(sums), _FEW), dtype=np.uint32) for _ in range(2))
    for start in range(0, len(sums), _FEW):
        some = sums[start : start + _FEW]
        part, last = bits[: len(some)], odd[: len(some)]
        np.copyto(part.view(np.float32), some, casting="same_kind")
        np.right_shift(part, _HALF, out=last)
        last &= _ONE
        last += _BELOW_HALF
        part += last
        part >>= _HALF
        np.copyto(result[start : start + len(some)], part, casting="unsafe")


def as_tensor(raw: Raw, dtype: str) -> Tensor:
    """Views bytes as a flat tensor of a dtype."""
    import torch

    if not len(raw):  # an array of nothing has a stride that torch cannot view
        return torch.empty(0, dtype=torch_dtype(dtype))
    return torch.from_numpy(raw).view(torch_dtype(dtype))


def in_dtype(tensor: Tensor, dtype: str) -> Tensor:
    """Casts a tensor to a dtype, by its name."""
    return tensor.to(torch_dtype(dtype))


def bytes_of(tensor: Tensor) -> Raw:
    """Views a tensor's elements, in their order, as bytes; a tensor that is not contiguous is copied."""
    raw: Raw = _flat(tensor).numpy()
    return raw


def _flat(tensor: Tensor) -> Tensor:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one size have the same bytes: 0.0 and -0.0 are equal numbers, but not equal bits."""
    import torch

    return torch.equal(_flat(one), _flat(other))


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


def only_finite(raw: Raw, dtype: str) -> bool:
    """Whether no element is NaN or infinite; integers have none."""
    if not is_floating(dtype):
        return True
    if dtype not in _EXPONENTS:
        return has_only_finite(as_tensor(raw, dtype))
    kind, exponent = _EXPONENTS[dtype]
    bits = raw.view(kind)
    part = np.empty(min(len(bits), _FEW), dtype=kind)
    for start in range(0, len(bits), _FEW):  # all ones in the exponent: infinite or NaN
        some = bits[start : start + _FEW]
        if np.bitwise_and(some, exponent, out=part[: len(some)]).max() == exponent:
            return False
    return True
