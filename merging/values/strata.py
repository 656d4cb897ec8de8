"""Strata: samples class by class, from which every draw takes its share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def by_class(labels: NDArray[Any], order: NDArray[np.int64] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples class by class, and the turn of each: how many of its class stand before it.

    >>> samples, turns = by_class(np.array([1, 0, 1, 1, 0]))
    >>> samples.tolist(), turns.tolist()
    ([1, 4, 0, 2, 3], [0, 1, 0, 1, 2])

    Args:
        labels: of the samples, shape ``(N,)``.
        order: in which those of one class follow each other, such as a random permutation, int64 ``(N,)``; default: as
            they are stored.

    Returns:
        Indices of the samples and their turns, int64 ``(N,)`` each.
    """
    order = np.arange(len(labels)) if order is None else order
    samples = order[np.argsort(labels[order], kind="stable")]
    return samples, np.arange(len(samples)) - np.searchsorted(labels[samples], labels[samples])
