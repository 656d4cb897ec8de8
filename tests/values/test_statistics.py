"""Outcomes, and paired comparisons of them, against definitions."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from merging.values.outcome import Outcome
from merging.values.statistics import compare, wilson
from merging.values.statistics import mcnemar as exact

bits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


def outcome(hits: list[bool]) -> Outcome:
    packed = np.packbits(np.array(hits, dtype=bool))
    return Outcome(score=sum(hits) / len(hits), samples=len(hits), correct=packed, seconds=0.25)


def mcnemar(gained: int, lost: int) -> Fraction:
    """Two-sided exact binomial p for a fair coin: twice the smaller tail, at most 1."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**n))


@given(st.integers(1, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((0, 3))
@example((10, 10))
def test_wilsons_interval_is_scipys(counted: tuple[int, int]) -> None:
    """Outcomes and means over seeds have one; at the ends it reaches 0 and 1 to the bit."""
    right, samples = counted
    theirs = binomtest(right, samples).proportion_ci(0.95, "wilson")
    low, high = wilson(right / samples, samples)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-15)
    assert (low == 0.0, high == 1.0) == (right == 0, right == samples)
    assert Outcome(
        score=right / samples, samples=samples, correct=np.packbits(np.arange(samples) < right)
    ).interval == (low, high)


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
    found = compare(outcome([p[0] for p in pairs]), outcome([p[1] for p in pairs]))
    low, high = found.interval
    assert low <= found.difference <= high
    assert (low > 0 or high < 0) == found.distinguishable


@pytest.mark.parametrize(
    ("gained", "lost", "samples"), [(40, 12, 800), (4, 0, 800), (0, 0, 50), (30, 31, 743), (9, 1, 20)]
)
def test_the_interval_against_its_definition(gained: int, lost: int, samples: int) -> None:
    """Tango's: the score test of a difference, with the likeliest shares found by search, gives ±1.96 at the ends."""
    _, (low, high) = exact(gained, lost, samples)
    share = binomtest(gained, gained + lost, 0.5).proportion_ci(0.95, "exact") if gained + lost else None
    own = [(2 * bound - 1) * (gained + lost) / samples for bound in share] if share is not None else [low, high]

    def score(delta: float) -> float:
        def against(q: float) -> float:
            parts = ((gained, q + delta), (lost, q), (samples - gained - lost, 1 - 2 * q - delta))
            return -sum(count * np.log(max(p, 1e-300)) for count, p in parts if count)

        least, most = max(0.0, -delta), (1 - delta) / 2
        q = minimize_scalar(against, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        return (gained - lost - samples * delta) / np.sqrt(samples * (2 * q + delta - delta**2))

    assert low == pytest.approx(own[0]) or score(low) == pytest.approx(1.96, abs=0.01)
    assert high == pytest.approx(own[1]) or score(high) == pytest.approx(-1.96, abs=0.01)


@pytest.mark.parametrize("samples", [1, 2, 3, 10, 33, 750, 50000])
def test_the_interval_at_the_ends_of_what_can_happen(samples: int) -> None:
    """None, one, all of them changed, in either direction."""
    counts = sorted({0, 1, samples // 3, samples // 2, samples})
    for gained in counts:
        for lost in (count for count in counts if gained + count <= samples):
            p, (low, high) = exact(gained, lost, samples)
            assert -1 <= low <= (gained - lost) / samples <= high <= 1
            assert (low > 0 or high < 0) == (p < 0.05)


@pytest.mark.slow
def test_the_interval_covers() -> None:
    """What it is for: in 95 of 100 draws it holds the true difference, also where the number of changes is drawn."""
    draw = np.random.default_rng(0)
    for gain, loss, samples in ((0.011, 0.002, 800), (0.008, 0.0005, 800), (0.01, 0.05, 2344)):
        held = 0
        for gained, lost, _ in draw.multinomial(samples, [gain, loss, 1 - gain - loss], 400):
            low, high = exact(int(gained), int(lost), samples)[1]
            held += low <= gain - loss <= high
        assert held / 400 > 0.92


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
    plain = Outcome(score=-1.5, samples=10)
    assert Outcome.from_json(plain.to_json()).correct is None
    with pytest.raises(ValueError, match="no per-sample"):
        _ = plain.hits
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(outcome([True]), outcome([True, False]))


@pytest.mark.parametrize("terms", [np.array([0.5, -1.25, 3.0], dtype=np.float32), np.arange(6).reshape(3, 2)])
def test_terms_survive_json(terms: np.ndarray) -> None:
    back = Outcome.from_json(json.loads(json.dumps(Outcome(score=0.5, samples=3, terms=terms).to_json()))).terms
    assert back is not None
    assert (back.dtype, back.tolist()) == (terms.dtype, terms.tolist())
    assert back.flags.writeable, "torch warns of tensors that share other memory"


def test_what_is_no_mean_is_not_taken_for_one() -> None:
    """A median's terms, or several numbers a sample, say nothing by their mean."""
    terms = np.random.default_rng(0).exponential(size=50)
    mean, median = (Outcome(score=float(score), samples=50, terms=terms) for score in (terms.mean(), np.median(terms)))
    assert compare(mean, mean).p_value == 1
    for other in (median, Outcome(score=float(terms.mean()), samples=50, terms=np.stack([terms, terms], axis=1))):
        with pytest.raises(ValueError, match="give reduce"):
            compare(other, other)
    found = compare(median, median, lambda values, index: float(np.median(values[index])))
    assert found.p_value == 1
