"""The largest entries, exactly: against sorting, for values that are alike, many, and as no sample would have them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from merging.mixing import ranking
from merging.mixing.ranking import cuts, last_kept
from merging.mixing.sides import BLOCK, Span

COUNT = 30 * BLOCK + 77


def in_blocks(values: NDArray[np.float32]) -> tuple[ranking.Values, list[Span]]:
    def blocks(start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        for first in range(start, stop, BLOCK):
            yield values[first : min(first + BLOCK, stop)]

    step = 4 * BLOCK
    return blocks, [(start, min(start + step, len(values))) for start in range(0, len(values), step)]


def check(values: NDArray[np.float32], rank: int, wanted: int) -> None:
    found, (read, spans) = None, in_blocks(values)
    (found,) = cuts(read, spans, [rank])
    ordered = np.sort(values)[::-1]
    assert found.value == ordered[rank - 1]
    assert found.above == np.count_nonzero(values > found.value)
    assert found.equal == np.count_nonzero(values == found.value)
    wanted = min(wanted, found.equal)
    until = last_kept(read, spans, found, wanted)
    assert np.count_nonzero(values[:until] == found.value) == wanted


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0, 4, width=16), min_size=1, max_size=60), data=st.data())
def test_few_values(values: list[float], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(values)))
    check(np.array(values, dtype=np.float32), rank, data.draw(st.integers(0, len(values))))


@pytest.mark.parametrize("kind", ["normal", "alike", "few", "ordered", "hidden"])
def test_many_values(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sample of 2048; `hidden` has all large values where none is taken."""
    monkeypatch.setattr(ranking, "_CHUNKS", 8)
    generator = np.random.default_rng(0)
    values = np.abs(generator.normal(size=COUNT)).astype(np.float32)
    if kind == "alike":
        values[:] = 0.25
    elif kind == "few":
        values = np.round(values * 3)
    elif kind == "ordered":
        values = np.sort(values)
    elif kind == "hidden":
        values[300:40_000] += 100
    for rank in (1, 2, 4_000, 30_000, COUNT // 2, COUNT - 1, COUNT):
        check(values, rank, 5)
