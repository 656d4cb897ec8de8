"""vl-convert in a process that was forked after something was drawn."""

from __future__ import annotations

import os
import warnings

import altair as alt

from merging.drawing import Size, draw


def bars(size: Size) -> alt.Chart:
    return alt.Chart(alt.Data(values=[{"x": 1}])).mark_bar().encode(x="x:Q").properties(width=size.width)


def test_a_fork_draws_the_same_bits() -> None:
    """Its threads are not in the fork: vl-convert itself would wait for them for ever."""
    own = draw(bars, "a", Size(100, 100), "svg", "png")
    read, written = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside idle threads
        child = os.fork()
    if child == 0:
        os.write(written, b"same" if draw(bars, "a", Size(100, 100), "svg", "png") == own else b"other")
        os._exit(0)
    os.close(written)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"same"
    assert os.waitpid(child, 0)[1] == 0
