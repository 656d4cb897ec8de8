"""What a strategy is given to search with: ``problem.search``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from merging.plugins.optimizer import Vector
from merging.values.outcome import Outcome, Solution
from merging.values.recipe import Recipe

Path: TypeAlias = Callable[[Vector], Outcome]
"""Mixing factors, one a component of the partition → what that mix scores on the held-out data."""


class Searches(Protocol):
    """Searches for what scores best. For strategies whose ``needs`` hold ``objective``."""

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Path:
        """The function λ ↦ outcome of ``λ·incumbent + (1 − λ)·candidate`` per component, mixed in place on the device.

        ``mixing``: ``lerp``, or ``sum`` for λ·A + (1 − λ)·C rounded as the published code does.
        """

    def maximize(
        self,
        function: Callable[[Vector], Outcome],
        *,
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        rounded: bool = True,
        components: Sequence[int] | None = None,
    ) -> Solution:
        """Searches the box with the optimizer that the user chose.

        ``budget``: evaluations; the user's own, where there is one, takes its place.

        ``rounded``: points are rounded to float32 first, so that a recipe can hold the very factors that were tried.

        ``components``: which component of the partition each variable moves. From that an optimizer is told what a
        move of each variable costs; without it, a whole pass.
        """
