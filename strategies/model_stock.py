"""Model Stock: the average drawn towards the base as far as the models' angles say (Jang et al. 2024)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from merging.mixing.angles import products
from merging.mixing.sides import BLOCK, Sides, again
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.partition import Partition
from merging.values.recipe import Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("model-stock")
@dataclass(frozen=True)
class ModelStock(MixStrategy):
    """Draws the average towards the base, tensor by tensor: θ = t · mean + (1 − t) · θ_0.

    The share t follows from the angle between the task vectors. It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "Model Stock"
    summary: ClassVar[str] = "the average drawn towards the base, by the angles between models"
    paper: ClassVar[str] = "Jang et al. 2024, Eq. 4, https://arxiv.org/abs/2403.19522"
    formula: ClassVar[str] = (
        "per tensor: t = n cos φ / (1 + (n − 1) cos φ), θ = t · (1/n) Σ_i θ_i + (1 − t) · θ_0, φ the angle between "
        "task vectors θ_i − θ_0"
    )
    limits: ClassVar[str] = (
        "The paper also merges during training; this is its last step alone. It defines φ for two models; for more, "
        "their pairwise cosines are averaged, and a negative average counts as 0, the base, unless opposed = formula. "
        "With many models t nears 1, the uniform soup. Reads every model twice. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    min_models: ClassVar[int] = 2

    vectors: str = option(
        "tensor",
        "what has an angle: each tensor, or each of its rows (the last dimension)",
        choices=("tensor", "rows"),
        later=True,
    )
    opposed: str = option(
        "base",
        "what models become whose changes point away from each other on average: the base, or what the formula gives",
        choices=("base", "formula"),
        later=True,
    )

    def mix(self, problem: Problem) -> Recipe | Weights:
        """A recipe with a component for each tensor and the base as its last row; of rows, weights tensor by tensor."""
        if self.vectors == "rows":
            return problem.weights(self, self._rows)
        pool, count = problem.pool, len(problem.pool)
        parts = [
            replace(component, name=name, tensors=(name,))
            for component in problem.partition.components
            for name in component.tensors
        ]
        partition = Partition(tuple(parts)).with_ties(pool.ties)
        problem.progress.stage("measuring angles", len(partition))
        table = np.zeros((count + 1, len(partition)))
        for column, component in enumerate(partition.components):
            ratio = self._ratio(problem, component.tensors[0])
            table[:, column] = [ratio / count] * count + [1.0 - ratio]
            problem.progress.advance()
        return Recipe.weighted((*pool.ingredients, pool.base_ingredient), partition, table)

    def _ratio(self, problem: Problem, name: str) -> float:
        pool = problem.pool
        if name not in pool.mixable or pool.base is None:
            return 1.0
        shape, dtype = pool.tensors[name]
        if math.prod(shape) <= BLOCK:  # these keep the bits that they have always had
            base = pool.base.read(name).double()
            changes = [(c.read(name).double() - base).reshape(-1) for c in pool.checkpoints]
            pairs = itertools.combinations(changes, 2)
            cosines = [_cosine(float(a @ b), float(a.norm() * b.norm())) for a, b in pairs]
            return float(self._share(np.array(np.mean(cosines)), len(pool)))
        readers = [checkpoint.read_bytes for checkpoint in (*pool.checkpoints, pool.base)]
        read = again(readers, name, dtype)
        sides = Sides(name=name, shape=shape, dtype=dtype, models=len(pool), read=read)
        table = products(sides, of_changes=True)
        sizes = np.sqrt(np.diag(table))
        cosines = [
            _cosine(float(table[a, b]), float(sizes[a] * sizes[b]))
            for a, b in itertools.combinations(range(len(pool)), 2)
        ]
        return float(self._share(np.array(np.mean(cosines)), len(pool)))

    def _rows(self, name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        import torch

        del name
        if base is None:
            raise RuntimeError("the core gives a base where one is needed")
        wide = base.unsqueeze(-1) if base.dim() == 0 else base
        changes = [(model.unsqueeze(-1) if base.dim() == 0 else model) - wide for model in models]
        mean = sum(changes[1:], changes[0]) / len(changes)
        cosines = [_cosines(a, b) for a, b in itertools.combinations(changes, 2)]
        shares = self._share(np.mean(cosines, axis=0), len(changes))
        merged: Tensor = wide + torch.from_numpy(shares)[..., None] * mean
        return merged.reshape(base.shape)

    def _share(self, cosine: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """The share t of average cosines; 0 where the formula divides by 0."""
        if self.opposed == "base":
            cosine = np.maximum(cosine, 0.0)
        below = 1.0 + (count - 1.0) * cosine
        return np.where(abs(below) < _NOTHING, 0.0, count * cosine / np.where(abs(below) < _NOTHING, 1.0, below))


_NOTHING = 1e-6
"""Denominators below this divide nothing."""


def _cosines(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """The same as :func:`_cosine` of each row."""
    import torch

    sizes = a.norm(dim=-1) * b.norm(dim=-1)
    products = (a * b).sum(dim=-1)
    return torch.where(sizes > 0, products / sizes.where(sizes > 0, torch.ones_like(sizes)), 0.0).numpy()


def _cosine(product: float, size: float) -> float:
    """0 where a tensor did not change: then nothing says that its change is shared."""
    return product / size if size > 0 else 0.0
