"""What differences between methods say over pools: t intervals, Holm's step-down, and the words of the protocol.

A pool is one observation. Nothing here looks at a sample: how sure one pool is of its own difference is another
question, which :func:`merging.values.statistics.paired` answers.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.soups.design import FAMILIES, PRIMARY
from benchmarks.soups.record import Record, Scored
from merging.values.statistics import Comparison, Interval, agreeing, paired

CANDIDATE = "affine"
"""The method that the protocol asks about."""
AGAINST = PRIMARY
"""What it is compared with; Holm's correction counts all of them, also where one is missing."""
ALPHA = 0.05
MARGIN = 0.01
"""Of non-inferiority at home, as a fraction: 1.0 point."""
LEAST = {family.name: family.enough for family in FAMILIES.values()}
"""Pools of a family that an interval over pools takes."""
LARGE = 100
"""Samples of a shifted set; the average without smaller ones is shown beside the average of all."""
TEST = "test"


@dataclass(frozen=True)
class OverPools:
    """One number a pool, such as the difference of two methods' accuracies, as fractions."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over pools."""
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over pools (n − 1); NaN of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def p(self) -> float:
        """Two-sided p of Student's t test of "the mean is 0"; 1 where there are fewer than two pools."""
        from scipy.stats import t

        if len(self.values) < 2 or not any(self.values):
            return 1.0
        error = self.deviation / math.sqrt(len(self.values))
        return float(2 * t.sf(abs(self.mean) / error, len(self.values) - 1)) if error else 0.0

    def interval(self, alpha: float = ALPHA) -> Interval:
        """Student's interval of the mean at level 1 − ``alpha``, which excludes 0 just where p < ``alpha``.

        Raises:
            ValueError: fewer than two pools have none.
        """
        from scipy.stats import t

        if len(self.values) < 2:
            raise ValueError("one pool has no interval over pools")
        half = float(t.isf(alpha / 2, len(self.values) - 1)) * self.deviation / math.sqrt(len(self.values))
        return agreeing((self.mean - half, self.mean + half), self.mean, significant=self.p < alpha)


def step_down(p_values: Sequence[float]) -> list[tuple[bool, float]]:
    """Holm's procedure (1979): of each test, whether it is rejected, and the α at which it was decided.

    In the order of p, the k-th smallest of m is tested at 0.05/(m − k + 1). The first that is not rejected ends it:
    all later ones are not rejected either, and keep its α. So an interval at level 1 − α excludes 0 just where the
    test is rejected.

    >>> [(rejected, round(alpha, 4)) for rejected, alpha in step_down([0.01, 0.2, 0.03])]
    [(True, 0.0167), (False, 0.025), (False, 0.025)]
    """
    found = [(False, 0.0)] * len(p_values)
    alpha, going = ALPHA, True
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if going:
            alpha = ALPHA / (len(p_values) - rank)
            going = p_values[index] < alpha
        found[index] = going, alpha
    return found


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The candidate less another method, over the pools of a family.

    Attributes:
        against: the other method.
        pools: names of the pools in which both finished.
        failed: names of those in which one failed; the comparison has that many fewer.
        absent: names of those that never ran one, which no protocol foresees.
        shifted: differences of the mean accuracy over the shifted sets: the primary outcome.
        home: differences on the test set.
        rejected: whether Holm's procedure rejects "no difference under shift".
        alpha: the α at which it was decided.
        enough: whether the family has a rule, and these are as many pools as it asks for.
    """

    against: str
    pools: tuple[str, ...]
    failed: tuple[str, ...]
    absent: tuple[str, ...]
    shifted: OverPools
    home: OverPools
    rejected: bool
    alpha: float
    enough: bool

    @property
    def interval(self) -> Interval:
        """The interval of the primary outcome at Holm's level."""
        return self.shifted.interval(self.alpha)

    @property
    def words(self) -> tuple[str, str]:
        """What the protocol says of the shifted sets, and of the test set."""
        if self.absent:
            return ("no claim: missing in " + ", ".join(self.absent),) * 2
        if not self.enough:
            return (f"no claim: too few pools ({len(self.pools)})",) * 2
        low, high = self.interval
        shift = "better under shift" if low > 0 else "worse under shift" if high < 0 else "not shown"
        return shift, "no worse at home" if self.home.interval()[0] > -MARGIN else "not shown"


def compared(records: Sequence[Record]) -> list[Compared]:
    """Compares the candidate with each of the others over the records of one family and part."""
    found = []
    for other in AGAINST:
        pairs = [(record, finished(record, CANDIDATE), finished(record, other)) for record in records]
        both = [(record, one, two) for record, one, two in pairs if one is not None and two is not None]
        lacking = [record for record, one, two in pairs if one is None or two is None]
        absent = [record for record in lacking if record.method(CANDIDATE) is None or record.method(other) is None]
        found.append(
            Compared(
                against=other,
                pools=tuple(record.name for record, *_ in both),
                failed=tuple(record.name for record in lacking if record not in absent),
                absent=tuple(record.name for record in absent),
                shifted=OverPools(tuple(r.shifted(one) - r.shifted(two) for r, one, two in both)),
                home=OverPools(tuple(r.accuracy(one, TEST) - r.accuracy(two, TEST) for r, one, two in both)),
                rejected=False,
                alpha=ALPHA,
                enough=len(both) >= least_of(records),
            )
        )
    decided = step_down([1.0 if each.absent or not each.enough else each.shifted.p for each in found])
    return [
        Compared(**{**vars(each), "rejected": rejected, "alpha": alpha})
        for each, (rejected, alpha) in zip(found, decided, strict=True)
    ]


def differences(records: Iterable[Record], one: str, other: str, outcome: str) -> OverPools:
    """Differences of two methods in the pools that have both.

    Args:
        records: the pools.
        one: name of a method.
        other: name of the one that it is compared with.
        outcome: as :func:`score` takes it.
    """
    found = []
    for record in records:
        first, second = finished(record, one), finished(record, other)
        if first is not None and second is not None:
            found.append(score(record, first, outcome) - score(record, second, outcome))
    return OverPools(tuple(found))


def finished(record: Record, name: str) -> Scored | None:
    """Finds a method's merge; None where the record has none, or the method failed and has no scores."""
    method = record.method(name)
    if method is None or method.facts.get("status", "finished") != "finished":
        return None
    return method if set(record.samples) <= set(method.correct) else None


def least_of(records: Sequence[Record]) -> int:
    """Tells how many pools an interval over pools of this family takes; no number is enough where there is no rule."""
    return LEAST.get(records[0].family, sys.maxsize) if records else sys.maxsize


def small(record: Record) -> list[str]:
    """Names the shifted sets that have few samples."""
    return [name for name in record.shifts if record.samples[name] < LARGE]


def large(record: Record) -> list[str]:
    """Names the shifted sets that have enough samples to say something."""
    return [name for name in record.shifts if name not in small(record)]


def score(record: Record, scored: Scored, outcome: str) -> float:
    """The accuracy on a set, the ``average`` of the shifted ones, or that of the ``large`` ones alone."""
    if outcome == "average":
        return record.shifted(scored)
    if outcome == "large":
        return statistics.mean(record.accuracy(scored, name) for name in large(record))
    return record.accuracy(scored, outcome)


def within(record: Record, one: Scored, other: Scored, *sets: str) -> Comparison:
    """One pool's own test of a difference, over its samples: of one set, or of the mean over several."""
    before, after = ([record.correct(scored, name).astype(float) for name in sets] for scored in (other, one))
    return paired(before, after)
