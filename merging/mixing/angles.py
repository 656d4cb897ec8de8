"""Averages of directions as weighted sums: every point on the way lies in the span of the models.

So the scalar products of a tensor in all models say which weights it has, and those of many steps are found without
another look at it. The tensor is read twice: for the products, and for the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from merging.mixing.blockwise import Blocks, Blockwise
from merging.mixing.sides import Doubles, Sides, Span, scratch, spread

Factors: TypeAlias = Callable[[str, Doubles], list[float]]
"""A tensor's name, and the scalar products of it in all models → the factor of each model."""
_SMALL = 1e-8
"""Angles below this, in radians, and arcs that are not defined, are averaged along the straight line."""


def by_angles(factors: Factors, *, of_changes: bool = False) -> Blockwise:
    """A merge that is a weighted sum of models, or of their changes from the base with the base added.

    Args:
        factors: gives the weights of a tensor.
        of_changes: whether changes are weighed; then there is a base.
    """

    def prepare(sides: Sides) -> Blocks:
        weights = factors(sides.name, products(sides, of_changes=of_changes))

        def merged(start: int, stop: int) -> Iterator[tuple[int, Doubles]]:
            for first, rows in _rows(sides, start, stop, of_changes=of_changes):
                total = scratch("total", rows.shape[1])
                total.fill(0.0)
                for row, weight in zip(rows[: sides.models], weights, strict=True):
                    row *= weight
                    total += row
                if of_changes:
                    total += rows[sides.models]
                yield first, total

        return Blocks(sides.spans(), merged)

    return Blockwise(prepare, looks=True)


def products(sides: Sides, *, of_changes: bool) -> Doubles:
    """The scalar products of a tensor in all models, or of its changes from the base.

    The bits depend on no number of threads.

    Returns:
        Shape ``(models, models)``.
    """
    pairs = [(i, j) for i in range(sides.models) for j in range(i + 1)]

    def of(span: Span) -> list[list[float]]:
        found = list[list[float]]()
        for _, rows in _rows(sides, *span, of_changes=of_changes):
            product = scratch("product", rows.shape[1])
            found.append([float(np.multiply(rows[i], rows[j], out=product).sum()) for i, j in pairs])
        return found

    blocks = [block for part in spread(of, sides.spans()) for block in part]
    table = np.zeros((sides.models, sides.models))
    for (i, j), column in zip(pairs, zip(*blocks, strict=True), strict=True):
        table[i, j] = table[j, i] = math.fsum(column)
    return table


def arc(table: Doubles, t: float, *, lengths: str = "mean", straight: float = 1.0) -> list[float]:
    """The factors of :func:`merging.mixing.spherical.slerp`, whose arguments these are.

    Args:
        table: the scalar products of two tensors.
        t: place on the arc, between 0 and 1.
        lengths: ``mean`` or ``own``.
        straight: magnitude of the cosine above which it is the linear interpolation.
    """
    one, other = math.sqrt(table[0, 0]), math.sqrt(table[1, 1])
    line = [1.0 - t, t]
    if one == 0 or other == 0:
        return line
    angle = _angle(float(table[0, 1]) / (one * other))
    if angle < _SMALL or math.pi - angle < _SMALL or (straight < 1 and abs(math.cos(angle)) > straight):
        return line
    found = [math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]
    if lengths == "own":
        return found
    length = (1.0 - t) * one + t * other
    return [found[0] * length / one, found[1] * length / other]


def karcher_mean(table: Doubles, steps: int = 50, tolerance: float = 1e-12) -> list[float]:
    """The factors of :func:`merging.mixing.spherical.karcher`, whose arguments these are.

    Args:
        table: the scalar products of all tensors.
        steps: iterations at the most.
        tolerance: angle in radians; a smaller step ends the iteration, and is not made.
    """
    lengths, count = np.sqrt(np.diag(table)), len(table)
    mean = [1.0 / count] * count
    if not lengths.all():
        return mean
    cosines = np.clip(table / np.outer(lengths, lengths), -1.0, 1.0)
    centre = np.full(count, 1.0 / count)
    if _size(centre, cosines) < _SMALL:
        return mean
    centre /= _size(centre, cosines)
    for _ in range(steps):
        step = np.mean([_towards(centre, cosines, each) for each in range(count)], axis=0)
        angle = _size(step, cosines)
        if angle < tolerance:
            break
        centre = math.cos(angle) * centre + math.sin(angle) * step / angle
        centre /= _size(centre, cosines)
    factors: list[float] = (lengths.mean() * centre / lengths).tolist()
    return factors


def mean_direction(table: Doubles, weights: Sequence[float]) -> list[float]:
    """The factors of the weighted sum of directions, as long as the weighted sum of lengths.

    Where the directions cancel, they are the weights; a tensor of length 0 has no direction.

    Args:
        table: the scalar products of all tensors.
        weights: one a tensor.
    """
    lengths = np.sqrt(np.diag(table))
    factors = np.divide(weights, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    size = _size(factors, table)
    if size < _SMALL:
        return list(weights)
    scaled: list[float] = (factors * (float(np.dot(weights, lengths)) / size)).tolist()
    return scaled


def _rows(sides: Sides, start: int, stop: int, *, of_changes: bool) -> Iterator[tuple[int, Doubles]]:
    """The models' values of each block, or their changes and after them the base."""
    return sides.differences(start, stop) if of_changes else sides.values(start, stop)


def _angle(cosine: float) -> float:
    """The angle of two directions; through half-angles, which keep those near 0 and π."""
    cosine = min(max(cosine, -1.0), 1.0)
    return 2.0 * math.atan2(math.sqrt(1.0 - cosine), math.sqrt(1.0 + cosine))


def _size(factors: Doubles, table: Doubles) -> float:
    """The length of a weighted sum."""
    return math.sqrt(max(float(factors @ table @ factors), 0.0))


def _towards(centre: Doubles, cosines: Doubles, each: int) -> Doubles:
    """The tangent at the centre that leads to one direction, as long as the angle."""
    cosine = float(centre @ cosines[each])
    across = -cosine * centre
    across[each] += 1.0
    size = _size(across, cosines)
    return across if size == 0 else _angle(cosine) / size * across
