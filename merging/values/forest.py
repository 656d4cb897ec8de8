"""A forest of differences: each verdict's difference with its interval, and the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from merging.drawing import COLOURS, INK, MUTED, PAPER, WIDE
from merging.values.verdict import Standing, Verdict, compact, word

LOOKS = {Standing.BETTER: COLOURS[0], Standing.WORSE: COLOURS[1]}
"""Colours of what is better and worse; others are dim."""
Rows = Sequence[tuple[str, Verdict]]


def size_of(rows: Rows) -> tuple[float, float]:
    """Inches that a forest needs: a line for each verdict."""
    return WIDE[0], max(1.6, 0.9 + 0.27 * len(rows))


def forest(figure: Figure, rows: Rows, name: str) -> None:
    """Draws a line for each verdict, the first one on top: difference, interval, and both in numbers beside it.

    Args:
        figure: what is drawn on.
        rows: what each line is called, and its verdict; those of another measure than the first one's have no place
            on its axis, and are left out.
        name: name of the method, for the title.
    """
    first = next(verdict for _, verdict in rows if verdict.tested)
    rows = [(label, verdict) for label, verdict in rows if verdict.measure == first.measure]
    factor = 100 if first.percent else 1
    width, height = figure.get_size_inches()
    left = 0.2 + 0.07 * max(len(label) for label, _ in rows)
    right = 0.3 + 0.062 * max(len(compact(verdict)) for _, verdict in rows)
    left, right = min(left, 0.35 * width), min(right, 0.4 * width)
    axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + right) / width, 1 - 0.84 / height))
    axes.axvline(0.0, color=MUTED, lw=0.9, zorder=1)
    for place, (_, verdict) in enumerate(rows):
        beside = axes.get_yaxis_transform()
        axes.text(1.02, place, compact(verdict), transform=beside, va="center", fontsize=8, color=INK)
        if verdict.difference is None or verdict.interval is None:
            continue
        colour = LOOKS.get(word(verdict), MUTED)
        axes.plot([factor * end for end in verdict.interval], (place, place), color=colour, lw=1.6, zorder=2)
        axes.plot(
            factor * verdict.difference, place, "o", ms=6, mfc=colour, mec=PAPER, mew=0.8, zorder=3, clip_on=False
        )
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("points" if first.percent else first.measure)
    axes.set_title(f"{name} against {first.against}", color=INK, fontsize=9)
