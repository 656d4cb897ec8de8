"""Everything random of one strategy's run follows from one seed."""

from __future__ import annotations

import numpy as np


class Seeds:
    """Generators of random numbers: one for the strategy, and one for each of its searches, in order.

    Args:
        seed: seed of the run.

    Attributes:
        generator: the strategy's own generator.
    """

    def __init__(self, seed: int) -> None:
        self._sequence = np.random.SeedSequence(seed)
        self.generator = np.random.default_rng(self._sequence.spawn(1)[0])
        self._untouched = self.generator.bit_generator.state

    @property
    def searches(self) -> int:
        """Number of searches that have been given a generator."""
        return self._sequence.n_children_spawned - 1

    def search(self) -> np.random.Generator:
        """The generator of the next search."""
        return np.random.default_rng(self._sequence.spawn(1)[0])

    @property
    def used(self) -> bool:
        """Whether anything random was drawn, or a search (which has a generator of its own) was made."""
        return self._sequence.n_children_spawned > 1 or self.generator.bit_generator.state != self._untouched
