"""Arrays and numbers of NumPy in a pickle, made of what it says by these functions and not by NumPy's own.

NumPy's believe a pickle: a dtype may say that eight bytes of the file are a pointer to an object, and whoever looks at
that number follows it. Here dtypes are plain ones by their letters, and bytes must be as many as the shape says.
"""

from __future__ import annotations

import math
import re
from pickle import UnpicklingError
from typing import Any

import numpy as np

UNFIT = "values of NumPy that are no plain numbers, texts or times"
"""Begins what is said of all that is refused here."""
_LETTERS = re.compile(r"[<>=|]?[biufcSUmM]\d{0,9}")
"""Objects (O) and records (V), which may hold some, are none."""


class Dtype:
    """A dtype, as a pickle spells it.

    Args:
        letters: such as ``f8``.
        more: what NumPy is told besides, which changes nothing here.

    Raises:
        UnpicklingError: it is none of plain values.
    """

    def __init__(self, letters: Any, *more: Any) -> None:
        del more
        self.made = _plain(letters)

    def __setstate__(self, state: Any) -> None:
        """Takes the order of bytes and, of times, the unit; sizes stand in the letters."""
        version, order, *others = state
        del version
        if order in ("<", ">"):
            self.made = self.made.newbyteorder(order)
        if self.made.kind in "mM" and len(others) > 6:
            unit, count = others[6][1][:2]
            unit = unit.decode("ascii") if isinstance(unit, bytes) else str(unit)
            self.made = np.dtype(f"{self.made.byteorder}{self.made.kind}8[{int(count)}{unit}]")


class Array(np.ndarray):
    """An array that a pickle fills; empty until then."""

    def __new__(cls, *said: Any) -> Array:
        """Makes an empty one, whatever a pickle says of it."""
        del said
        return np.ndarray.__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        """Takes shape, dtype and bytes.

        Raises:
            UnpicklingError: they do not fit.
        """
        _, shape, dtype, columns_first, content = state
        shape = tuple(int(length) for length in shape)
        if not isinstance(dtype, Dtype) or not isinstance(content, bytes) or any(length < 0 for length in shape):
            raise UnpicklingError(f"{UNFIT}: an array of something else")
        if math.prod(shape) * dtype.made.itemsize != len(content):
            raise UnpicklingError(f"{UNFIT}: shape {shape}, and {len(content)} bytes")
        super().__setstate__((1, shape, dtype.made, bool(columns_first), content))  # type: ignore[arg-type]  # no np.bool


def array(*said: Any) -> Array:
    """Begins an array, as ``_reconstruct`` of NumPy does; what it holds comes with the state."""
    return Array(*said)


def scalar(dtype: Any, content: Any = b"") -> Any:
    """One number or text, of its bytes.

    Raises:
        UnpicklingError: they are not as many as it has.
    """
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes) or len(content) != dtype.made.itemsize:
        raise UnpicklingError(f"{UNFIT}: one of something else, or not of its length")
    return np.ndarray((), dtype.made, buffer=content)[()] if content else dtype.made.type()


def no_bytes() -> bytes:
    """Gives none: how a pickle of ``torch.save`` spells the content of an array without elements."""
    return b""


def _plain(letters: Any) -> np.dtype[Any]:
    if isinstance(letters, str) and _LETTERS.fullmatch(letters):
        try:
            return np.dtype(letters)
        except (TypeError, ValueError):
            pass
    raise UnpicklingError(f"{UNFIT}: {str(letters)[:20]!r}")
