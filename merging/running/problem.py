"""What a strategy works with: the :class:`merging.plugins.problem.Problem` over pool, partition, evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import RequirementError
from merging.mixing.computed import Combine, Computed
from merging.plugins.optimizer import Optimizer, Vector
from merging.plugins.options import Plugin
from merging.plugins.problem import Blend, Path
from merging.plugins.progress import Progress
from merging.plugins.task import HELD_OUT, UNLABELLED
from merging.running.search import BoxSearch, run_search
from merging.running.seeds import Seeds
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.values.outcome import Decision, Outcome, Solution
from merging.values.partition import Partition
from merging.values.recipe import Merge, Recipe, Weights
from merging.values.report import scored

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log


class MergeProblem:
    """One strategy's view of a run.

    Args:
        pool: the checkpoints.
        partition: their components.
        evaluator: the door to the data, or None where there is no task.
        optimizer: the backend that ``maximize`` uses.
        journal: where decisions go.
        progress: where news goes.
        seed: of this run; the strategy's and every search's generators follow from it.
        budget: evaluations per optimiser call, instead of what the strategy asks for.
        on_ranked: told the best single model, name and outcome, whenever the models have been ranked.
    """

    def __init__(
        self,
        pool: ModelPool,
        partition: Partition,
        evaluator: Evaluator | None,
        optimizer: Optimizer,
        journal: Log,
        progress: Progress,
        *,
        seed: int = 0,
        budget: int | None = None,
        on_ranked: Callable[[str, Outcome], None] = lambda name, outcome: None,
    ) -> None:
        self.pool = pool
        self.partition = partition
        self.progress = progress
        self.best: tuple[Recipe, Outcome] | None = None
        self.top: Outcome | None = None  # of the best single model, once they are ranked
        self.top_name: str | None = None
        self.kept: list[tuple[Recipe, Outcome]] = []  # what was the best so far, one after the other
        self.decisions: list[dict[str, Any]] = []
        self._evaluator = evaluator
        self._optimizer = optimizer
        self._journal = journal
        self._budget = budget
        self._on_ranked = on_ranked
        self.seeds = Seeds(seed)
        self.generator = self.seeds.generator
        self._singles: dict[int, Recipe] = {}

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator; a strategy that declares its needs always finds one."""
        if self._evaluator is None:
            raise RequirementError("this strategy evaluates models, but there is no task; give one with --task")
        return self._evaluator

    def single(self, index: int) -> Recipe:
        """Model ``index`` as it is."""
        if index not in self._singles:
            self._singles[index] = Recipe.single(self.pool.ingredients[index], self.partition)
        return self._singles[index]

    def mean(self, indices: Sequence[int]) -> Recipe:
        """The uniform average of some models."""
        return Recipe.mean([self.pool.ingredients[index] for index in indices], self.partition)

    def weights(self, strategy: Plugin, combine: Combine, *, base: bool = True) -> Weights:
        """A merge computed tensor by tensor; at once where it may be scored, else while it is written."""
        computed = Computed(self.pool, self.partition, combine, base=base, strategy=strategy.name)
        last = (self.pool.base_ingredient,) if self.pool.base and base else ()
        rows = (*self.pool.ingredients, *last)
        if self._evaluator is None:
            return Weights(computed, rows, strategy.name, strategy.options(), "")
        tensors = dict(computed)
        return Weights(tensors, rows, strategy.name, strategy.options(), content_hash(tensors))

    def evaluate(self, merged: Merge) -> Outcome:
        """The outcome on the held-out data."""
        return self.evaluator.evaluate(merged)

    def rank(self) -> list[tuple[int, Outcome]]:
        """All models, best first; ties in pool order (the sort is stable)."""
        self.progress.stage("scoring the single models", len(self.pool))
        outcomes = []
        for index in range(len(self.pool)):
            outcome = self.evaluate(self.single(index))
            outcomes.append((index, outcome))
            if self.top is None or outcome.score > self.top.score:
                self.top, self.top_name = outcome, self.pool.names[index]
                self.keep(self.single(index), outcome)
            self.progress.advance()
        if self.top is not None and self.top_name is not None:
            self._on_ranked(self.top_name, self.top)
        return sorted(outcomes, key=lambda pair: -pair[1].score)

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        """Whether the held-out score is above the threshold."""
        return self.evaluator.exceeds(recipe, threshold)

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Path:
        """λ ↦ outcome of ``λ·incumbent + (1 − λ)·candidate``."""
        return self.evaluator.between(incumbent, candidate, mixing)

    def maximize(
        self,
        function: Callable[[Vector], Outcome],
        *,
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        rounded: bool = True,
    ) -> Solution:
        """One optimiser call; its generator is the next of the run's seed sequence."""
        points = self._budget or budget
        generator = self.seeds.search()
        search = BoxSearch(function, lower, upper, start, points, generator, self._on_point(points), rounded=rounded)
        return run_search(self._optimizer, search)

    def _on_point(self, budget: int) -> Callable[[int, float], None]:
        return lambda asked, best: self.progress.search(asked, budget, best)

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        """Logits of a split."""
        return self.evaluator.outputs.logits(recipe, split)

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits."""
        return self.evaluator.outputs.score(logits)

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A split in random order."""
        return self.evaluator.gradients.batches(split, generator, size)

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Loss, and its derivative by the coefficients."""
        return self.evaluator.gradients.gradient(recipe, batch)

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """Rows to be mixed with learned coefficients."""
        return self.evaluator.gradients.blend(rows)

    def labels(self, split: str = HELD_OUT) -> Tensor:
        """Labels of a split."""
        return self.evaluator.outputs.labels(split)

    @property
    def splits(self) -> tuple[str, ...]:
        """Data that a strategy may use."""
        task = self.evaluator.task
        more = {"train": task.train, UNLABELLED: task.unlabelled}
        return (HELD_OUT, *(name for name, split in more.items() if split is not None))

    def squared_gradients(self, recipe: Recipe, split: str, samples: int, *, sampled: bool = True) -> dict[str, Tensor]:
        """The diagonal Fisher information, or the empirical one."""
        return self.evaluator.gradients.squared_gradients(recipe, split, samples, self.generator, sampled=sampled)

    def live(self, recipe: Recipe) -> nn.Module:
        """The merged module."""
        return self.evaluator.gradients.open(recipe)

    def decide(self, **facts: Any) -> None:
        """Journals a decision, keeps it for the report, and tells it."""
        self.decisions.append(facts)
        self._journal.write("decision", **facts)
        self.progress.decision(facts)

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Remembers the best merge so far."""
        if self.best is None or outcome.score >= self.best[1].score:
            self.best = (recipe, outcome)
            self.kept.append(self.best)
            self.progress.best(outcome, len(recipe.names))
            if len(recipe.names) == 1:
                self.progress.status(f"best {scored(outcome.score, self.evaluator.objective.name)}, {recipe.names[0]}")
