"""Logits of whole splits, kept for whatever averages outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from merging.errors import StrategyError, TaskError
from merging.evaluation.keys import Keys
from merging.evaluation.ledger import Ledger
from merging.evaluation.scorer import Scorer, Wanted
from merging.plugins.progress import Progress, Silent
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble, Recipe
from merging.values.sums import in_order

LOGITS_MEMORY = 1 << 30
"""Bytes for logits of whole splits, for models whose outputs are averaged."""


class Outputs:
    """The latest models' logits, as far as they fit into ``LOGITS_MEMORY``.

    Args:
        keys: keys of the evaluations.
        ledger: counts what is made.
        scorer: makes passes.
        progress: told how far the members of an ensemble are.
    """

    def __init__(self, keys: Keys, ledger: Ledger, scorer: Scorer, progress: Progress | None = None) -> None:
        self._keys, self._ledger, self._scorer, self._progress = keys, ledger, scorer, progress or Silent()
        self._kept: dict[str, Tensor] = {}

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        """Logits of a whole split, for its classes: float32 on the CPU, shape ``(N, classes)``.

        The latest are kept. The outcome that they mean is journalled and kept too, so that scoring the same model
        costs nothing more.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
        """
        key = self._keys.evaluation(recipe, split)
        if key not in self._kept:
            self._ledger.check(split)
            began = time.perf_counter()
            logits, passes = self._scorer.logits(recipe, split)
            self._keep(key, logits)
            if self._ledger.known(key) is not None or isinstance(self._keys.objective, WholeModelObjective):
                self._ledger.pay(passes if split == HELD_OUT else 0.0)
            else:
                seconds = time.perf_counter() - began

                def outcome() -> Outcome:
                    return replace(self._scorer.of_logits(logits, split), seconds=seconds, passes=passes)

                self._ledger.through(key, split, outcome, made=seconds)
        return self._kept[key].clone()

    def score(self, logits: Tensor) -> float:
        """The objective of given logits of the held-out data; no model runs, and nothing is counted.

        Raises:
            StrategyError: the objective looks at the model itself.
        """
        return self._scorer.of_logits(logits, HELD_OUT).score

    def labels(self, split: str = HELD_OUT) -> Tensor:
        """A split's labels, int64 on the CPU."""
        return self._keys.task.split(split).labels.cpu()

    def ensemble(self, ensemble: Ensemble, split: str) -> Outcome:
        """The members' outputs, averaged; costs a pass for each member whose logits are not kept.

        Raises:
            TaskError: they are log-likelihoods of documents, whose average says nothing.
        """
        self._check_averages(split)
        began, passes = time.perf_counter(), 0.0
        self._scorer.foresee(self._missing(ensemble.members, split), first=True)
        if split == HELD_OUT:
            self._progress.stage("outputs of the members", len(ensemble.members))

        def outputs(member: Recipe) -> Tensor:
            nonlocal passes
            passes += self._keys.evaluation(member, split) not in self._kept
            with self._ledger.prepaid():
                part = self.logits(member, split)
            if split == HELD_OUT:
                self._progress.advance()
            return part

        mixed = _averaged(ensemble, outputs)
        seconds = time.perf_counter() - began
        return replace(self._scorer.of_logits(mixed, split), seconds=seconds, passes=passes)

    def _check_averages(self, split: str) -> None:
        data = self._keys.task.split(split)
        if isinstance(data.inputs, Sequences) and not data.categorical:
            raise TaskError(f"{split} has documents, and an ensemble of their log-likelihoods is none of probabilities")

    def recorded(self, ensemble: Ensemble, split: str) -> Outcome:
        """An ensemble's outcome of record: every member's pass is one of record."""
        began = time.perf_counter()
        self._scorer.foresee(self._missing(ensemble.members, split, record=True), first=True)

        def outputs(member: Recipe) -> Tensor:
            key = self._keys.evaluation(member, split)
            if key in self._kept and self._keys.numerics.exact:  # the search's own logits are the same
                return self._kept[key].clone()
            return self._scorer.logits(member, split, record=True)[0]

        mixed, passes = _averaged(ensemble, outputs), float(len(ensemble.members))
        seconds = time.perf_counter() - began
        return replace(self._scorer.of_logits(mixed, split, record=True), seconds=seconds, passes=passes)

    def foresee(self, recipes: Iterable[Recipe], split: str = HELD_OUT) -> None:
        """Says whose logits are asked for next."""
        self._scorer.foresee(self._missing(recipes, split))

    def _missing(self, recipes: Iterable[Recipe], split: str, *, record: bool = False) -> Iterator[Wanted]:
        """The models whose logits are to be made."""
        for recipe in recipes:
            kept = self._keys.evaluation(recipe, split) in self._kept
            if not kept or (record and not self._keys.numerics.exact):
                yield Wanted(recipe, split, record=record, logits=True)

    def _keep(self, key: str, logits: Tensor) -> None:
        self._kept[key] = logits
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > LOGITS_MEMORY:
            del self._kept[next(iter(self._kept))]


def _averaged(ensemble: Ensemble, outputs: Callable[[Recipe], Tensor]) -> Tensor:
    """The weighted mean of the members' outputs, one member in memory at a time."""
    total: Tensor | None = None
    for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
        part = outputs(member)
        part = part.softmax(1) if ensemble.average == "probabilities" else part
        part = part * (weight / in_order(ensemble.weights))
        total = part if total is None else total.add_(part)
    if total is None:
        raise StrategyError("an ensemble has no members")
    return total.log() if ensemble.average == "probabilities" else total
