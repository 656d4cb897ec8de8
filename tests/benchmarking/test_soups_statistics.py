"""Statistics over pools agree with scipy and with Holm's procedure as a closed test; of nothing, nothing is claimed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from benchmarks.soups.pools import Pools
from benchmarks.soups.statistics import ALPHA, OverPools, compared, step_down
from tests.benchmarking.pools_of_bits import DIGEST, names, pool, without

AHEAD = {"affine": 0.03, "learned": 0.028}
EIGHT = names("pacs", 8)

points = st.floats(-0.1, 0.1).map(lambda value: round(value, 5))


@given(st.lists(points, min_size=3, max_size=12).filter(lambda found: np.std(found) > 1e-5), st.floats(0.002, 0.2))
def test_intervals_and_p_are_those_of_scipy(values: list[float], alpha: float) -> None:
    found, test = OverPools(tuple(values)), ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(test.pvalue, rel=1e-8)
    expected = test.confidence_interval(1 - alpha)
    assert found.interval(alpha) == pytest.approx((expected.low, expected.high), rel=1e-7, abs=1e-9)
    low, high = found.interval(alpha)
    assert (low > 0 or high < 0) == (found.p < alpha)


def test_pools_that_all_say_the_same() -> None:
    assert OverPools((0.0, 0.0, 0.0)).p == 1.0
    assert OverPools((0.0, 0.0)).interval() == (0.0, 0.0)
    assert OverPools((0.25, 0.25, 0.25)).p == 0.0
    assert OverPools((0.25, 0.25, 0.25)).interval() == (0.25, 0.25)
    assert OverPools((0.25,)).p == 1.0
    with pytest.raises(ValueError, match="one pool"):
        OverPools((0.25,)).interval()


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=7))
def test_step_down_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls where every intersection with it falls: the other definition of Holm's procedure."""
    tests = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(tests, size)]
    fallen = {chosen for chosen in sets if min(p_values[test] for test in chosen) < ALPHA / len(chosen)}
    expected = [all(chosen in fallen for chosen in sets if test in chosen) for test in tests]
    found = step_down(p_values)
    assert [rejected for rejected, _ in found] == expected
    assert all(rejected == (p < alpha) for (rejected, alpha), p in zip(found, p_values, strict=True))


def test_of_nothing_nothing_is_claimed() -> None:
    """By chance alone any word under shift stands in at most one family of twenty."""
    generator = np.random.default_rng(0)
    families = 600
    shared = generator.normal(0, 0.01, (families, 1, 6))  # affine's own luck is in all seven differences
    drawn_ = shared + generator.normal(0, 0.01, (families, 7, 6))
    wrong = sum(any(r for r, _ in step_down([OverPools(tuple(v)).p for v in family])) for family in drawn_)
    assert 0 < wrong <= families * ALPHA + 3 * np.sqrt(families * ALPHA * (1 - ALPHA))
    records = [pool(name, EIGHT) for name in EIGHT]
    assert {each.words[0] for each in compared(records)} == {"not shown"}


def test_a_missing_method_weakens_no_other_and_is_claimed_of_in_no_way() -> None:
    records = [pool(name, EIGHT, shift=AHEAD) for name in EIGHT]
    full = {each.against: each for each in compared(records)}
    records[2] = without(records[2], "greedy")
    found = {each.against: each for each in compared(records)}
    assert found["greedy"].words == ("no claim: missing in pacs-2",) * 2
    assert not found["greedy"].rejected
    assert min(each.alpha for each in found.values()) == ALPHA / 7
    assert found["best"].alpha <= full["best"].alpha * 7 / 6
    assert "**Missing methods** (greedy): pacs-2." in Pools(tuple(records), DIGEST).notes()
