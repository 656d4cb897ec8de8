"""Where labels, axes and points stand: worked out in Python, the same on every machine."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from merging.drawing.places import Span, near, powers, rings, span, spread, ticks
from merging.drawing.theme import look
from merging.drawing.words import apart, lines, shortened, width

heights = st.lists(st.floats(0, 400), max_size=30)


@given(heights)
def test_labels_keep_their_distance_and_their_order(wanted: list[float]) -> None:
    found = spread(wanted, 14.0, 0.0, 600.0)
    order = sorted(range(len(wanted)), key=lambda k: (wanted[k], found[k]))
    for one, other in itertools.pairwise(order):
        assert found[other] - found[one] >= 14.0 - 1e-6
    assert all(-1e-6 <= place <= 600.0 + 1e-6 for place in found)


@given(heights)
def test_labels_that_have_room_stay_where_they_are(wanted: list[float]) -> None:
    kept = [height for k, height in enumerate(sorted(wanted)) if k == 0 or height - sorted(wanted)[k - 1] > 1]
    distances = [b - a for a, b in itertools.pairwise(kept)]
    assert spread(kept, min(distances, default=1.0), 0.0, 400.0) == pytest.approx(kept)


def test_more_labels_than_there_is_room_for_share_it() -> None:
    assert spread([5.0] * 5, 14.0, 0.0, 20.0) == pytest.approx([0, 5, 10, 15, 20])


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), min_size=1, max_size=20))
def test_an_axis_reaches_all_values_and_not_much_farther(values: list[float]) -> None:
    ends = span(values, 300.0)
    assert ends.low <= min(values)
    assert max(values) <= ends.high
    wide = max(values) - min(values)
    if wide > 1e-6 * max(map(abs, values)):
        assert ends.high - ends.low <= 1.6 * wide
    found = ticks(ends, 5)
    assert 1 <= len(found) <= 5
    assert all(ends.low - 1e-6 * abs(ends.low) <= tick <= ends.high + 1e-6 * abs(ends.high) for tick in found)


@given(st.floats(1, 1e6), st.floats(1.5, 1e6), st.integers(2, 12))
@example(1.5000000000000002, 1.5, 2)
def test_an_axis_by_powers_has_round_numbers(low: float, factor: float, most: int) -> None:
    ends = Span(low, low * factor, 300.0, log=True)
    found = powers(ends, most)
    assert len(found) <= most
    assert all(ends.low * (1 - 1e-9) <= value <= ends.high * (1 + 1e-9) for value in found)
    if factor > 10:
        assert found
        assert all(f"{value:e}"[0] in "1235" for value in found) or len(found) > most // 2


def test_one_far_outlier_is_said_to_be_far_and_a_group_is_not() -> None:
    values = [84.0, 85.1, 84.6, 85.0, 84.9]
    assert near([*values, 10.0])[-1] is False
    assert all(near([*values, 83.0]))
    assert all(near([1.0, 2.0, 90.0])), "too few to tell"
    assert all(near([1.0] * 5 + [90.0] * 5)), "two groups"


def test_what_is_covered_is_drawn_larger() -> None:
    assert rings([(0, 0), (0, 0), (0, 0), (50, 0)]) == [2, 1, 0, 0]


def test_thirty_five_methods_look_different_and_neighbours_in_both() -> None:
    looks = [look(place) for place in range(35)]
    assert len(set(looks)) == 35
    for one, other in itertools.pairwise(looks):
        assert one.colour != other.colour
        assert one.shape != other.shape


@given(st.text(max_size=60), st.floats(20, 200))
def test_a_shortened_name_fits(text: str, room: float) -> None:
    assert width(shortened(text, room, 11.5), 11.5) <= room


@given(st.lists(st.text("ab", min_size=20, max_size=40), max_size=6, unique=True))
def test_shortened_names_are_told_apart(names: list[str]) -> None:
    assert len(set(apart(names, 90.0, 11.5))) == len(names)


@given(st.text(max_size=200))
def test_lines_fit_and_lose_no_short_word(text: str) -> None:
    found = lines(text, 200.0, 12.0)
    assert all(width(line, 12.0) <= 200.0 for line in found)
    short = [word for word in text.split() if width(word, 12.0) <= 200.0]
    assert not set(short) - set(" ".join(found).split())


def test_a_wide_script_is_measured_as_wide() -> None:
    assert width("模型", 10) > 20
    assert math.isclose(width("e\u0301", 10), width("e", 10))
