"""Re-scoring in fp32: what a search in bf16 has found, by the scores that every table shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress
from merging.plugins.task import HELD_OUT
from merging.storage.pool import ModelPool
from merging.values.outcome import Outcome
from merging.values.partition import Partition
from merging.values.recipe import Recipe
from merging.values.wording import plural

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator


class Rescoring:
    """Outcomes of record of a run's merges, where the search ran in bf16 or compiled.

    Args:
        evaluator: the run's door to its data.
        pool: the checkpoints.
        partition: one coefficient a component.
        progress: told what is scored.
    """

    def __init__(self, evaluator: Evaluator, pool: ModelPool, partition: Partition, progress: Progress) -> None:
        self._evaluator, self._pool, self._partition, self._progress = evaluator, pool, partition, progress
        self._best: tuple[str, Recipe, Outcome] | None = None

    @property
    def due(self) -> bool:
        """Whether the search ran otherwise than scores are made of record, so that both may differ."""
        return not self._evaluator.exact

    @property
    def search(self) -> str:
        """Name of the search's own scores in messages: ``bf16`` or ``compiled``."""
        return "bf16" if self._evaluator.numerics.dtype == "bfloat16" else "compiled"

    @property
    def ranked(self) -> bool:
        """Whether the single models have been re-scored already."""
        return self._best is not None

    def single(self, name: str) -> Outcome:
        """The outcome of record of one model of the pool."""
        return self._evaluator.record(self._recipe(self._pool.names.index(name)))

    def best_single(self) -> tuple[str, Recipe, Outcome]:
        """The best single model by fp32 scores, the earliest of equals: all are scored, since bf16 ranks otherwise."""
        if self._best is None:
            self._progress.stage("single models, re-scored in fp32", len(self._pool))
            every = [(self._recipe(number), HELD_OUT) for number in range(len(self._pool))]
            self._evaluator.foresee(every, record=True)
            for number, name in enumerate(self._pool.names):
                recipe = self._recipe(number)
                outcome = self._evaluator.record(recipe)
                if self._best is None or outcome.score > self._best[2].score:
                    self._best = name, recipe, outcome
                self._progress.advance()
        if self._best is None:
            raise ValueError("a pool without models has no best one")
        return self._best

    def reversals(self, label: str, kept: Sequence[tuple[Recipe, Outcome]], end: Outcome | None) -> list[str]:
        """Says where fp32 contradicts a step that bf16 has accepted, or the merge as a whole: a sentence each.

        Args:
            label: what tables call the strategy.
            kept: its incumbents in order, with what the search saw; single models that were only ranked come first.
            end: the outcome of record of what it gave.
        """
        singles = next((n for n, (recipe, _) in enumerate(kept) if len(recipe.names) > 1), len(kept))
        steps = kept[max(singles - 1, 0) :]
        self._progress.stage("accepted steps, re-scored in fp32", len(steps))
        exact = []
        for recipe, _ in steps:
            exact.append(self._evaluator.record(recipe).score)
            self._progress.advance()
        said = []
        for number in range(1, len(steps)):
            before, after = steps[number - 1][1].score, steps[number][1].score
            if after > before and exact[number] <= exact[number - 1]:  # a tie is not accepted either
                models = len(steps[number][0].names)
                said.append(
                    f"{_change(before, after)} ({self.search}), {_change(exact[number - 1], exact[number])} in fp32 "
                    f"({plural(models, 'model')})"
                )
        notes = [f"{label}: fp32 reverses {len(said)} of {len(steps) - 1} accepted steps: {'; '.join(said)}"] * bool(
            said
        )
        if end is not None and self._best is not None and end.score < self._best[2].score:
            notes.append(
                f"{label}: re-scored in fp32, the merge is below the best single model, {self._best[0]} "
                f"({end.score:.6g} against {self._best[2].score:.6g} held-out)"
            )
        return notes

    def _recipe(self, number: int) -> Recipe:
        return Recipe.single(self._pool.ingredients[number], self._partition)


def _change(before: float, after: float) -> str:
    return f"{before:.6g} to {after:.6g}"
