"""Outcomes: packed bits, and McNemar's exact test against its formula."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from merging.outcome import Outcome, compare

bits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


def outcome(hits: list[bool]) -> Outcome:
    packed = np.packbits(np.array(hits, dtype=bool))
    return Outcome(sum(hits) / len(hits), len(hits), packed, 0.25)


def mcnemar(gained: int, lost: int) -> Fraction:
    """Two-sided exact binomial p for a fair coin: twice the smaller tail, at most 1."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**n))


@given(bits)
def test_mcnemar_against_the_formula(pairs: list[tuple[bool, bool]]) -> None:
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    found = compare(outcome(before), outcome(after))
    gained = sum(not old and new for old, new in pairs)
    lost = sum(old and not new for old, new in pairs)
    assert (found.gained, found.lost, found.samples) == (gained, lost, len(pairs))
    assert found.p_value == pytest.approx(float(mcnemar(gained, lost)), rel=1e-9)
    assert found.difference == pytest.approx(sum(after) / len(pairs) - sum(before) / len(pairs), abs=1e-12)
    assert found.distinguishable == (found.p_value < 0.05)


@given(bits)
def test_the_interval_says_what_the_test_says(pairs: list[tuple[bool, bool]]) -> None:
    """At its ends the changed samples have a tail of 2.5 %; it holds the difference, and 0 where p ≥ 0.05."""
    found = compare(outcome([p[0] for p in pairs]), outcome([p[1] for p in pairs]))
    changed, (low, high) = found.gained + found.lost, found.interval
    assert low <= found.difference + 1e-12
    assert high >= found.difference - 1e-12
    assert (low > 0 or high < 0) == found.distinguishable
    if not changed:
        return
    share_low, share_high = ((bound * len(pairs) / changed + 1) / 2 for bound in (low, high))
    below, above = binom.cdf(found.gained, changed, share_high), binom.sf(found.gained - 1, changed, share_low)
    for share, tail in ((share_high, below), (share_low, above)):
        if 1e-9 < share < 1 - 1e-9:
            assert tail == pytest.approx(0.025, rel=1e-6)


@given(bits)
def test_comparing_the_other_way_round_changes_the_sign_only(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (outcome([pair[side] for pair in pairs]) for side in (0, 1))
    there, back = compare(first, second), compare(second, first)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.difference == -back.difference


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_json_keeps_the_bits(hits: list[bool]) -> None:
    back = Outcome.from_json(json.loads(json.dumps(outcome(hits).to_json())))
    assert back.hits.tolist() == hits
    assert back.right == sum(hits)
    assert back.accuracy == back.score == sum(hits) / len(hits)
    assert back.seconds == 0.25


def test_outcomes_without_bits() -> None:
    plain = Outcome(-1.5, 10)
    assert Outcome.from_json(plain.to_json()).correct is None
    with pytest.raises(ValueError, match="no per-sample"):
        _ = plain.hits
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(outcome([True]), outcome([True, False]))
