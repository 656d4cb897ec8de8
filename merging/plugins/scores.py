"""What a strategy is given to look at answers with: ``problem.scores``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from merging.values.outcome import Decision
from merging.values.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


class Scores(Protocol):
    """Logits, labels and scores on the data, for strategies whose ``needs`` hold ``model`` or ``objective``."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that a strategy may use: ``held-out``, and ``train`` and ``unlabelled`` where they are."""

    def logits(self, recipe: Recipe, split: str = "held-out") -> Tensor:
        """Logits of a whole split on the CPU, float32, shape ``(N, classes)``."""

    def labels(self, split: str = "held-out") -> Tensor:
        """Labels of a whole split on the CPU, int64, shape ``(N,)``."""

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits, such as averaged ones; no model runs, and nothing is counted."""

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        """Whether the held-out score is above the threshold; may stop once that is certain.

        It is not journalled, fills no cache, and costs the share of a pass that it took.
        """
