"""Intervals and paired tests of outcomes: Wilson, McNemar and its extension to seeds and sets, bootstrap, Holm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import OptionError
from merging.values.sums import in_order
from merging.values.wording import kind_of

if TYPE_CHECKING:
    from merging.values.outcome import Outcome

Correctness = NDArray[np.float64]
"""Per-sample share of the seeds that were right, shape ``(samples,)``; 0 or 1 with one seed."""
Interval = tuple[float, float]
Reduce = Callable[[NDArray[Any], NDArray[np.intp]], float]
"""The score of some samples, drawn with replacement: of all samples' terms, and the indices that were drawn."""
Z = 1.959963984540054
LEVEL = 0.05
RESAMPLES = 4999
"""Draws of a bootstrap; what lies beyond all of them, p below 0.0004, is told by the normal tail."""
FEW = 10
"""Fewer samples say nothing about samples that were not seen: no bootstrap."""
_AT_ONCE = 1 << 22
"""Indices that a bootstrap holds in memory."""


class PairedTest(StrEnum):
    """The test by which two scores are compared on the same samples."""

    MCNEMAR = "mcnemar"
    NORMAL = "normal"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of a method with a reference on the same samples.

    Attributes:
        test: how they were compared.
        difference: difference of the scores, a fraction for accuracies; the mean of the sets' differences where there
            are several.
        p_value: two-sided, not corrected for other tests.
        samples: number of samples.
        gained: samples that the reference has wrong and the method right (with seeds: sum of the shares gained); None
            where nothing is counted.
        lost: the other way round.
        deviation: standard error of the difference, of the normal test.
        draws: differences of the bootstrap's resamples, sorted.
    """

    test: PairedTest
    difference: float
    p_value: float
    samples: int
    gained: float | None = None
    lost: float | None = None
    deviation: float = 0.0
    draws: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the difference, which excludes 0 just where ``p_value`` < 0.05."""
        return self.interval_at(LEVEL)

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is significant at the 5 % level, were this the only test."""
        return self.p_value < LEVEL

    def interval_at(self, alpha: float) -> Interval:
        """The interval at level 1 − ``alpha``, which excludes 0 just where ``p_value`` < ``alpha``."""
        if self.test == PairedTest.MCNEMAR and self.gained is not None and self.lost is not None:
            _, found = mcnemar(int(self.gained), int(self.lost), self.samples, alpha)
        elif self.draws is not None:
            found = _quantiles(self.draws, alpha)
            if alpha <= _bootstrap_p(np.zeros(1), len(self.draws))[0]:  # further out than draws reach
                half = normal_quantile(alpha) * float(self.draws.std(ddof=1))
                found = min(found[0], self.difference - half), max(found[1], self.difference + half)
        else:
            half = normal_quantile(alpha) * self.deviation
            found = self.difference - half, self.difference + half
        return agreeing(found, self.difference, significant=self.p_value < alpha)

    def to_json(self) -> dict[str, Any]:
        """Gives everything but the draws as JSON-ready values."""
        return {
            "test": str(self.test),
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "samples": self.samples,
            "gained": self.gained,
            "lost": self.lost,
            "distinguishable": self.distinguishable,
        }

    def sentence(self, than: str) -> str:
        """Says the comparison in words, ``than`` naming what came before."""
        word = "distinguishable" if self.distinguishable else "not distinguishable"
        low, high = self.interval
        if self.gained is None or self.lost is None:
            return (
                f"{self.difference:+.4g} (95 % interval {low:+.4g} to {high:+.4g}, {self.samples:,} samples): "
                f"{word} from {than} (bootstrap p = {self.p_value:.2g})"
            )
        return (
            f"{self.gained - self.lost:+g} of {self.samples} right ({self.gained:g} gained, {self.lost:g} lost; "
            f"{100 * self.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}): "
            f"{word} from {than} (McNemar p = {self.p_value:.2g})"
        )


Paired = Comparison
"""Name of :class:`Comparison` before it knew other tests than McNemar's; kept for one release."""


def normal_quantile(alpha: float) -> float:
    """Gives the standard errors that reach the ends of an interval at level 1 − ``alpha``."""
    from scipy.stats import norm

    return float(norm.isf(alpha / 2))


