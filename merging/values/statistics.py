"""Intervals and paired tests of outcomes: Wilson, McNemar and its extension to seeds and several sets, Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from merging.values.outcome import Outcome

Correctness = NDArray[np.float64]
"""Per-sample share of the seeds that were right, shape ``(samples,)``; 0 or 1 with one seed."""
Z = 1.959963984540054
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """A method against a reference, on the same samples.

    Attributes:
        difference: in accuracy, a fraction; the mean of the sets' differences where there are several.
        interval: its 95 % interval, which excludes 0 just where ``p_value`` < 0.05.
        gained: samples the reference has wrong and the method right (with seeds: sum of the shares gained).
        lost: the other way round.
        samples: number of samples.
        p_value: two-sided.
        adjusted: the same after Holm's correction over the methods of one table column.
    """

    difference: float
    interval: tuple[float, float]
    gained: float
    lost: float
    samples: int
    p_value: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level, after the correction."""
        return self.adjusted < LEVEL


def wilson(accuracy: float, samples: int) -> tuple[float, float]:
    """95 % interval of an accuracy (Wilson 1927, https://doi.org/10.2307/2276774).

    The accuracy may be a mean over seeds: the samples are the same ones, and stay as many.

    >>> [round(bound, 4) for bound in wilson(0.9, 100)]
    [0.8256, 0.9448]
    """
    centre = accuracy + Z * Z / (2 * samples)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / samples + Z * Z / (4 * samples * samples))
    scale = 1 + Z * Z / samples
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def mean_interval(accuracies: Sequence[float], samples: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean accuracy over sets, whose samples count as independent (normal approximation)."""
    variance = sum(p * (1 - p) / n for p, n in zip(accuracies, samples, strict=True)) / len(accuracies) ** 2
    mean, half = sum(accuracies) / len(accuracies), Z * math.sqrt(variance)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def paired(before: Sequence[Correctness], after: Sequence[Correctness]) -> Comparison:
    """Tests the mean of the sets' differences in accuracy against zero; ``adjusted`` is not corrected yet.

    Under the null hypothesis each sample's difference may as well have the other sign. With one seed, and sets of one
    size, that is McNemar's exact test on the samples where the two disagree; otherwise the sum of the differences is
    taken as normal, with variance Σ d² (McNemar's statistic, with weights). The interval is of the same kind.

    Args:
        before: the reference's correctness, an array for each set.
        after: the method's, on the same samples.

    >>> one = paired([np.array([1.0, 1, 0, 0])], [np.array([1.0, 0, 1, 1])])
    >>> one.gained, one.lost, one.p_value
    (2.0, 1.0, 1.0)
    """
    from scipy.stats import norm

    steps = [new - old for old, new in zip(before, after, strict=True)]
    sizes = [len(step) for step in steps]
    gained = float(sum(step[step > 0].sum() for step in steps))
    lost = float(-sum(step[step < 0].sum() for step in steps))
    difference = float(np.mean([step.mean() for step in steps]))
    exact = len(set(sizes)) == 1 and all(np.isin(step, (-1.0, 0.0, 1.0)).all() for step in steps)
    variance = sum(float(np.square(step).sum()) / len(step) ** 2 for step in steps) / len(steps) ** 2
    if exact:
        p, interval = mcnemar(int(gained), int(lost), sum(sizes))
    else:
        half = Z * math.sqrt(variance)
        p = float(2 * norm.sf(abs(difference) / math.sqrt(variance))) if variance else 1.0
        interval = (difference - half, difference + half)
    return Comparison(difference, interval, gained, lost, sum(sizes), p, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of several tests (Holm 1979, https://www.jstor.org/stable/4615733), in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Paired:
    """Two outcomes on the same samples: McNemar's exact test on the samples where they disagree.

    Attributes:
        gained: wrong before, right after.
        lost: right before, wrong after.
        samples: number of samples.
        p_value: two-sided exact binomial p (McNemar 1947); 1 when nothing changed.
        interval: 95 % interval of the difference in accuracy, which excludes 0 just where p < 0.05 (:func:`mcnemar`).
    """

    gained: int
    lost: int
    samples: int
    p_value: float
    interval: tuple[float, float]

    @property
    def difference(self) -> float:
        """Gain in accuracy, a fraction."""
        return (self.gained - self.lost) / self.samples

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p_value < 0.05

    def sentence(self, than: str) -> str:
        """The comparison in words, ``than`` naming what came before."""
        word = "distinguishable" if self.distinguishable else "not distinguishable"
        low, high = (100 * bound for bound in self.interval)
        return (
            f"{self.gained - self.lost:+d} of {self.samples} right ({self.gained} gained, {self.lost} lost; "
            f"{100 * self.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}): "
            f"{word} from {than} (McNemar p = {self.p_value:.2g})"
        )


def compare(before: Outcome, after: Outcome) -> Paired:
    """Compares two outcomes on the same samples.

    >>> from merging.values.outcome import Outcome
    >>> bits = lambda *b: np.packbits(np.array(b, dtype=bool))
    >>> pair = compare(Outcome(0.5, 4, bits(1, 1, 0, 0)), Outcome(0.75, 4, bits(1, 0, 1, 1)))
    >>> pair.gained, pair.lost, pair.p_value
    (2, 1, 1.0)
    """
    if before.samples != after.samples:
        raise ValueError(f"outcomes on {before.samples} and {after.samples} samples cannot be paired")
    old, new = before.hits, after.hits
    gained, lost, n = int((new & ~old).sum()), int((old & ~new).sum()), before.samples
    p, interval = mcnemar(gained, lost, n)
    return Paired(gained, lost, n, p, interval)


def mcnemar(gained: int, lost: int, samples: int) -> tuple[float, tuple[float, float]]:
    """McNemar's exact test (1947), and a 95 % interval of the difference in accuracy that agrees with it.

    The interval is Tango's score interval (1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>
    3.0.CO;2-B), widened where the exact test's own is wider: that of the share of gains among the changed samples, by
    Clopper and Pearson (1934). So it excludes 0 just where p < 0.05, and does not take the number of changed samples
    for certain.

    >>> p, (low, high) = mcnemar(9, 2, 800)
    >>> round(p, 4), round(100 * low, 2), round(100 * high, 2)
    (0.0654, -0.05, 1.9)
    """
    from scipy.stats import binomtest

    low, high = _tango(gained, lost, samples), -_tango(lost, gained, samples)
    changed = gained + lost
    if not changed:
        return 1.0, (low, high)
    test = binomtest(gained, changed, 0.5)
    shares = test.proportion_ci(0.95, method="exact")
    own = [float(2 * share - 1) * changed / samples for share in shares]
    return float(test.pvalue), (min(low, own[0]), max(high, own[1]))


def _tango(gained: int, lost: int, samples: int) -> float:
    """The lower end of Tango's interval: where the score test of "the difference is δ" gives z = 1.96."""
    from scipy.optimize import brentq

    def z(delta: float) -> float:
        # maximum likelihood of the probability of a loss, given the difference
        b = (2 * samples - gained + lost) * delta - gained - lost
        root = b * b + 8 * samples * lost * delta * (1 - delta)  # (2·samples − 2·lost)² at δ = −1: never below 0
        lose = (math.sqrt(max(root, 0.0)) - b) / (4 * samples)
        variance = samples * (2 * lose + delta * (1 - delta))
        return (gained - lost - samples * delta) / math.sqrt(max(variance, 1e-300)) - 1.959963984540054

    top = (gained - lost) / samples
    return -1.0 if z(-1 + 1e-12) <= 0 else float(brentq(z, -1 + 1e-12, top, xtol=1e-12))
