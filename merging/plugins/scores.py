"""What a strategy is given to look at answers with: ``problem.scores``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from merging.values.outcome import Decision
from merging.values.recipe import Merge, Recipe

if TYPE_CHECKING:
    from torch import Tensor


class Scores(Protocol):
    """Logits, labels and scores on the data, for strategies whose ``needs`` hold ``model`` or ``objective``."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that a strategy may use: ``held-out``, and ``train`` and ``unlabelled`` where they are."""

    def logits(self, recipe: Recipe, split: str = "held-out") -> Tensor:
        """Logits of a whole split on the CPU, float32, shape ``(N, classes)``."""

    def foresee(self, recipes: Iterable[Recipe], split: str = "held-out") -> None:
        """Says whose logits will be asked for next, in that order; workers, if any, make them beforehand."""

    def labels(self, split: str = "held-out") -> Tensor:
        """Labels of a whole split on the CPU, int64, shape ``(N,)``."""

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits, such as averaged ones; no model runs, and nothing is counted."""

    def exceeds(self, merged: Merge, threshold: float, *, ties: bool = False, whole: bool = False) -> Decision:
        """Whether the held-out score is above the threshold; may stop once that is certain.

        The answer is that of ``evaluate(merged).score > threshold``, to the last bit. It is journalled, counts as one
        evaluation, and costs the share of a pass that it took; one that saw all samples is that evaluation.

        Args:
            merged: the merge.
            threshold: what the score must exceed.
            ties: an equal score is enough (``>=``).
            whole: only "no" may be said early; where the answer is yes, the decision has the outcome.
        """
