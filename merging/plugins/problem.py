"""What a strategy is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from merging.moved import forwarding
from merging.plugins.scores import Scores
from merging.plugins.searches import Searches
from merging.plugins.slopes import Slopes
from merging.values.outcome import Outcome
from merging.values.partition import Partition
from merging.values.recipe import Merge, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from merging.plugins.options import Plugin
    from merging.plugins.progress import Progress
    from merging.storage.pool import ModelPool


class Problem(Protocol):
    """What a strategy is given. Everything it evaluates is counted, journalled and cached at one door.

    What only some strategies need stands behind ``scores``, ``search`` and ``slopes``, each there where the strategy's
    ``needs`` say so; asking for one that they do not hold is a :class:`RequirementError` that says what to add.
    """

    @property
    def pool(self) -> ModelPool:
        """The checkpoints to merge."""

    @property
    def partition(self) -> Partition:
        """The components, one coefficient each; ``partition.active`` are those worth searching."""

    @property
    def generator(self) -> np.random.Generator:
        """Seeded; the only source of randomness a strategy may use."""

    @property
    def progress(self) -> Progress:
        """Where news goes."""

    def single(self, index: int) -> Recipe:
        """Model ``index`` of the pool as it is."""

    def mean(self, indices: Sequence[int]) -> Recipe:
        """The uniform average of some models of the pool."""

    def weights(
        self,
        strategy: Plugin,
        combine: Callable[[str, list[Tensor], Tensor | None], Tensor],
        *,
        base: bool = True,
    ) -> Weights:
        """A merge that no recipe can express.

        ``combine`` takes a tensor's name, it in every model of the pool and in the base (None without one), all
        float64, and returns the merged one. ``base=False``: the base is no ingredient, and None. Integer tensors and
        frozen components come from the first model.
        """

    def evaluate(self, merged: Merge) -> Outcome:
        """The outcome on the held-out data."""

    def rank(self) -> list[tuple[int, Outcome]]:
        """All models of the pool by held-out score, best first; ties in pool order."""

    @property
    def scores(self) -> Scores:
        """Logits, labels and the objective of given logits; there where ``needs`` hold ``model`` or ``objective``."""

    @property
    def search(self) -> Searches:
        """Mixing factors to search over, and the user's optimizer; there where ``needs`` hold ``objective``."""

    @property
    def slopes(self) -> Slopes:
        """Gradients and batches; there where ``needs`` hold ``gradients`` or ``per_sample_gradients``."""

    def decide(self, **facts: Any) -> None:
        """Journals a decision and shows it; ``accepted=`` says which way it went."""

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Tells the core the best merge so far: what an interrupted run saves."""


__getattr__ = forwarding(__name__)  # Path and Blend have moved
