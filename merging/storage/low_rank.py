"""Products of two thin matrices in float64 whose bits no machine and no number of threads decides.

A library's product adds up in an order of its own, so that its last bits are those of a processor. Here the factors
are cut into two parts of so few bits that every sum of their products is exact, in whatever order it is made (the
splitting of Ozaki et al. 2012, https://doi.org/10.1007/s11075-011-9478-1). What is left out lies 2^-44 below the
largest product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
"""Numbers in rows and columns."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """``left · right``, of which rows can be computed alone; the bits are the same.

    Attributes:
        left: the first factor's larger part and its rest, ``(rows, rank)`` each.
        right: the second factor's, ``(rank, columns)`` each.
    """

    left: tuple[Matrix, Matrix]
    right: tuple[Matrix, Matrix]

    @classmethod
    def of(cls, left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> LowRank:
        """Cuts two factors, ``(rows, rank)`` and ``(rank, columns)``; the rank is one or more."""
        bits = (53 - math.ceil(math.log2(max(left.shape[1], 2)))) // 2
        return cls(_cut(left.astype(np.float64), 1, bits), _cut(right.astype(np.float64), 0, bits))

    @property
    def rank(self) -> int:
        """Number of columns of the first factor."""
        return int(self.left[0].shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.left[0].shape[0], self.right[0].shape[1]

    def rows(self, start: int, stop: int) -> Matrix:
        """Computes some rows of the product."""
        (high, low), (other, rest) = (part[start:stop] for part in self.left), self.right
        with np.errstate(all="ignore"):  # what is infinite or NaN stays that, and is refused where it is read
            product: Matrix = high @ other
            small = high @ rest
            small += low @ other
            product += small
        return product


def _cut(values: Matrix, axis: int, bits: int) -> tuple[Matrix, Matrix]:
    """Cuts numbers into multiples of a power of two that has ``bits`` bits below the largest along an axis, and rests.

    The rests have as many bits again; what lies below them is left out.
    """
    with np.errstate(all="ignore"):
        largest = np.abs(values).max(axis=axis, keepdims=True, initial=0.0)
        unit = np.ldexp(1.0, np.frexp(largest)[1] - bits)
        high = np.rint(values / unit) * unit
        fine = np.ldexp(unit, -bits)
        return high, np.rint((values - high) / fine) * fine
