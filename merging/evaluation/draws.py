"""Scores on samples drawn again: the draws of which intervals and comparisons of objectives without hits are made."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from merging.errors import raised
from merging.plugins.objective import Objective
from merging.plugins.task import Split, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import Outcome, is_score
from merging.values.statistics import Reduce, is_mean, resample

Seen = Mapping[str, Sequence[Outcome]]
"""Set → a model's outcomes there, one for each seed."""


class Draws:
    """Keeps the scores of models on a set's samples drawn again, the same draws for all of them.

    Args:
        objective: what the scores are.
        task: has the sets, whose labels and groups scores may need.
    """

    def __init__(self, objective: Objective | WholeModelObjective, task: Task) -> None:
        self.objective, self.task = objective, task
        self._drawn: dict[tuple[str, bytes, float], NDArray[np.float64] | str] = {}

    def of(self, name: str, seen: Seen, among: Sequence[Seen]) -> NDArray[np.float64] | str:
        """A model's scores on a set's samples drawn again.

        Args:
            name: name of the set.
            seen: the model's outcomes.
            among: all models of the table, which are drawn together.

        Returns:
            Means over the seeds, one for each draw; or why there are none.
        """
        wanted = {_key(name, outcome): outcome for outcome in seen[name]}
        if not wanted.keys() <= self._drawn.keys():
            there = [outcome for models in among for outcome in models.get(name, ())]
            missing = {
                _key(name, outcome): outcome
                for outcome in (*wanted.values(), *there)
                if outcome.terms is not None and is_score(outcome.score) and outcome.samples == seen[name][0].samples
            }
            self._draw(name, {key: outcome for key, outcome in missing.items() if key not in self._drawn})
        found = [self._drawn[key] for key in (_key(name, outcome) for outcome in seen[name])]
        drawn: list[NDArray[np.float64]] = []
        for each in found:
            if isinstance(each, str):
                return each
            drawn.append(each)
        mean: NDArray[np.float64] = np.mean(drawn, axis=0)
        return mean

    def _draw(self, name: str, outcomes: Mapping[tuple[str, bytes, float], Outcome]) -> None:
        scores = [outcome.score for outcome in outcomes.values()]
        terms = [outcome.terms for outcome in outcomes.values() if outcome.terms is not None]
        try:
            reduce = None if self._is_mean(terms, scores) else self._reduce(self.task.split(name))
            with np.errstate(invalid="ignore"):
                drawn = resample(scores, terms, reduce, seed=zlib.crc32(name.encode()))
        except Exception as error:  # somebody's own reduce, on samples that it has never seen together
            said = f"{self.objective.name} fails on samples drawn again: {raised(error.__cause__ or error)}"
            self._drawn |= dict.fromkeys(outcomes, said)
            return
        for key, row in zip(outcomes, drawn, strict=True):
            finite = bool(np.isfinite(row).all())
            self._drawn[key] = row if finite else f"{self.objective.name} is not finite on samples drawn again"

    def _is_mean(self, terms: Sequence[NDArray[np.float64]], scores: Sequence[float]) -> bool:
        """Whether the score is the terms' mean: then the objective need not be asked thousands of times."""
        if not isinstance(self.objective, Objective) or not self.objective.decomposable or self.objective.asks:
            return False
        return all(is_mean(values, score) for values, score in zip(terms, scores, strict=True))

    def _reduce(self, split: Split) -> Reduce:
        import torch

        objective, labels, groups = self.objective, split.labels.cpu(), split.groups

        def reduce(terms: NDArray[np.float64], index: NDArray[np.intp]) -> float:
            if not isinstance(objective, Objective):
                raise TypeError(f"{objective.name} has no terms")
            drawn = torch.from_numpy(index)
            chosen = torch.from_numpy(terms[index])
            parts = None if groups is None else groups[drawn]
            return float(objective.score(chosen, labels[drawn], parts, split.group_names))

        return reduce


def _key(name: str, outcome: Outcome) -> tuple[str, bytes, float]:
    return name, b"" if outcome.terms is None else outcome.terms.tobytes(), outcome.score
