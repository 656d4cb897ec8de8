"""Averages along great circles: slerp of two models (Shoemake 1985), the Karcher mean of more (Karcher 1977)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 1e-8
"""Angles below this, in radians, and arcs that are not defined, are averaged along the straight line."""


@strategies.register("slerp")
@dataclass(frozen=True)
class Slerp(MixStrategy):
    """Averages each tensor as a direction and a length: directions on the sphere, lengths as numbers."""

    label: ClassVar[str] = "slerp"
    summary: ClassVar[str] = "directions averaged on the sphere, tensor by tensor"
    paper: ClassVar[str] = "Shoemake 1985, https://doi.org/10.1145/325165.325242; Karcher 1977 for more than two"
    formula: ClassVar[str] = (
        "two: u = (sin((1 − t)φ) · a/|a| + sin(tφ) · b/|b|) / sin φ, θ = ((1 − t)|a| + t|b|) · u; "
        "more: u = argmin Σ_i angle(u, θ_i/|θ_i|)², θ = mean |θ_i| · u"
    )
    limits: ClassVar[str] = (
        "Whole tensors are taken as vectors, which no theory asks for; models of one start are nearly parallel, and "
        "the result is close to the plain average with the models' own lengths. Averages of more than two take "
        "several passes over a tensor and hold it in all models at once. Costs no evaluation."
    )
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    t: float = option(0.5, "how far from the first of two models to the second", low=0.0, high=1.0)
    steps: int = option(50, "iterations of the Karcher mean of more than two at the most", low=1)

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        if len(problem.pool) > 2 and self.t != 0.5:
            raise OptionError(
                f"option 't' of 'slerp' is for two models, not {len(problem.pool)}; leave it out for their mean"
            )
        return problem.weights(self, self._combine, base=False)

    def _combine(self, name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        del name, base
        if len(models) == 2:
            return slerp(models[0], models[1], self.t)
        return karcher(models, self.steps)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolates from ``a`` (t = 0) to ``b`` (t = 1) along the great circle; lengths are interpolated linearly.

    Where the directions are equal or opposite, or a length is 0, it is the linear interpolation.

    Args:
        a: any shape, float64; read as one vector.
        b: tensor of the same shape.
        t: place on the arc, between 0 and 1.
    """
    length, other = a.norm(), b.norm()
    if length == 0 or other == 0:
        return a.lerp(b, t)
    u, v = a / length, b / other
    # atan2 of half-angles keeps small angles exact, where acos of a cosine near 1 does not
    angle = 2 * (u - v).norm().atan2((u + v).norm())
    if angle < _SMALL or math.pi - angle < _SMALL:
        return a.lerp(b, t)
    direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    merged: Tensor = ((1 - t) * length + t * other) * direction
    return merged


def karcher(tensors: list[Tensor], steps: int = 50) -> Tensor:
    """The point on the sphere with the smallest sum of squared angles to all, at their mean length."""
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
        if angle < 1e-12:
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
