"""Sums of raw elements, with the bits of the definition, a block at a time and without copies."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merging.mixing.variances import FLOOR
from merging.storage.dtypes import itemsize
from merging.storage.raw import Raw, largest, narrow, widen

BLOCK = 1 << 17
"""Elements that are summed at a time: few enough for a cache, enough for the interpreter not to be what takes time."""
TASK = 1 << 19
"""Elements that a thread sums before it takes up something else."""
_own = threading.local()


def sums_of(terms: Sequence[tuple[Raw, float]], given: str, accumulate: str) -> NDArray[np.floating[Any]]:
    """Computes ``Σ coefficient · tensor``, all elements at once: for those that are looked at one by one."""
    count = len(terms[0][0]) // itemsize(given)
    total, part = np.zeros(count, dtype=accumulate), np.empty(count, dtype=accumulate)
    with np.errstate(all="ignore"):
        for raw, coefficient in terms:
            widen(raw, given, part)
            total += np.multiply(part, coefficient, out=part)
    return total


def sum_into(terms: Sequence[tuple[Raw, float]], given: str, result: Raw, wanted: str, accumulate: str) -> bool:
    """Computes ``Σ coefficient · tensor``, a block at a time.

    The bits are those of :func:`merging.mixing.arithmetic.weighted_sum`.

    Args:
        terms: (elements, coefficient) pairs.
        given: the elements' dtype.
        result: is filled.
        wanted: its dtype.
        accumulate: dtype of the sums.

    Returns:
        Whether all sums are within the dtype that is wanted: if not, an input may hold NaN or infinite values, or a
        sum is too large, or it is between the largest number and what is rounded to it.
    """
    count = len(result) // itemsize(wanted)
    sums, scaled = _scratch(min(BLOCK, count), accumulate)
    within, limit, shared = True, largest(wanted), _exact_factor(terms, given, accumulate)
    with np.errstate(all="ignore"):  # what is not finite is found below, and named
        for start in range(0, count, len(sums)):
            stop = min(start + len(sums), count)
            length = stop - start
            for number, (raw, coefficient) in enumerate(terms):
                into = (scaled if number else sums)[:length]
                widen(raw[start * itemsize(given) : stop * itemsize(given)], given, into)
                if shared is None:
                    np.multiply(into, coefficient, out=into)
                if number:
                    np.add(sums[:length], into, out=sums[:length])
            if shared is not None:
                np.multiply(sums[:length], shared, out=sums[:length])
            narrow(sums[:length], result[start * itemsize(wanted) : stop * itemsize(wanted)], wanted)
            # Still in the cache. NaN comes through both, and is within nothing.
            low, high = float(np.minimum.reduce(sums[:length])), float(np.maximum.reduce(sums[:length]))
            within = within and -limit <= low and high <= limit
    return within


def variances_into(terms: Sequence[tuple[Raw, float]], given: str, result: Raw, wanted: str, accumulate: str) -> bool:
    """The same for variances under negative coefficients, which keep a tenth of the smallest one.

    The bits are those of :func:`merging.mixing.variances.bounded_below`. Arguments and result are :func:`sum_into`'s.
    """
    sums, part = sums_of(terms, given, accumulate), np.empty(len(result) // itemsize(wanted), dtype=accumulate)
    smallest = np.full_like(part, np.inf)
    with np.errstate(all="ignore"):
        for raw, _ in terms:
            widen(raw, given, part)
            np.minimum(smallest, part, out=smallest)
        np.maximum(sums, FLOOR * smallest, out=sums)
    narrow(sums, result, wanted)
    return bool((np.abs(sums) <= largest(wanted)).all())


def _exact_factor(terms: Sequence[tuple[Raw, float]], given: str, accumulate: str) -> float | None:
    """Finds the one coefficient of all terms, where multiplying their sum by it gives the bits of multiplying each.

    That is so for powers of two, which only change exponents: 2, 4, 8 … models that are averaged. In float64 no
    number of a narrower dtype comes near the ends of the exponent's range. A negative one would turn the sign of a
    zero to which the terms cancel.
    """
    coefficient, wide = terms[0][1], accumulate == "float64" and given != "float64"
    power = math.frexp(coefficient)[0] == 0.5 and 2.0**-64 <= coefficient <= 2.0**64
    return coefficient if wide and power and all(c == coefficient for _, c in terms) else None


def _scratch(size: int, dtype: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Gives two buffers of this thread's own."""
    if getattr(_own, "dtype", None) != dtype or len(_own.buffers[0]) < size:
        _own.dtype = dtype
        _own.buffers = (np.empty(size, dtype=dtype), np.empty(size, dtype=dtype))
    first, second = _own.buffers
    return first[: max(size, 1)], second[: max(size, 1)]