def agreeing(interval: Interval, difference: float, *, significant: bool) -> Interval:
    """Moves an end of the interval past 0 where rounding, or another way of finding it, has left it on the other side.

    Args:
        interval: interval of a difference.
        difference: the difference that it lies around.
        significant: what the test at the same level says.
    """
    low, high = min(interval[0], difference), max(interval[1], difference)
    tiny = 1e-9 * abs(difference)
    if significant and difference:
        return (max(low, tiny), high) if difference > 0 else (low, min(high, -tiny))
    return min(low, 0.0), max(high, 0.0)


def _quantiles(draws: NDArray[np.float64], alpha: float) -> Interval:
    """The ends beyond which a share of the sorted draws lies that is as small as p would have to be below ``alpha``."""
    reached = _bootstrap_p(np.arange(len(draws)), len(draws)) < alpha  # by how many draws lie on 0's other side
    within = max(int(reached.sum()) - 1, 0)
    return float(draws[within]), float(draws[-1 - within])


def _bootstrap_p(beyond: NDArray[Any], draws: int) -> NDArray[np.float64]:
    return np.minimum(2 * (beyond + 1) / (draws + 1), 1.0)


def wilson(accuracy: float, samples: int) -> tuple[float, float]:
    """Gives the 95 % interval of an accuracy (Wilson 1927, https://doi.org/10.2307/2276774).

    The accuracy may be a mean over seeds: the samples are the same ones, and stay as many. (scipy's own takes whole
    numbers of right answers only.) All right, or none, is an end of the interval, to the bit.

    >>> [round(bound, 4) for bound in wilson(0.9, 100)]
    [0.8256, 0.9448]
    """
    centre = accuracy + Z * Z / (2 * samples)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / samples + Z * Z / (4 * samples * samples))
    scale = 1 + Z * Z / samples
    low, high = max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)
    return low if accuracy > 0 else 0.0, high if accuracy < 1 else 1.0


