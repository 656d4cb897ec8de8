"""What a run has made by workers: what its strategy announces, and pieces of the strategy itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from merging.plugins.ahead import Announced, Attempt
from merging.plugins.problem import Problem
from merging.plugins.progress import Progress
from merging.plugins.strategy import MixStrategy, mixed
from merging.plugins.task import HELD_OUT
from merging.running.search import Searching
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.workers.ahead import Look
    from merging.evaluation.workers.remote import RemoteScorer
    from merging.evaluation.workers.requests import Piece
    from merging.running.problem import MergeProblem


class Elsewhere:
    """A strategy's announcements and pieces, over the workers of its run.

    While a run that goes on follows its journal nothing is made beforehand.

    Args:
        evaluator: the door, whose scorer asks workers.
        remote: the scorer that asks workers.
        strategy: the strategy.
        searching: how its searches are made.
    """

    def __init__(
        self, evaluator: Evaluator, remote: RemoteScorer, strategy: MixStrategy | None, searching: Searching
    ) -> None:
        self._evaluator, self._remote = evaluator, remote
        self._strategy, self._searching = strategy, searching

    @property
    def _batch(self) -> bool:
        """Whether searches ask for several points at once, so that all workers are at work in each of them."""
        return self._searching.optimizer.batch and self._remote.crew.count > 1

    def announce(self, items: Iterable[Announced], searches: int) -> None:
        """Says what the strategy will probably ask next.

        Args:
            items: merges and pieces in the order in which it would, if none of them changed anything.
            searches: how many searches it has made.
        """
        if not self._evaluator.ledger.journal.replaying and not self._remote.follows:
            self._remote.announce(self._looks(items), searches)

    def _looks(self, items: Iterable[Announced]) -> Iterator[Look]:
        from merging.evaluation.workers.ahead import Look

        for item in items:
            if isinstance(item, partial):
                yield Look(then=self._then(item))
            elif isinstance(item, Attempt):
                look = self._look(item.merged)
                if look is not None and self._batch:
                    yield look
                elif look is not None:
                    look.promising, look.then, look.searches = item.promising, self._then(item.then), item.searches
                    yield look
            else:
                look = self._look(item)
                if look is not None:
                    yield look

    def coming(self, strategies: Iterable[tuple[MixStrategy, Searching]]) -> None:
        """Says which strategies will be run next, each with a problem of its own, by :func:`whole`.

        Args:
            strategies: strategies in their order, with the way in which their searches are made.
        """
        self._remote.announce(
            look
            for strategy, searching in strategies
            for look in Elsewhere(self._evaluator, self._remote, strategy, searching)._looks(
                [partial(whole, strategy=strategy)]
            )
        )

    def _look(self, merged: Recipe | Weights | Ensemble) -> Look | None:
        if isinstance(merged, Ensemble):
            return None
        look, memory = self._remote.look(merged), self._evaluator.remembered
        if memory is not None and self._evaluator.ledger.known(look.key) is None:
            look.known = memory.found(merged, HELD_OUT)
        return look

    def _then(self, call: partial[Any]) -> Callable[[int], tuple[str, Piece]]:
        if call.args:
            raise TypeError("what is announced is partial(function, name=value, …), with no arguments by place")
        return lambda number: self._piece(call.func, call.keywords, number)

    @contextlib.contextmanager
    def following(self, function: Callable[..., object], given: Mapping[str, Any], searches: int) -> Iterator[None]:
        """Has a piece run on one worker while the block runs it here, with the outcomes that were made there."""
        if self._evaluator.ledger.journal.replaying or self._remote.follows or self._batch:
            yield
            return
        with self._remote.following(*self._piece(function, given, searches)):
            yield

    def _piece(self, function: Callable[..., object], given: Mapping[str, Any], number: int) -> tuple[str, Piece]:
        from merging.evaluation.workers.requests import Piece

        pack, owner = self._remote.crew.packer.pack, getattr(function, "__self__", None)
        whose = type(owner).__qualname__, owner.options() if isinstance(owner, MixStrategy) else None
        said: list[Any] = [getattr(function, "__qualname__", repr(function)), *whose, number]
        search = self._searching
        said += [search.seed, search.budget, search.optimizer.name, search.optimizer.options()]
        for name, value in sorted(given.items()):
            packed = pack(value)
            said += [name, packed.data, packed.names]
        problem = partial(problem_of, searching=self._searching, strategy=self._strategy, searches=number)
        return blake3(repr(said).encode()).hexdigest()[:32], Piece(function, given, problem)


def whole(problem: Problem, *, strategy: MixStrategy) -> Merge:
    """A strategy as a piece of a benchmark."""
    return mixed(strategy, problem)


def problem_of(
    evaluator: Evaluator,
    pool: ModelPool,
    progress: Progress,
    *,
    searching: Searching,
    strategy: MixStrategy | None,
    searches: int,
) -> MergeProblem:
    """Makes the problem that a piece of a strategy is given on a worker: its searches are numbered on from there."""
    from merging.evaluation.scorer import LiveScorer  # loads torch
    from merging.running.problem import MergeProblem

    problem = MergeProblem(
        pool, evaluator.keys.partition, evaluator, searching, Journal(None), progress, strategy=strategy
    )
    scorer = evaluator.scorer
    problem.module = scorer.live.module if isinstance(scorer, LiveScorer) else None
    for _ in range(searches):
        problem.seeds.search()
    return problem
