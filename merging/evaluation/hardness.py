"""Which held-out samples are hard, by what is known of other models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from merging.values.outcome import Outcome


class Hardness:
    """Ranks the held-out samples by the outcomes of a session: a threshold test visits the hardest first.

    Those that the best model so far has wrong come before those that it has right, and among each the fewer of all
    models were right, the sooner. Outcomes are in the journal: a run that goes on visits samples in the same order.
    """

    def __init__(self) -> None:
        self._right: NDArray[np.int64] | None = None
        self._best: Outcome | None = None

    def saw(self, outcome: Outcome) -> None:
        """Takes the next outcome; one that does not say which samples are right says nothing here."""
        if outcome.correct is None:
            return
        hits = outcome.hits.astype(np.int64)
        self._right = hits if self._right is None else self._right + hits
        if self._best is None or outcome.score > self._best.score:
            self._best = outcome

    def easiness(self) -> NDArray[np.int64] | None:
        """Larger for easier samples, int64, shape ``(N,)``; None where nothing is known."""
        if self._right is None or self._best is None:
            return None
        easiness: NDArray[np.int64] = self._right + self._best.hits * (self._right.max() + 1)
        return easiness
