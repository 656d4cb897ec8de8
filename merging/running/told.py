"""What a strategy finds on a worker, where it runs whole: a problem that tells the driver what the strategy does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from merging.plugins.strategy import MixStrategy, mixed
from merging.running.problem import MergeProblem
from merging.running.search import Searching
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.values.outcome import Outcome
from merging.values.recipe import Merge, Recipe

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.workers.telling import Telling


def told(
    evaluator: Evaluator,
    pool: ModelPool,
    telling: Telling,
    *,
    strategy: MixStrategy,
    searching: Searching,
    news: Sequence[str],
) -> Merge:
    """Runs a strategy on a worker.

    Args:
        evaluator: tells what is evaluated.
        pool: the models.
        telling: takes what the strategy does besides.
        strategy: the strategy.
        searching: how its searches are made.
        news: methods of the driver's progress.
    """
    problem = _Told(evaluator, pool, telling, strategy, searching, news)
    merged = mixed(strategy, problem)
    telling.before()
    return merged


class _Told(MergeProblem):
    """The problem of a strategy that runs on a worker: what the strategy does is told."""

    def __init__(
        self,
        evaluator: Evaluator,
        pool: ModelPool,
        telling: Telling,
        strategy: MixStrategy,
        searching: Searching,
        news: Sequence[str],
    ) -> None:
        from merging.evaluation.scorer import LiveScorer

        progress: Any = _News(telling, frozenset(news))
        super().__init__(
            pool, evaluator.keys.partition, evaluator, searching, Journal(None), progress, strategy=strategy
        )
        if isinstance(evaluator.scorer, LiveScorer):
            self.module = evaluator.scorer.live.module
        self.looked = _Looked(telling)
        self._telling = telling
        self._drawn = self._state()
        telling.before = self._tell_seeds

    def _state(self) -> tuple[int, Any]:
        return self.seeds.searches, self.generator.bit_generator.state

    def _tell_seeds(self) -> None:
        """Tells what was drawn since anything was told."""
        drawn = self._state()
        if drawn != self._drawn:
            self._drawn = drawn
            self._telling.did("seeds", "follow", *drawn)

    def leads(self, index: int, outcome: Outcome) -> None:
        with self._telling.doing("problem", "leads", index, outcome):
            super().leads(index, outcome)

    def ranked(self) -> None:
        self._telling.did("problem", "ranked")

    def decide(self, **facts: Any) -> None:
        with self._telling.doing("problem", "decide", **facts):
            super().decide(**facts)

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        with self._telling.doing("problem", "keep", recipe, outcome):
            super().keep(recipe, outcome)


class _Looked(set[str]):
    """Names of the data that a strategy has looked at; each is told once."""

    def __init__(self, telling: Telling) -> None:
        super().__init__()
        self._telling = telling

    def add(self, name: str) -> None:
        if name not in self:
            super().add(name)
            self._telling.did("looked", "add", name)


@dataclass(frozen=True)
class _News:
    """A progress that tells the driver's, with the methods that it has."""

    telling: Telling
    names: frozenset[str]

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in self.names:
            raise AttributeError(f"a progress has no method '{name}'")
        return partial(self.telling.did, "progress", name)
