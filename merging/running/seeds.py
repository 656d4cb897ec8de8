"""Everything random of one strategy's run follows from one seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    def follow(self, searches: int, state: Mapping[str, Any]) -> None:
        """Goes on to where the same generators are in another process.

        Args:
            searches: how many searches have been made there.
            state: the state of the strategy's own generator, as NumPy says it.
        """
        while self.searches < searches:
            self.search()
        self.generator.bit_generator.state = state

    @property
    def used(self) -> bool:
        """Whether anything random was drawn, or a search (which has a generator of its own) was made."""
        return self._sequence.n_children_spawned > 1 or self.generator.bit_generator.state != self._untouched
