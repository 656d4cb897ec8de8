"""A scatter of characters, for terminals: letters for methods, dots for single models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

SINGLE = "·"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def scatter(points: Sequence[tuple[float, float, str]], *, width: int, height: int, across: str, up: str) -> list[str]:
    """Draws a plot with axes as lines of text.

    Args:
        points: x, y and one character each; of two that would fall on one place, the later one moves beside it.
        width: characters of a line, at least 24.
        height: lines of the plot's area.
        across: what x is.
        up: what y is.

    >>> for line in scatter([(0, 0, "A"), (1, 1, "B")], width=24, height=3, across="x", up="y"):
    ...     print(line)
        y
    1.0┤            B
    0.5┤
    0.0┤ A
       └───────────────────
        0.0   0.5  1.0    x
    """
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    marks = _ticks(min(ys), max(ys), max(2, height // 4))
    low, high = min(marks[0], *ys), max(marks[-1], *ys)
    labels = [_number(value, marks) for value in marks]
    margin = max(map(len, labels))
    columns = max(width - margin - 1, 10)
    inner = columns - len(across) - 4 if len(across) + 14 < columns else columns - 2
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5

    def place(x: float, y: float) -> tuple[int, int]:
        row = round((high - y) / (high - low) * (height - 1)) if high > low else height // 2
        return row, 1 + round((x - left) / (right - left) * (inner - 4))

    grid = [[" "] * columns for _ in range(height)]
    for x, y, mark in points:
        row, column = _free(grid, *place(x, y), mark)
        grid[row][column] = mark
    ticks = {place(left, value)[0]: label for value, label in zip(marks, labels, strict=True)}
    lines = [" " * margin + f" {up}"]
    for row, cells in enumerate(grid):
        edge = f"{ticks[row]:>{margin}}┤" if row in ticks else " " * margin + "│"
        lines.append((edge + "".join(cells)).rstrip())
    lines.append(" " * margin + "└" + "─" * (columns - 1))
    lines.append(_bottom(left, right, lambda value: place(value, low)[1], columns, margin, across))
    return lines


def _free(grid: list[list[str]], row: int, column: int, mark: str) -> tuple[int, int]:
    """The nearest place that is free; dots give way to letters."""
    near = sorted(
        ((r, c) for r in range(len(grid)) for c in range(1, len(grid[0]) - 1)),
        key=lambda at: (abs(at[0] - row) * 2 + abs(at[1] - column), at),
    )
    return next((at for at in near if grid[at[0]][at[1]] in (" ", SINGLE if mark != SINGLE else " ")), (row, column))


def _bottom(
    left: float, right: float, column_of: Callable[[float], int], columns: int, margin: int, across: str
) -> str:
    line = [" "] * columns
    marks = [value for value in _ticks(left, right, max(2, columns // 14)) if left <= value <= right]
    for value in marks:
        column = column_of(value)
        text = _number(value, marks)
        begin = max(column - len(text) // 2, 0)
        if begin + len(text) < columns and all(cell == " " for cell in line[max(begin - 1, 0) : begin + len(text) + 1]):
            line[begin : begin + len(text)] = text
    free = len("".join(line).rstrip()) + 2
    line[max(free, columns - len(across) - 1) :] = across
    return " " * (margin + 1) + "".join(line).rstrip()


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from low to high."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    base = 10 ** math.floor(math.log10(rough))
    step = next(m * base for m in (1, 2, 5, 10) if m * base >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def _number(value: float, marks: Sequence[float]) -> str:
    """As many decimals as the steps need; of a mark that stands alone, those that it has itself."""
    if len(marks) < 2:
        return f"{value:.4g}"
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
