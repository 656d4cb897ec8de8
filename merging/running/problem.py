"""What a strategy works with: the :class:`merging.plugins.problem.Problem` over pool, partition, evaluator."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from blake3 import blake3

from merging.errors import RequirementError, Stopped, StopReason
from merging.mixing.computed import Combine, Computed
from merging.moved import part_of
from merging.plugins.ahead import Announced
from merging.plugins.options import Plugin
from merging.plugins.progress import Progress
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import HELD_OUT
from merging.plugins.user_code import kind_of, named
from merging.running.capabilities import MergeScores, MergeSearches, MergeSlopes
from merging.running.elsewhere import Elsewhere
from merging.running.needs import check_declared
from merging.running.plan import in_depth
from merging.running.search import Searching
from merging.running.seeds import Seeds
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.values.outcome import Outcome
from merging.values.partition import Partition
from merging.values.recipe import Merge, Recipe, Weights
from merging.values.report import scored

if TYPE_CHECKING:
    from torch import nn

    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log
    from merging.evaluation.workers.remote import RemoteScorer

T = TypeVar("T")


class MergeProblem:
    """The :class:`merging.Problem` that one strategy of a run is given.

    Args:
        pool: the checkpoints.
        partition: their components.
        evaluator: the door to the data, or None where there is no task.
        searching: the backend, the seed and the budget of searches.
        journal: keeps decisions.
        progress: told what happens.
        strategy: the strategy that is given it, whose needs say what it finds here; None: everything is found.
        on_ranked: told the best single model, name and outcome, whenever the models have been ranked.
    """

    def __init__(
        self,
        pool: ModelPool,
        partition: Partition,
        evaluator: Evaluator | None,
        searching: Searching,
        journal: Log,
        progress: Progress,
        *,
        strategy: MixStrategy | None = None,
        on_ranked: Callable[[str, Outcome], None] = lambda name, outcome: None,
    ) -> None:
        self.pool = pool
        self.partition = partition
        self.progress = progress
        self.strategy = strategy
        self.best: tuple[Recipe, Outcome] | None = None
        self.top: Outcome | None = None  # of the best single model, once they are ranked
        self.top_name: str | None = None
        self.kept: list[tuple[Recipe, Outcome]] = []  # what was the best so far, one after the other
        self.decisions: list[dict[str, Any]] = []
        self.looked: set[str] = set()  # names of the data that the strategy has looked at
        self._evaluator = evaluator
        self.searching = searching
        self._journal = journal
        self._on_ranked = on_ranked
        self.seeds = Seeds(searching.seed)
        self.generator = self.seeds.generator
        self._singles: dict[int, Recipe] = {}
        self.rehearsed = False  # outcomes are made up: weights are told apart by their options, and not computed
        self.module: nn.Module | None = None  # the task's, for the order in which it was defined

    @functools.cached_property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The network's blocks in the order of its depth, by the task's model where there is one, else by names."""
        return in_depth(self.pool, self.module)

    @property
    def selected(self) -> bool:
        """Whether held-out data had a say in what the strategy gives: it has looked at them."""
        return HELD_OUT in self.looked

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator; a strategy that declares its needs always finds one."""
        if self._evaluator is None:
            who = named("strategy", self.strategy) if self.strategy is not None else "this strategy"
            raise RequirementError(f"{who} evaluates models, but there is no task; give one with `task`")
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
        given: tuple[object, object] = (strategy, combine)
        if not (isinstance(given[0], Plugin) and callable(given[1])):
            what = " and ".join(kind_of(each) for each in given)
            raise TypeError(f"weights takes the strategy and a function of one tensor, not {what}")
        computed = Computed(self.pool, self.partition, combine, base=base, strategy=strategy.name)
        last = (self.pool.base_ingredient,) if self.pool.base and base else ()
        rows = (*self.pool.ingredients, *last)
        if self._evaluator is None or self.rehearsed:
            known = blake3(json.dumps([strategy.name, strategy.options()]).encode()).hexdigest()
            return Weights(
                tensors=computed,
                ingredients=rows,
                strategy=strategy.name,
                options=strategy.options(),
                hash=known if self.rehearsed else "",
            )
        self.progress.stage("computing the merge", len(computed))
        tensors = {}
        for name in computed:
            if self._evaluator.ledger.interrupted():
                raise Stopped(StopReason.INTERRUPTED)
            tensors[name] = computed[name]
            self.progress.advance()
        return Weights(
            tensors=tensors,
            ingredients=rows,
            strategy=strategy.name,
            options=strategy.options(),
            hash=content_hash(tensors),
        )

    def evaluate(self, merged: Merge) -> Outcome:
        """The outcome on the held-out data; of something else than a merge, a TypeError."""
        if not isinstance(merged, Merge):
            raise TypeError(f"evaluate takes a Recipe, Weights or Ensemble, not {kind_of(merged)}")
        self.looked.add(HELD_OUT)
        return self.evaluator.evaluate(merged)

    def rank(self) -> list[tuple[int, Outcome]]:
        """All models, best first; ties in pool order (the sort is stable)."""
        from merging.evaluation.steps import Steps

        singles = [self.single(index) for index in range(len(self.pool))]
        self.evaluator.foresee((each, HELD_OUT) for each in singles)
        steps = Steps(self.evaluator, self.progress, "scoring the single models", singles)
        outcomes = []
        for index in range(len(self.pool)):
            outcome = self.evaluate(self.single(index))
            outcomes.append((index, outcome))
            if self.top is None or outcome.score > self.top.score:
                self.leads(index, outcome)
            steps.done()
        self.ranked()
        return sorted(outcomes, key=lambda pair: -pair[1].score)

    def leads(self, index: int, outcome: Outcome) -> None:
        """Takes a model of the pool for the best single one so far."""
        self.top, self.top_name = outcome, self.pool.names[index]
        self.keep(self.single(index), outcome)

    def ranked(self) -> None:
        """Tells which model is the best single one, once all are scored."""
        if self.top is not None and self.top_name is not None:
            self._on_ranked(self.top_name, self.top)

    @property
    def scores(self) -> MergeScores:
        """Logits, labels, and the objective of given logits."""
        return MergeScores(self._door("scores"), self.looked)

    @property
    def search(self) -> MergeSearches:
        """Searches over mixing factors, or any others."""
        return MergeSearches(
            evaluator=self._door("search"),
            searching=self.searching,
            seeds=self.seeds,
            progress=self.progress,
            looked=self.looked,
            strategy=self.strategy,
        )

    @property
    def slopes(self) -> MergeSlopes:
        """Derivatives, and batches to take them on."""
        return MergeSlopes(self._door("slopes"), self.generator, self.looked)

    def _door(self, capability: str) -> Evaluator:
        """The evaluator, for a strategy that declares what it uses."""
        if self.strategy is not None:
            check_declared(self.strategy, capability)
        return self.evaluator

    def __getattr__(self, name: str) -> Any:
        """A member by the name that it had before; works for one release, declared or not, with a warning."""
        part = part_of("problem", name)
        if name == "gradient":
            self.looked.add(HELD_OUT)
            return self.evaluator.gradients.gradient
        undeclared = copy.copy(self)
        undeclared.strategy = None
        return getattr(getattr(undeclared, part), name)

    def ahead(self, items: Iterable[Announced]) -> None:
        """Says what will probably be asked next; nothing where there are no workers."""
        if self.elsewhere is not None:
            self.elsewhere.announce(items, self.seeds.searches)

    def apart(self, function: Callable[..., T], **given: Any) -> T:
        """Runs a piece of the strategy, on a worker first where there are any."""
        if self.elsewhere is None:
            return function(self, **given)
        with self.elsewhere.following(function, given, self.seeds.searches):
            return function(self, **given)

    @functools.cached_property
    def elsewhere(self) -> Elsewhere | None:
        """Workers of the run, for a strategy that may ask for scores; None where there are none."""
        evaluator, remote = self._evaluator, self.remote
        if evaluator is None or remote is None or not evaluator.ledger.exact_savings:
            return None
        return Elsewhere(evaluator, remote, self.strategy, self.searching)

    @property
    def remote(self) -> RemoteScorer | None:
        """Who asks the run's workers; None where it has none."""
        if self._evaluator is None:
            return None
        from merging.evaluation.workers.remote import RemoteScorer

        scorer = self._evaluator.scorer
        return scorer if isinstance(scorer, RemoteScorer) else None

    @property
    def _listened(self) -> bool:
        """Whether a function of the strategy is only listened to, and will be called again."""
        return self._evaluator is not None and self._evaluator.ledger.listened

    def decide(self, **facts: Any) -> None:
        """Journals a decision, keeps it for the report, and tells it."""
        if self._listened:
            return
        self.decisions.append(facts)
        self._journal.write("decision", **facts)
        self.progress.decision(facts)

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Remembers the best merge so far."""
        if self._listened:
            return
        if self.best is None or outcome.score >= self.best[1].score:
            self.best = (recipe, outcome)
            self.kept.append(self.best)
            self.progress.best(outcome, len(recipe.names))
            if len(recipe.names) == 1:
                self.progress.status(f"best {scored(outcome.score, self.evaluator.objective.name)}, {recipe.names[0]}")
