"""NuSLERP: along the great circle between two models or their changes, of whole tensors, rows or columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.mixing.angles import arc, by_angles, karcher_mean
from merging.mixing.spherical import slerp, slerp_rows
from merging.mixing.varying import amount_of, at
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.searched import numbers_in
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from merging.mixing.sides import Doubles


@strategies.register("nuslerp")
@dataclass(frozen=True)
class NuSlerp(MixStrategy):
    """Interpolates between two models, or between their changes from the base, with the factors of the great circle.

    Of more than two it is their Karcher mean, whole tensors as vectors.
    """

    label: ClassVar[str] = "NuSLERP"
    summary: ClassVar[str] = "slerp of two models or of their changes; whole tensors, rows or columns"
    paper: ClassVar[str] = (
        "mergekit 0.1.5, merge_methods/nuslerp.py; Shoemake 1985, https://doi.org/10.1145/325165.325242"
    )
    formula: ClassVar[str] = (
        "θ = (sin((1 − t)φ) · a + sin(tφ) · b) / sin φ, φ = angle(a, b), of two models; with of = changes, a and b are "
        "θ_i − θ_0, and θ_0 is added"
    )
    limits: ClassVar[str] = (
        "Made for two models; of more, the Karcher mean of whole tensors. Of parallel, opposite or zero vectors it is "
        "the straight line. Lengths are not kept apart as in 'slerp': of changes at right angles, half the way is "
        "longer than their average. Costs no evaluation."
    )
    min_models: ClassVar[int] = 2
    gives: ClassVar[str] = "weights"

    t: Varying = varying_option(
        0.5, "how far from the first model to the second: w_2 / (w_1 + w_2)", low=0.0, high=1.0, by="components"
    )
    of: str = option(
        "models", "what is turned: the models, or their changes from the base", choices=("models", "changes")
    )
    vectors: str = option(
        "tensor",
        "what has an angle: each tensor, its rows (the last dimension), or its columns (the first)",
        choices=("tensor", "rows", "columns"),
    )

    def requires(self) -> frozenset[str]:
        """The base, where changes are turned."""
        return super().requires() | ({"base"} if self.of == "changes" else set())

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        given = "t" if {*numbers_in(self, "t")} != {0.5} else "vectors" if self.vectors != "tensor" else ""
        if len(problem.pool) > 2 and given:
            raise OptionError(
                f"option '{given}' of 'nuslerp' is for two models, not {len(problem.pool)}; leave it out for their mean"
            )
        t, of_changes = amount_of(self, "t", problem), self.of == "changes"

        def factors(name: str, products: Doubles) -> list[float]:
            return karcher_mean(products) if len(products) > 2 else arc(products, at(t, 0, name), lengths="own")

        if self.vectors == "tensor":
            return problem.weights(self, by_angles(factors, of_changes=of_changes), base=of_changes)

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            given = models if base is None else [model.sub_(base) for model in models]
            merged = self._between(given[0], given[1], at(t, 0, name))
            return merged if base is None else base + merged

        return problem.weights(self, combine, base=of_changes)

    def _between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        if a.dim() == 0:
            return slerp(a, b, t, lengths="own")
        if self.vectors == "rows":
            return slerp_rows(a, b, t)
        return slerp_rows(a.transpose(0, -1), b.transpose(0, -1), t).transpose(0, -1)
