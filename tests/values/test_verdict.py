"""Verdicts: families, Holm, intervals that say what the corrected p says at every level, words and files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from merging.values.statistics import (
    LEVEL,
    RESAMPLES,
    Comparison,
    PairedTest,
    bootstrapped,
    holm,
    holm_levels,
    paired,
    resample,
)
from merging.values.verdict import (
    MARKS,
    Family,
    Role,
    Verdict,
    compact,
    corrected,
    correction,
    difference,
    mark,
    p_value,
    sentence,
    sentences,
    title,
    word,
)

ROLES = list(Role)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    """Real tests of random data, of each kind, with effects from nothing to overwhelming."""
    kind = draw(st.sampled_from(list(PairedTest)))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    size = draw(st.integers(12, 400))
    effect = draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.7]))
    if kind == PairedTest.BOOTSTRAP:
        old, scale = generator.gamma(2.0, size=size), draw(st.sampled_from([1e-4, 1.0, 1e5]))
        new = old + generator.normal(effect, 1.0, size)
        scores = [scale * float(values.mean()) for values in (old, new)]
        one, two = resample(scores, [scale * old, scale * new])
        return bootstrapped(scores[1] - scores[0], two - one, size)
    hits = generator.random(size) < 0.6
    change = generator.random(size) < 0.1 + 0.5 * effect
    better = generator.random(size) < 0.5 + 0.5 * effect
    after = np.where(change, better, hits).astype(float)
    if kind == PairedTest.NORMAL:
        after = np.mean([after, generator.permutation(after), hits], axis=0)
    return paired([hits.astype(float)], [after])


def verdict(found: Comparison | str = "nothing to compare", role: Role = Role.TEST, **more: object) -> Verdict:
    named = {"set": str(role), "reference": "best", "against": "the best single model (m)", "measure": "accuracy"}
    return Verdict.of(found, role=role, **{**named, **more})  # type: ignore[arg-type]


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[Verdict, ...]]:
    """Rows of a table before the correction: sets of every role, some of them not tested."""
    roles = draw(st.lists(st.sampled_from(ROLES), min_size=1, max_size=4, unique=True))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        row = []
        for role in roles:
            found = draw(comparisons() | st.just("the objective tells no samples apart"))
            row.append(verdict(found, role))
        rows.append(tuple(row))
    return rows


@settings(max_examples=60)
@given(comparisons(), st.floats(1e-6, 0.5))
def test_an_interval_agrees_with_its_test_at_every_level(found: Comparison, alpha: float) -> None:
    low, high = found.interval_at(alpha)
    assert low <= found.difference <= high
    assert (low > 0 or high < 0) == (found.p_value < alpha)
    narrow = found.interval_at(min(2 * alpha, 0.9))
    slack = 1e-9 * max(abs(low), abs(high))
    assert low - slack <= narrow[0], "a higher level is no narrower"
    assert narrow[1] <= high + slack


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.025, 0.05, 0.0, 1.0]), max_size=12))
def test_holm_gives_the_level_that_decides_alike(p_values: list[float]) -> None:
    ordered = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for p, (adjusted, alpha) in zip(p_values, holm_levels(p_values), strict=True):
        assert (p < alpha) == (adjusted < LEVEL)
        assert adjusted >= p
    assert [pair[0] for pair in holm_levels(p_values)] == holm(p_values)
    rising = [holm(p_values)[i] for i in ordered]
    assert rising == sorted(rising), "a larger p is not more significant"


@settings(max_examples=40)
@given(tables())
def test_families_are_corrected_apart_and_intervals_with_them(rows: list[tuple[Verdict, ...]]) -> None:
    told = corrected(rows)
    assert [[v.p for v in row] for row in told] == [[v.p for v in row] for row in rows], "raw p is kept"
    for family in (Family.PRIMARY, Family.SECONDARY):
        own = [v for row in told for v in row if v.family == family and v.tested]
        assert [v.corrected for v in own] == holm([v.p for v in own])  # type: ignore[misc]
        assert {v.tests for v in own} <= {len(own)}
    for row in told:
        for found in row:
            if not found.tested:
                assert (found.interval, found.corrected, found.level) == (None, None, None)
                continue
            assert found.interval is not None
            assert found.difference is not None
            assert found.corrected is not None
            low, high = found.interval
            assert low <= found.difference <= high
            assert (low > 0 or high < 0) == (found.corrected < LEVEL) == found.significant
            if found.role in (Role.HELD_OUT, Role.CERTIFY):
                assert (found.corrected, found.tests) == (found.p, 1), "what chose the merge is in no family"


@settings(max_examples=40)
@given(tables())
def test_verdicts_read_from_a_file_are_corrected_again(rows: list[tuple[Verdict, ...]]) -> None:
    """As merge report does: raw p counts, and the interval of a bootstrap is scaled, still agreeing with the test."""
    told = corrected(rows)
    back = [tuple(Verdict.from_json(json.loads(json.dumps(v.to_json()))) for v in row) for row in told]
    assert back == told
    again = corrected([*back, *back[:1]])
    for row in again:
        for found in row:
            if found.interval is not None and found.corrected is not None and found.difference is not None:
                assert (found.interval[0] > 0 or found.interval[1] < 0) == (found.corrected < LEVEL)
    exact = [v for row in told for v in row if v.test == PairedTest.MCNEMAR]
    for found in exact:
        bare = Verdict.from_json(found.to_json())
        assert bare.interval_at(0.003) == pytest.approx(found.interval_at(0.003), abs=1e-9)


def test_the_families_of_the_roles() -> None:
    families = {role: Family.of(role) for role in Role}
    assert families == {
        Role.HELD_OUT: Family.SELECTION,
        Role.CERTIFY: Family.CERTIFICATION,
        Role.TEST: Family.PRIMARY,
        Role.SHIFT: Family.SECONDARY,
        Role.AVERAGE: Family.PRIMARY,
    }
    assert Family.of(Role.TEST, extra=True) == Family.SECONDARY
    assert Family.of(Role.HELD_OUT, extra=True) == Family.SELECTION


def test_other_references_and_measures_are_other_families() -> None:
    found = bootstrapped(0.1, np.random.default_rng(0).normal(0.1, 0.04, RESAMPLES), 100)
    one = verdict(found, against="the best single model (a)")
    others = [
        replace(one, against="the best single model (b)"),
        replace(one, reference="greedy"),
        replace(one, measure="nll"),
    ]
    assert all(v.tests == 1 for row in corrected([[one], *[[other] for other in others]]) for v in row)
    assert all(v.tests == 2 for row in corrected([[one], [one]]) for v in row)


def test_words_and_marks() -> None:
    told = verdict(bootstrapped(-0.03, np.random.default_rng(0).normal(-0.03, 0.001, RESAMPLES), 500))
    assert (word(told), mark(told), told.worse, told.better) == ("worse", "▼", True, False)
    assert sentence(told).startswith("▼ worse than the best single model (m): -3.00 points [")
    up = replace(told, difference=0.03, interval=(0.02, 0.04))
    assert (word(up), mark(up), up.better) == ("better", "▲", True)
    flat = replace(told, corrected=0.067, interval=(-0.07, 0.01))
    assert compact(flat) == "-3.00 [-7.00, +1.00] p=.067", "p is said also where nothing is significant"
    silent = verdict("the labels are few")
    assert (word(silent), mark(silent), compact(silent)) == ("not tested", "–", "– not tested")
    assert sentence(silent) == "– not tested: the labels are few"
    assert (word(None), mark(None)) == ("reference", "")
    assert [MARKS[each] for each in ("better", "worse", "not tested")] == ["▲", "▼", "–"]
    assert MARKS["neither"] == "", "no difference is no news"
    assert sentence(flat).startswith("not distinguishable from the best single model (m): -3.00 points [")
    raw = verdict(bootstrapped(12.34567, np.full(RESAMPLES, 12.0), 50), measure="mse")
    assert difference(raw).startswith("+12.35 [")
    assert " mse [" in sentence(raw)
    beside = replace(flat, extra=True)
    assert title(beside) == "test (accuracy)"
    assert [sets for sets, _ in sentences([flat, silent, replace(silent, set="b"), beside])] == [
        "test",
        "test, b",
        "test (accuracy)",
    ]
    assert "optimistic" in sentence(verdict(told.comparison or "", Role.HELD_OUT))
    assert "secondary" in sentence(verdict(told.comparison or "", Role.SHIFT))


def test_p_values_are_short_and_told_apart() -> None:
    shown = [p_value(p) for p in (0.0, 0.0009, 0.001, 0.0312, 0.049999, 0.05, 0.067, 0.0996, 0.25, 0.994, 1.0)]
    assert shown == [
        "p<.001",
        "p<.001",
        "p=.001",
        "p=.031",
        "p=.050",
        "p=.050",
        "p=.067",
        "p=.10",
        "p=.25",
        "p=.99",
        "p=1",
    ]


def test_the_header_says_what_was_corrected() -> None:
    found = bootstrapped(0.1, np.random.default_rng(0).normal(0.1, 0.04, RESAMPLES), 100)
    table = corrected([[verdict(found), verdict(found, Role.SHIFT)], [verdict(found), verdict(found, Role.SHIFT)]])
    assert "both corrected by Holm over 2 tests" in correction(v for row in table for v in row)
    assert "2 tests of single shifted sets (secondary)" in correction(v for row in table for v in row)
    assert "nothing needs correcting" in correction(corrected([[verdict(found)]])[0])
    assert correction([verdict()]) == ""


def test_resampling_against_a_plain_loop() -> None:
    """The fast path for means, and any reduce, against each draw made by hand."""
    generator = np.random.default_rng(3)
    terms = [generator.normal(size=40) for _ in range(3)]
    scores = [float(values.mean()) for values in terms]
    fast = resample(scores, terms, seed=5)
    slow = resample(scores, terms, lambda values, index: float(values[index].mean()), seed=5)
    assert fast == pytest.approx(slow, abs=1e-12)
    drawn = np.random.default_rng([5, 40]).integers(0, 40, (RESAMPLES, 40))
    plain = np.array([[values[index].mean() for index in drawn] for values in terms])
    centred = (plain - plain.mean(axis=1, keepdims=True)) * np.sqrt(40 / 39) + np.array(scores)[:, None]
    assert fast == pytest.approx(centred, abs=1e-12)
    wide = [np.stack([values, values**2], axis=1) for values in terms]
    spread = resample(scores, wide, lambda values, index: float(values[index, 1].sum()), seed=5)
    assert spread.shape == (3, RESAMPLES)
    assert np.array_equal(resample(scores, terms, seed=5), fast), "the same draws every time"
    assert not np.array_equal(resample(scores, terms, seed=6), fast)


@pytest.mark.parametrize("tests", [2, 126, 180, 5000])
def test_a_large_difference_is_told_among_many_tests(tests: int) -> None:
    """Draws are too few to be corrected over many tests: beyond all of them the normal tail counts."""
    steps = np.random.default_rng(1).normal(-1.0, 1.0, 200)
    one, two = resample([0.0, float(steps.mean())], [np.zeros(200), steps])
    found = bootstrapped(float(steps.mean()), two - one, 200)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(steps.mean()) / (steps.std(ddof=1) / 200**0.5)), rel=10)
    told = corrected([[verdict(found)], *[[verdict(bootstrapped(0.0, np.zeros(9), 200))] for _ in range(tests - 1)]])
    assert told[0][0].worse
    assert told[0][0].tests == tests
    low, high = told[0][0].interval or (0.0, 0.0)
    assert low < -1.0 < high < 0
    for alpha in np.geomspace(1e-30, 0.9, 60):
        low, high = found.interval_at(float(alpha))
        assert low <= found.difference <= high
        assert (high < 0) == (found.p_value < alpha)


def test_few_samples_that_agree_are_no_certainty() -> None:
    """Ten differences with one sign have p = 2/1024 by their signs alone, however alike they are."""
    found = bootstrapped(0.5, np.full(RESAMPLES, 0.5), 20)
    assert found.p_value == pytest.approx(2.0**-19)
    assert bootstrapped(0.5, np.full(RESAMPLES, 0.5), 10).p_value == pytest.approx(2 / (RESAMPLES + 1))


def test_models_alike_do_not_differ() -> None:
    values = np.random.default_rng(0).normal(size=77)
    one, two = resample([float(values.mean())] * 2, [values, values.copy()])
    found = bootstrapped(0.0, two - one, 77)
    assert (found.p_value, found.interval) == (1.0, (0.0, 0.0))
    one, two = resample([0.3, 0.3], [np.full(50, 0.3), np.full(50, 0.3)])
    assert np.unique(two).tolist() == [0.3]


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
def test_the_bootstrap_covers(skewed: bool) -> None:
    """What its interval is for: the true difference lies within in about 95 of 100 draws; and p is small as seldom."""
    generator = np.random.default_rng(0)
    held = significant = 0
    for _ in range(300):
        old = generator.exponential(size=120) if skewed else generator.normal(size=120)
        new = old + (generator.exponential(size=120) - 1 if skewed else generator.normal(size=120))
        scores = [float(old.mean()), float(new.mean())]
        one, two = resample(scores, [old, new])
        found = bootstrapped(scores[1] - scores[0], two - one, 120)
        held += found.interval[0] <= 0 <= found.interval[1]
        significant += found.p_value < LEVEL
    assert held / 300 > 0.92
    assert significant == 300 - held
