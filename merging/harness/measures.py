"""How lm-eval makes one score of a task's samples, so that samples drawn again can be scored the same way.

Each aggregation is written here anew, from its formula, and believed only where it gives the score that lm-eval has
computed of the same samples (``lm_eval/api/metrics.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import MergingError
from merging.harness.results import Column, TaskResult
from merging.harness.samples import Logged
from merging.values.statistics import Reduce, resample

Values = NDArray[np.float64]
MEAN = "mean"
DEFAULTS = {
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "brier_score": "brier_score",
    "f1": "f1",
    "mcc": "matthews_corrcoef",
}
"""Metric → aggregation, where a task's file says none; all others are means."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Score of one model by one metric of one task, with what it is made of.

    Attributes:
        score: the score as lm-eval has computed it.
        numbers: numbers of the samples, in order.
        terms: what the score is made of, ``(samples,)`` or ``(samples, k)``; None where it is not known how.
        reduce: the score of some of the samples; None: the terms' mean.
        logarithmic: ``reduce`` gives the score's logarithm, as that of a perplexity, which is never below 0.
        why: the reason, where there are no terms.
    """

    score: float
    numbers: tuple[int, ...] = ()
    terms: Values | None = None
    reduce: Reduce | None = None
    logarithmic: bool = False
    why: str = ""

    def drawn(self, others: Sequence[Measured], seed: int) -> NDArray[np.float64]:
        """The scores of several models on samples drawn again, the same draws for all, shape ``(models, draws)``.

        Args:
            others: what models came to on the same samples by the same metric.
            seed: seed of the draws.
        """
        scores = [each.score for each in others]
        drawn = resample(
            [math.log(score) for score in scores] if self.logarithmic else scores,
            [each.terms for each in others if each.terms is not None],
            self.reduce,
            seed=seed,
        )
        with np.errstate(over="ignore"):  # what is not finite is said
            return np.exp(drawn) if self.logarithmic else drawn

    @property
    def counted(self) -> bool:
        """Whether each sample is right or wrong, and the score the share of right ones."""
        return self.terms is not None and self.reduce is None and bool(np.isin(self.terms, (0.0, 1.0)).all())


def measured(task: TaskResult, logged: Logged, column: Column) -> Measured:
    """The terms of a score, which give that score again.

    Raises:
        MergingError: they give another score: samples and results are of two runs.
    """
    score, found = task.scores[column], logged.values.get(column, {})
    metric = column[0]
    said = task.aggregations.get(metric, DEFAULTS.get(metric, MEAN))
    named = said in AGGREGATIONS
    take, reduce, logarithmic = AGGREGATIONS[said if named else MEAN]
    numbers = tuple(found)
    try:
        terms = take(list(found.values()))
    except (TypeError, ValueError, IndexError):
        terms = None
    called = f"lm-eval's '{said}'" if said.isidentifier() else "the task's own aggregation"
    if terms is None or not len(terms):
        return Measured(score=score, numbers=numbers, why=f"{called} is not computed of samples here")
    again = scored(said if named else MEAN, terms)
    if not math.isclose(again, score, rel_tol=1e-6, abs_tol=1e-9) and not (math.isnan(again) and math.isnan(score)):
        if not named:
            return Measured(score=score, numbers=numbers, why=f"{called} is not computed of samples here")
        raise MergingError(
            f"{task.file}: its samples give {metric} {again:.6g}, and the results beside it say {score:.6g}; they are "
            "of two runs"
        )
    if not np.isfinite(terms).all():
        return Measured(score=score, numbers=numbers, why="the model has no finite number for some samples")
    return Measured(score=score, numbers=numbers, terms=terms, reduce=reduce, logarithmic=logarithmic)


def scored(aggregation: str, terms: Values) -> float:
    """The score of all samples by an aggregation of :data:`AGGREGATIONS`."""
    _, reduce, logarithmic = AGGREGATIONS[aggregation]
    found = float(terms.mean()) if reduce is None else reduce(terms, np.arange(len(terms)))
    return found if not logarithmic else math.exp(found) if found < 700 else math.inf


def _numbers(values: Sequence[Any]) -> Values:
    """One number a sample, shape ``(samples,)``.

    Raises:
        TypeError: they are something else.
    """
    if not all(isinstance(value, int | float) for value in values):
        raise TypeError("not numbers")
    return np.array(values, dtype=np.float64)


def _pairs(values: Sequence[Any]) -> Values:
    """Two numbers a sample, shape ``(samples, 2)``.

    Raises:
        TypeError: they are something else.
    """
    if not all(isinstance(value, list) and len(value) == 2 for value in values):
        raise TypeError("not pairs")
    return np.stack([_numbers(value) for value in values])


def _brier(values: Sequence[Any]) -> Values:
    """Squared distances of probabilities from the right class, shape ``(samples,)``: their mean is the score."""
    found = []
    for gold, probabilities in values:
        given = _numbers(probabilities)
        found.append(np.square(given - np.eye(len(given))[int(gold)]).sum())
    return np.array(found)


def _perplexity(terms: Values, index: NDArray[np.intp]) -> float:
    """−mean log-likelihood, the logarithm of the perplexity."""
    return -float(terms[index].mean())


def _weighted(terms: Values, index: NDArray[np.intp]) -> float:
    """−Σ log-likelihoods / Σ words or bytes, a ratio of sums: the logarithm of the perplexity."""
    likelihood, size = terms[index].sum(axis=0)
    return float(-likelihood / size)


def _bits(terms: Values, index: NDArray[np.intp]) -> float:
    """−Σ log-likelihoods / Σ bytes, in bits."""
    likelihood, size = terms[index].sum(axis=0)
    return float(-likelihood / size / math.log(2))


def _f1(terms: Values, index: NDArray[np.intp]) -> float:
    """2·TP / (2·TP + FP + FN), of right and answered classes 0 and 1."""
    gold, given = terms[index].T == 1
    right = 2 * int((gold & given).sum())
    wrong = int((gold != given).sum())
    return right / (right + wrong) if right + wrong else 0.0


def _mcc(terms: Values, index: NDArray[np.intp]) -> float:
    """Matthews's correlation of right and answered classes (1975), for any number of classes (Gorodkin 2004)."""
    gold, given = terms[index].T
    classes = np.union1d(gold, given)
    rights, answers = gold[:, None] == classes, given[:, None] == classes
    count = len(gold)
    often, told = rights.sum(axis=0), answers.sum(axis=0)
    spread = math.sqrt(float(count**2 - often @ often) * float(count**2 - told @ told))
    return float((count * int((gold == given).sum()) - often @ told) / spread) if spread else 0.0


def _median(terms: Values, index: NDArray[np.intp]) -> float:
    """The upper of the two in the middle, as lm-eval has it."""
    return float(np.sort(terms[index])[len(index) // 2])


Take = Callable[[Sequence[Any]], Values]
AGGREGATIONS: Mapping[str, tuple[Take, Reduce | None, bool]] = {
    MEAN: (_numbers, None, False),
    "median": (_numbers, _median, False),
    "perplexity": (_numbers, _perplexity, True),
    "weighted_perplexity": (_pairs, _weighted, True),
    "bits_per_byte": (_pairs, _bits, False),
    "brier_score": (_brier, None, False),
    "f1": (_pairs, _f1, False),
    "matthews_corrcoef": (_pairs, _mcc, False),
}
"""Name that a task's file gives → from samples to terms; from terms to the score, None: the mean; and whether that is
the score's logarithm."""
