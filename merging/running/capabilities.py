"""What a strategy is given where its ``needs`` say so: scores, searches and slopes, over the evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import RecipeError, RequirementError, StrategyError
from merging.evaluation.bar import Bar
from merging.plugins.optimizer import Vector
from merging.plugins.progress import Progress
from merging.plugins.searches import Path
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import HELD_OUT, UNLABELLED
from merging.plugins.user_code import file_of, kind_of, named, running
from merging.running.search import BoxSearch, Priced, Searching, run_search
from merging.running.seeds import Seeds
from merging.values.outcome import Decision, Outcome, Solution
from merging.values.recipe import Merge, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.evaluation.evaluator import Evaluator
    from merging.plugins.slopes import Blend


@dataclass(frozen=True)
class MergeScores:
    """``problem.scores`` of a run, :class:`merging.plugins.scores.Scores` over its evaluator.

    Attributes:
        looked: names of the data that the strategy has looked at, added to.
    """

    evaluator: Evaluator
    looked: set[str] = field(default_factory=set)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that a strategy may use."""
        return _splits(self.evaluator)

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        """Logits of a whole split, float32 on the CPU."""
        _check_split(self.evaluator, split)
        self.looked.add(split)
        return self.evaluator.outputs.logits(recipe, split)

    def foresee(self, recipes: Iterable[Recipe], split: str = HELD_OUT) -> None:
        """Says whose logits will be asked for next."""
        _check_split(self.evaluator, split)
        self.evaluator.outputs.foresee(recipes, split)

    def labels(self, split: str = HELD_OUT) -> Tensor:
        """Labels of a whole split, on the CPU."""
        _check_split(self.evaluator, split)
        self.looked.add(split)
        return self.evaluator.outputs.labels(split)

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits."""
        samples = len(self.evaluator.task.held_out)
        if getattr(logits, "ndim", 0) == 0 or len(logits) != samples:
            raise RecipeError(f"held-out logits have {samples} rows; problem.scores.score was given {kind_of(logits)}")
        self.looked.add(HELD_OUT)
        return self.evaluator.outputs.score(logits)

    def exceeds(self, merged: Merge, threshold: float, *, ties: bool = False, whole: bool = False) -> Decision:
        """Whether the held-out score is above the threshold."""
        if not isinstance(merged, Merge):
            raise TypeError(f"exceeds takes a Recipe, Weights or Ensemble, not {kind_of(merged)}")
        self.looked.add(HELD_OUT)
        return self.evaluator.exceeds(merged, Bar(float(threshold), ties, whole))


@dataclass(frozen=True, kw_only=True)
class MergeSearches:
    """``problem.search`` of a run, :class:`merging.plugins.searches.Searches` over its evaluator and optimizer.

    Attributes:
        searching: optimizer, seed and budget of the run.
        seeds: the strategy's generators; each search takes the next.
        looked: names of the data that the strategy has looked at, added to.
        strategy: the strategy that searches, for messages.
    """

    evaluator: Evaluator
    searching: Searching
    seeds: Seeds
    progress: Progress
    looked: set[str]
    strategy: MixStrategy | None = None

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Path:
        """λ ↦ outcome of ``λ·incumbent + (1 − λ)·candidate``.

        Raises:
            RecipeError: the function is given something else than a finite factor for each component.
        """
        self.looked.add(HELD_OUT)
        components, loss = len(incumbent.partition), self.searching.optimizer.breaks_ties
        look = self.evaluator.between(incumbent, candidate, mixing, loss=loss)

        def path(factors: Vector) -> Outcome:
            if getattr(factors, "shape", None) != (components,):
                raise RecipeError(
                    f"problem.search.between takes an array, a factor for each of the {components} components, active "
                    f"or not; it was given {kind_of(factors)}"
                )
            if not np.isfinite(factors).all():
                raise RecipeError("problem.search.between was given a factor that is NaN or infinite")
            return look(factors)

        return path

    def maximize(
        self,
        function: Callable[[Vector], Outcome],
        *,
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        rounded: bool = True,
        components: Sequence[int] | None = None,
    ) -> Solution:
        """Searches once, by the user's optimizer; its generator is the next of the strategy's seed sequence.

        Raises:
            StrategyError: not as many components as variables, or one that the partition has not.
        """
        self.evaluator.ledger.end_listening()
        points = self.searching.budget or budget
        search = BoxSearch(
            self._outcomes(function),
            lower,
            upper,
            start,
            points,
            self.seeds.search(),
            self._priced(points, components, len(start), function),
            rounded=rounded,
        )
        return run_search(self.searching.optimizer, search)

    def _outcomes(self, function: Callable[[Vector], Outcome]) -> Path:
        """The strategy's function, whose errors are the strategy's and not the optimizer's.

        Raises:
            StrategyError: it gives something else than outcomes.
        """
        who = named("strategy", self.strategy) if self.strategy is not None else "the strategy"

        def checked(point: Vector) -> Outcome:
            with running(who, self.strategy if self.strategy is not None else function):
                found = function(point)
            if not isinstance(found, Outcome):
                raise StrategyError(
                    f"{who} searches a function that returns {kind_of(found)}, not an Outcome{file_of(function)}"
                )
            return found

        return checked

    def _foresee(self, function: Callable[[Vector], Outcome], points: Sequence[Vector]) -> None:
        """Has the scores of several points made at once, by what the function asks about each of them."""
        generator = self.seeds.generator.bit_generator
        state = generator.state
        wanted = [found for point in points for found in self.evaluator.asked_by(partial(function, point))]
        generator.state = state  # what the function has drawn, it draws again
        self.evaluator.scorer.foresee(wanted)

    def _priced(
        self,
        budget: int,
        components: Sequence[int] | None,
        variables: int,
        function: Callable[[Vector], Outcome],
    ) -> Priced:
        """What points cost; asked of the model only for an optimizer that wants to know, because it takes a moment."""
        meter, costs = self.evaluator.ledger.meter, None
        if components is not None:
            there = len(self.evaluator.keys.partition)
            if len(components) != variables or not all(0 <= column < there for column in components):
                raise StrategyError(
                    f"problem.search.maximize takes a component (0 to {there - 1}) for each of the {variables} "
                    f"variables; it was given {', '.join(map(str, components))}"
                )
            if self.searching.optimizer.weighs_costs:
                each = self.evaluator.scorer.costs()
                costs = tuple(each[column] for column in components)
        before = meter.forward_equivalents
        return Priced(
            costs=costs,
            spent=lambda: meter.forward_equivalents - before,
            on_point=lambda asked, best: self.progress.search(asked, budget, best),
            on_batch=lambda points: self._foresee(function, points) if self.evaluator.scorer.foresees else None,
        )


@dataclass(frozen=True)
class MergeSlopes:
    """``problem.slopes`` of a run, :class:`merging.plugins.slopes.Slopes` over its evaluator.

    Attributes:
        generator: the strategy's generator; draws the samples of ``squared_gradients``.
        looked: names of the data that the strategy has looked at, added to.
    """

    evaluator: Evaluator
    generator: np.random.Generator
    looked: set[str] = field(default_factory=set)

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order."""
        _check_split(self.evaluator, split)
        self.looked.add(split)
        return self.evaluator.gradients.batches(split, generator, size)

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """Rows to be mixed with learned coefficients."""
        return self.evaluator.gradients.blend(rows)

    def squared_gradients(self, recipe: Recipe, split: str, samples: int, *, sampled: bool = True) -> dict[str, Tensor]:
        """The diagonal Fisher information, or the empirical one."""
        _check_split(self.evaluator, split)
        self.looked.add(split)
        return self.evaluator.gradients.squared_gradients(recipe, split, samples, self.generator, sampled=sampled)

    def live(self, recipe: Recipe) -> nn.Module:
        """The merged module, open to autograd."""
        return self.evaluator.gradients.open(recipe)


def _splits(evaluator: Evaluator) -> tuple[str, ...]:
    more = {"train": evaluator.task.train, UNLABELLED: evaluator.task.unlabelled}
    return (HELD_OUT, *(name for name, split in more.items() if split is not None))


def _check_split(evaluator: Evaluator, split: str) -> None:
    """Refuses data that must not choose a merge, such as a test set, and data that there is not.

    Raises:
        RequirementError: it is none of those that a strategy may use.
    """
    if split not in (usable := _splits(evaluator)):
        raise RequirementError(f"a strategy may use {', '.join(usable)}, not '{split}': test sets choose nothing")