def mean_interval(accuracies: Sequence[float], samples: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean accuracy over sets, whose samples count as independent (normal approximation)."""
    variance = in_order(p * (1 - p) / n for p, n in zip(accuracies, samples, strict=True)) / len(accuracies) ** 2
    mean, half = in_order(accuracies) / len(accuracies), Z * math.sqrt(variance)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def paired(before: Sequence[Correctness], after: Sequence[Correctness]) -> Comparison:
    """Tests the mean of the sets' differences in accuracy against zero.

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
    lost = float(sum(np.abs(step[step < 0]).sum() for step in steps))
    difference = float(np.mean([step.mean() for step in steps]))
    exact = len(set(sizes)) == 1 and all(np.isin(step, (-1.0, 0.0, 1.0)).all() for step in steps)
    if exact:
        p, _ = mcnemar(int(gained), int(lost), sum(sizes))
        return Comparison(
            test=PairedTest.MCNEMAR, difference=difference, p_value=p, samples=sum(sizes), gained=gained, lost=lost
        )
    variance = sum(float(np.square(step).sum()) / len(step) ** 2 for step in steps) / len(steps) ** 2
    deviation = math.sqrt(variance)
    p = float(2 * norm.sf(abs(difference) / deviation)) if variance else 1.0
    return Comparison(
        test=PairedTest.NORMAL,
        difference=difference,
        p_value=p,
        samples=sum(sizes),
        gained=gained,
        lost=lost,
        deviation=deviation,
    )


def resample(
    scores: Sequence[float], terms: Sequence[NDArray[Any]], reduce: Reduce | None = None, *, seed: int = 0
) -> NDArray[np.float64]:
    """Scores one set's samples drawn again with replacement, the same draws for every model: a paired bootstrap.

    They lie around the model's own score: what a score that is no mean gains or loses by being drawn again is taken
    off, and the spread is that of ``samples − 1`` (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789).

    Args:
        scores: scores of the models.
        terms: terms of the same models, an array of shape ``(samples,)`` or ``(samples, k)`` each.
        reduce: the score of the samples with given indices; None: the terms' mean.
        seed: seed of the draws; other sets take other ones.

    Returns:
        Shape ``(models, RESAMPLES)``.
    """
    samples = len(terms[0])
    generator = np.random.default_rng([seed, samples])
    own = {(score, values.tobytes()): values for score, values in zip(scores, terms, strict=True)}  # models alike: once
    found = np.empty((len(own), RESAMPLES))
    means = np.stack([values.reshape(samples) for values in own.values()], dtype=np.float64) if not reduce else found
    done = 0
    while done < RESAMPLES:
        count = min(RESAMPLES - done, max(_AT_ONCE // samples, 1))
        drawn = generator.integers(0, samples, (count, samples))
        if reduce is None:
            often = np.bincount((drawn + samples * np.arange(count)[:, None]).ravel(), minlength=count * samples)
            found[:, done : done + count] = means @ often.reshape(count, samples).T.astype(np.float64) / samples
        else:
            for model, values in enumerate(own.values()):
                found[model, done : done + count] = [reduce(values, index) for index in drawn]
        done += count
    around: NDArray[np.float64] = (found - found.mean(axis=1, keepdims=True)) * math.sqrt(samples / max(samples - 1, 1))
    around[np.abs(around) < 1e-12 * np.abs(found).max(axis=1, keepdims=True)] = 0.0  # rounding is no spread
    place = {key: number for number, key in enumerate(own)}
    rows = [place[score, values.tobytes()] for score, values in zip(scores, terms, strict=True)]
    return around[rows] + np.asarray(scores, dtype=np.float64)[:, None]


def bootstrapped(difference: float, draws: NDArray[np.float64], samples: int) -> Comparison:
    """A paired bootstrap (Efron 1979) of a difference: percentile intervals, and the p that agrees with each of them.

    p is twice the share of the draws on the other side of 0, counting the difference itself as one more draw. Where no
    draw is there, the normal tail tells how far they are from it, as a correction over many tests has to know; but p is
    never below that of a sign for each sample.

    Args:
        difference: difference of the scores, after less before.
        draws: the differences of :func:`resample`'s scores, in any order.
        samples: number of samples.

    >>> draws = np.random.default_rng(0).normal(0.1, 0.05, 4999)
    >>> found = bootstrapped(0.1, draws, 500)
    >>> 0.03 < found.p_value < 0.06
    True
    """
    from scipy.stats import norm

    ordered = np.sort(draws)
    beyond = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    p = float(_bootstrap_p(np.asarray(beyond), len(ordered)))
    if not beyond:
        spread = float(ordered.std(ddof=1))
        tail = float(2 * norm.sf(abs(difference) / spread)) if spread else 0.0
        p = min(p, max(tail, 2.0 ** (1 - min(samples, 1000))))
    return Comparison(test=PairedTest.BOOTSTRAP, difference=difference, p_value=p, samples=samples, draws=ordered)


def compare(before: Outcome, after: Outcome, reduce: Reduce | None = None, *, counted: bool = True) -> Comparison:
    """Compares two outcomes on the same samples: by what is right, or, where nothing is, by the objective's terms.

    Args:
        before: the reference's.
        after: the other one's.
        reduce: the objective's score of the samples with given indices; None: the mean of the terms.
        counted: compare by right and wrong, where both outcomes know it; False: by the objective's terms.

    Raises:
        OptionError: they are no outcomes.
        ValueError: they cannot be paired.

    >>> from merging.values.outcome import Outcome
    >>> bits = lambda *b: np.packbits(np.array(b, dtype=bool))
    >>> before = Outcome(score=0.5, samples=4, correct=bits(1, 1, 0, 0))
    >>> pair = compare(before, Outcome(score=0.75, samples=4, correct=bits(1, 0, 1, 1)))
    >>> pair.gained, pair.lost, pair.p_value
    (2.0, 1.0, 1.0)
    """
    from merging.values.outcome import Outcome

    for each in (before, after):
        if not isinstance(each, Outcome):
            raise OptionError(
                f"compare was given {kind_of(each)}; it takes outcomes, as merging.evaluate(…)['test'] is"
            )
    if before.samples != after.samples:
        raise ValueError(f"outcomes on {before.samples} and {after.samples} samples cannot be paired")
    if counted and before.correct is not None and after.correct is not None:
        return paired([before.hits.astype(np.float64)], [after.hits.astype(np.float64)])
    if before.terms is None or after.terms is None:
        raise ValueError("these outcomes tell no samples apart and cannot be paired")
    if reduce is None and not all(is_mean(outcome.terms, outcome.score) for outcome in (before, after)):
        raise ValueError("these scores are not the means of their terms; give reduce, which scores some of the samples")
    old, new = resample([before.score, after.score], [before.terms, after.terms], reduce)
    return bootstrapped(after.score - before.score, new - old, before.samples)


def is_mean(terms: NDArray[Any] | None, score: float) -> bool:
    """Whether a score is the mean of its terms, one number a sample; samples drawn again need no objective then."""
    return (
        terms is not None
        and terms.ndim == 1
        and math.isclose(terms.mean(dtype=np.float64), score, rel_tol=1e-5, abs_tol=1e-9)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of several tests (Holm 1979, https://www.jstor.org/stable/4615733), in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    return [adjusted for adjusted, _ in holm_levels(p_values)]


def holm_levels(p_values: Sequence[float]) -> list[tuple[float, float]]:
    """Adjusted p values, each with the α at which the test itself decides what the adjusted p decides at 5 %.

    That α is 0.05/k, where k is what Holm's correction multiplies p by, its step to the largest smaller one included.
    An interval at level 1 − α excludes 0 just where the adjusted p is below 0.05.

    >>> [(round(p, 4), round(alpha, 4)) for p, alpha in holm_levels([0.01, 0.04, 0.03])]
    [(0.03, 0.0167), (0.06, 0.0333), (0.06, 0.025)]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found, largest = [(0.0, 0.0)] * len(p_values), 0.0
    for rank, index in enumerate(order):
        p = p_values[index]
        largest = max(largest, (len(p_values) - rank) * p)
        alpha = LEVEL * p / largest if largest else LEVEL / (len(p_values) - rank)
        if (p < alpha) != (largest < LEVEL):  # only rounding tells them apart
            alpha = math.nextafter(p, 1.0) if largest < LEVEL else p
        found[index] = min(1.0, largest), alpha
    return found


def mcnemar(gained: int, lost: int, samples: int, alpha: float = LEVEL) -> tuple[float, Interval]:
    """McNemar's exact test (1947), and an interval of the difference in accuracy that agrees with it, 95 % by default.

    The interval is Tango's score interval (1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>
    3.0.CO;2-B), widened where the exact test's own is wider: that of the share of gains among the changed samples, by
    Clopper and Pearson (1934). So it excludes 0 just where p < α, and does not take the number of changed samples
    for certain.

    >>> p, (low, high) = mcnemar(9, 2, 800)
    >>> round(p, 4), round(100 * low, 2), round(100 * high, 2)
    (0.0654, -0.05, 1.9)
    """
    from scipy.stats import binomtest

    z = Z if alpha == LEVEL else normal_quantile(alpha)
    low, high = _tango(gained, lost, samples, z), -_tango(lost, gained, samples, z)
    changed = gained + lost
    if not changed:
        return 1.0, (low, high)
    test = binomtest(gained, changed, 0.5)
    shares = test.proportion_ci(1 - alpha, method="exact")
    own = [float(2 * share - 1) * changed / samples for share in shares]
    found = (min(low, own[0]), max(high, own[1]))
    if test.pvalue < alpha and found[0] <= 0 <= found[1]:  # far out, the normal tail is the heavier one
        found = (own[0], found[1]) if gained > lost else (found[0], own[1])
    return float(test.pvalue), found


def _tango(gained: int, lost: int, samples: int, quantile: float) -> float:
    """The lower end of Tango's interval: where the score test of "the difference is δ" gives z at ``quantile``."""
    from scipy.optimize import brentq

    def z(delta: float) -> float:
        # maximum likelihood of the probability of a loss, given the difference
        b = (2 * samples - gained + lost) * delta - gained - lost
        root = b * b + 8 * samples * lost * delta * (1 - delta)  # (2·samples − 2·lost)² at δ = −1: never below 0
        lose = (math.sqrt(max(root, 0.0)) - b) / (4 * samples)
        variance = samples * (2 * lose + delta * (1 - delta))
        return (gained - lost - samples * delta) / math.sqrt(max(variance, 1e-300)) - quantile

    top = (gained - lost) / samples
    return -1.0 if z(-1 + 1e-12) <= 0 else float(brentq(z, -1 + 1e-12, top, xtol=1e-12))
