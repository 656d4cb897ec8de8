"""The evaluator as a benchmark uses it: the same work, with notes of what a search has found so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from merging.benchmarking.memory import Memory
from merging.evaluation.evaluator import Evaluator
from merging.plugins.task import HELD_OUT
from merging.values.outcome import Outcome
from merging.values.recipe import Merge, Recipe


class SharedEvaluator(Evaluator):
    """One method's evaluator over the shared memory.

    Each method has one of its own: kept activations, and the order in which threshold tests visit samples, are then
    those of the method alone, so that its result does not depend on which methods ran before it.

    Attributes:
        trace: (forward-equivalents spent, evaluations, best held-out score seen), a line for each improvement.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.trace: list[tuple[float, int, float]] = []
        if not isinstance(self.journal, Memory):
            raise TypeError("a shared evaluator needs a Memory as its journal")
        self.memory = self.journal

    def evaluate(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of a merged model on a split."""
        outcome = super().evaluate(merged, split)
        if split == HELD_OUT:
            self._note(outcome)
        return outcome

    def record(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of record; the memory knows it where a search has seen the same, whichever method's it was."""
        if self.of_record(split):
            return super().evaluate(merged, split)
        return super().record(merged, split)

    def between(self, incumbent: Recipe, candidate: Recipe, mixing: str) -> Callable[[NDArray[np.float64]], Outcome]:
        """The function λ ↦ outcome of the trial mix."""
        trial = super().between(incumbent, candidate, mixing)

        def noted(factors: NDArray[np.float64]) -> Outcome:
            outcome = trial(factors)
            self._note(outcome)
            return outcome

        return noted

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        """Logits of a whole split; a pass, also where the memory holds its score, and timed as one."""
        with self.memory.apart():
            return super().logits(recipe, split)

    def digest(self, merged: Merge) -> str:
        """The same for merges that give the same logits, whatever the partition."""
        return self._key(self._content(merged), HELD_OUT)

    def _note(self, outcome: Outcome) -> None:
        if not self.trace or outcome.score > self.trace[-1][2]:
            self.trace.append((self.meter.forward_equivalents, self.meter.evaluations, outcome.score))
