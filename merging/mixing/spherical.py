"""Averages of directions: along a great circle, to the Karcher mean, to the direction of the mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 1e-8
"""Angles below this, in radians, and arcs that are not defined, are averaged along the straight line."""


def slerp(a: Tensor, b: Tensor, t: float, *, lengths: str = "mean", straight: float = 1.0) -> Tensor:
    """Interpolates from ``a`` (t = 0) to ``b`` (t = 1) along the great circle.

    Where the directions are equal or opposite, or a length is 0, it is the linear interpolation.

    Args:
        a: any shape, float64; read as one vector.
        b: tensor of the same shape.
        t: place on the arc, between 0 and 1.
        lengths: ``mean``: directions on the arc, lengths interpolated linearly; ``own``: the arc's factors on the
            vectors as they are, which is Shoemake's formula where its vectors are no unit vectors.
        straight: magnitude of the cosine above which it is the linear interpolation too.
    """
    length, other = a.norm(), b.norm()
    if length == 0 or other == 0:
        return a.lerp(b, t)
    u, v = a / length, b / other
    # atan2 of half-angles keeps small angles exact, where acos of a cosine near 1 does not
    angle = 2 * (u - v).norm().atan2((u + v).norm())
    if angle < _SMALL or math.pi - angle < _SMALL or (straight < 1 and abs(float(angle.cos())) > straight):
        return a.lerp(b, t)
    if lengths == "own":
        u, v = a, b
    direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    merged: Tensor = direction if lengths == "own" else ((1 - t) * length + t * other) * direction
    return merged


def slerp_rows(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The arc's factors, row by row, on rows as they are; rows lie along the last dimension.

    Args:
        a: tensor of at least one dimension, float64.
        b: tensor of the same shape.
        t: place on the arc, between 0 and 1.
    """
    import torch

    length, other = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / length.clamp(min=torch.finfo(a.dtype).tiny), b / other.clamp(min=torch.finfo(a.dtype).tiny)
    angle = 2 * (u - v).norm(dim=-1, keepdim=True).atan2((u + v).norm(dim=-1, keepdim=True))
    line = (length == 0) | (other == 0) | (angle < _SMALL) | (math.pi - angle < _SMALL)
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    return torch.where(line, a.lerp(b, t), arc)


def karcher(tensors: list[Tensor], steps: int = 50, tolerance: float = 1e-12) -> Tensor:
    """The point on the sphere with the smallest sum of squared angles to all, at their mean length.

    Args:
        tensors: tensors of one shape, float64, each read as one vector.
        steps: iterations at the most.
        tolerance: angle in radians; a smaller step ends the iteration, and is not made.
    """
    lengths = [tensor.norm() for tensor in tensors]
    if not all(lengths):
        return _mean(tensors)
    units = [tensor / length for tensor, length in zip(tensors, lengths, strict=True)]
    mean = _mean(units)
    if mean.norm() < _SMALL:
        return _mean(tensors)
    centre = mean / mean.norm()
    for _ in range(steps):
        step = _mean([_towards(centre, unit) for unit in units])
        angle = step.norm()
        if angle < tolerance:
            break
        centre = angle.cos() * centre + angle.sin() * step / angle
        centre = centre / centre.norm()
    merged: Tensor = _mean(lengths) * centre
    return merged


def _mean(tensors: list[Tensor]) -> Tensor:
    total: Tensor = sum(tensors[1:], tensors[0])
    return total / len(tensors)


def _towards(centre: Tensor, unit: Tensor) -> Tensor:
    """The tangent at ``centre`` that leads to ``unit``, as long as the angle."""
    across = unit - (centre * unit).sum() * centre
    size = across.norm()
    if size == 0:
        return across
    tangent: Tensor = 2 * (centre - unit).norm().atan2((centre + unit).norm()) * across / size
    return tangent
