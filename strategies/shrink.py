"""The control of MonoSoup: each matrix's change as short as MonoSoup makes it, in its own direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.mixing.varying import number_of
from merging.plugins.options import option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("shrink")
@dataclass(frozen=True)
class Shrink(MixStrategy):
    """Shortens what a merge changed in each weight matrix to the norm that `monosoup` would give it.

    What `monosoup` does beyond it is due to directions, not to plain shrinking towards the base. It needs the base and
    no data, and evaluates nothing itself.
    """

    label: ClassVar[str] = "shrink"
    summary: ClassVar[str] = (
        "the control of monosoup: a merge's change from the base, as much shorter, matrix by matrix"
    )
    paper: ClassVar[str] = (
        "the norm-matched control of Abdollahpoorrostam et al. 2026, https://arxiv.org/abs/2602.09689, which has none"
    )
    formula: ClassVar[str] = (
        "per matrix: θ = θ_0 + c · (θ_1 − θ_0), c = ‖Δ_mono‖ / ‖θ_1 − θ_0‖, Δ_mono the change that 'monosoup' with the "
        "same options would leave; θ_1 the merge of the strategy 'inner'"
    )
    limits: ClassVar[str] = (
        "Its options must be those of the 'monosoup' that it is compared with. Vectors, numbers and matrices all of "
        "whose directions are strong keep their change. Costs what the inner strategy costs, and the singular values "
        "of every matrix in float64 on one core; reads every model once more."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    ranks: ClassVar[bool] = False

    rank: str = option(
        "energy", "k: enough directions for 'energy', or the effective rank", choices=("energy", "effective")
    )
    energy: Varying = varying_option(
        0.8, "R, the share of Σ s² that the strong directions have at least", low=0.0, high=1.0, by="whole"
    )
    smallest: float = option(1e-6, "a matrix that changed by less, ‖Δ‖ / ‖θ_0‖, keeps its change", low=0.0, high=1.0)
    inner: MixStrategy | None = option(None, "the strategy whose merge it is; none: the uniform average")

    def mix(self, problem: Problem) -> Recipe | Weights:
        """Makes the inner merge first, then shortens its change; a recipe stays one, with a component a tensor."""
        from merging.mixing.edits import edited, inner_merge, reader, scaled
        from merging.mixing.spectrum import Tempering

        merged, pool = inner_merge(self, self.inner, problem), problem.pool
        tempering = Tempering(self.rank, number_of(self, "energy", problem), self.smallest)
        if isinstance(merged, Weights):

            def edit(name: str, change: Tensor, base: Tensor) -> Tensor:
                del name
                ratio = tempering.ratio(change, base)
                return change if ratio == 1.0 else change * ratio

            return edited(problem, self, merged, edit)
        home = {name: group[0] for group in pool.ties for name in group}
        read, factors = reader(merged, pool), dict.fromkeys(pool.tensors, 1.0)
        frozen = {name for component in problem.partition.components if component.frozen for name in component.tensors}
        names = [n for n in pool.tensors if n in pool.mixable - frozen and home.get(n, n) == n]
        problem.progress.stage("measuring the directions of the change", len(names))
        for name in names:
            base = pool.read(pool.base_ingredient, name).double()
            factors[name] = tempering.ratio(read(name) - base, base)
            problem.progress.advance()
        factors |= {name: factors[first] for name, first in home.items()}
        return scaled(merged, pool, factors, {name: home.get(name, name) for name in factors})
