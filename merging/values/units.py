"""The unit in which people read a measure: accuracies in percent, texts as perplexity, others as they are.

Files keep scores. Of texts a score is the mean log-likelihood of a token, whose perplexity is exp(−score); a difference
of two scores is the share by which the perplexity changes, and the larger score is the smaller perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ACCURACY = "accuracy"
"""The measure whose differences are points: shown in percent, and counted in samples."""
TOKENS = "token-nll"
"""The measure of texts, shown as perplexity."""


def heading(measure: str, objective: str = "") -> str:
    """Says what a table of a measure's scores holds, and in which unit.

    Args:
        measure: the measure.
        objective: the objective's name, where it is not the measure.
    """
    return {ACCURACY: "top-1 accuracy in %", TOKENS: "perplexity"}.get(measure, objective or measure)


def value_in(measure: str, score: float) -> float:
    """A score in the unit of its measure.

    >>> value_in("accuracy", 0.5), round(value_in("token-nll", -2.0), 3), value_in("mse", -0.25)
    (50.0, 7.389, -0.25)
    """
    return 100 * score if measure == ACCURACY else _exp(-score) if measure == TOKENS else score


def ends_in(measure: str, interval: Sequence[float]) -> tuple[float, float]:
    """An interval of a score in the unit of its measure, the smaller end first."""
    low, high = (value_in(measure, end) for end in interval)
    return min(low, high), max(low, high)


def steps_in(measure: str, difference: float, interval: Sequence[float] | None = None) -> list[float]:
    """A difference of scores in the unit of its measure, and its interval's ends, the smaller one first.

    >>> [round(step, 2) for step in steps_in("token-nll", 0.0266, (0.02, 0.03))]
    [-2.62, -2.96, -1.98]
    """
    found = [_step(measure, value) for value in (difference, *(interval or ()))]
    return [found[0], *sorted(found[1:])]


def unit(measure: str) -> str:
    """Names the unit of a measure's differences."""
    return {ACCURACY: "points", TOKENS: "% perplexity"}.get(measure, measure)


def after(measure: str) -> str:
    """Gives what stands right after a difference, which nobody would read as one of scores otherwise."""
    return "%" if measure == TOKENS else ""


def written(measure: str, score: float) -> str:
    """Writes a score in the unit of its measure.

    >>> written("token-nll", -2.0), written("accuracy", 0.5), written("mse", -0.25)
    ('7.39', '50.00', '-0.25')
    """
    value = value_in(measure, score)
    return f"{value:.2f}" if measure == ACCURACY or (measure == TOKENS and value < 1000) else f"{value:.4g}"


def is_percent(measure: str) -> bool:
    """Whether differences are shares of a hundred, with two decimals."""
    return measure in (ACCURACY, TOKENS)


def _step(measure: str, value: float) -> float:
    return 100 * (_exp(-value) - 1) + 0.0 if measure == TOKENS else 100 * value if measure == ACCURACY else value


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
