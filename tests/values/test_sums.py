"""Sums have the same bits on every Python."""

from __future__ import annotations

import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from merging.values.sums import in_order


def test_nothing_that_was_lost_is_made_good() -> None:
    assert in_order([1e16, 1.0, -1e16]) == 0.0, "Python's own sum says 1 from 3.12 on"
    assert in_order(iter([])) == 0.0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_one_after_the_other(values: list[float]) -> None:
    assert in_order(values) == functools.reduce(operator.add, values)
