"""Outcomes: packed bits, and McNemar's exact test against its formula."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_the_interval_is_wald_s(pairs: list[tuple[bool, bool]]) -> None:
    changes = [int(new) - int(old) for old, new in pairs]
    n = len(changes)
    mean = sum(changes) / n
    half = 1.96 * sqrt(max(sum((change - mean) ** 2 for change in changes) / n, 0.0) / n)
    low, high = compare(outcome([p[0] for p in pairs]), outcome([p[1] for p in pairs])).interval
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-9)


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
