"""Parts of a set, drawn at random within each class, so that all have the classes in the same proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from merging.values.strata import by_class


def drawn(
    labels: NDArray[np.int64], bounds: Mapping[str, tuple[float, float]], seed: int | Sequence[int]
) -> dict[str, NDArray[np.int64]]:
    """Indices of the parts: drawn within each class, then in the order in which they are stored.

    Args:
        labels: class indices, shape ``(N,)``.
        bounds: part → share of each class at which it begins and ends, between 0 and 1.
        seed: seed of the draw, of one word or several.

    >>> parts = drawn(np.array([0, 0, 1, 1]), {"a": (0, 0.5), "b": (0.5, 1)}, seed=0)
    >>> sorted(np.array([0, 0, 1, 1])[parts["a"]].tolist())
    [0, 1]
    """
    ordered, turns = by_class(labels, np.random.default_rng(seed).permutation(len(labels)))
    share = turns / np.bincount(labels)[labels[ordered]]
    return {name: np.sort(ordered[(share >= low) & (share < high)]) for name, (low, high) in bounds.items()}
